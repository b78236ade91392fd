"""One row of the parameter tables: everything the package knows about one key."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pyptyx.params.kinds import FINITE, FLOAT, INT, TEXT, Bounds, Kind, Mismatch, describe
from pyptyx.params.schedule import is_schedule_text, parse


@dataclass(frozen=True)
class Row:
    """One key of a params dictionary.

    Attributes
    ----------
    name : str
        The key.
    default : object
        Value used when the key is absent; it satisfies the row itself.
    kind : Kind
        Type checker and converter.
    doc : str
        One sentence for the user.
    unit : str
        Unit of the value, ``"-"`` if it has none.
    bounds : Bounds or None
        Interval for every number of the value; None does not look at the numbers.
    choices : tuple
        Allowed strings (or integers); values of another type are not restricted by them.
    schedulable : bool
        Whether a callable of the epoch or a ``"lambda x: ..."`` string is accepted.
    nullable : bool
        Whether None is accepted; always true where None is the default.
    group, scope : str
        Heading in the reference, and the dictionary the key belongs to: ``"run"``,
        ``"experiment"``, ``"both"`` or ``"info"`` (metadata without effect).
    """

    name: str
    default: Any
    kind: Kind
    doc: str
    unit: str = "-"
    bounds: Bounds | None = FINITE
    choices: tuple[Any, ...] = ()
    schedulable: bool = False
    nullable: bool = False
    group: str = ""
    scope: str = ""

    @property
    def accepts_none(self) -> bool:
        """Whether None is a value of this key."""
        return self.nullable or self.default is None

    @property
    def expected(self) -> str:
        """What is expected, as a phrase: kind, choices, bounds, None, schedule."""
        return self.constant + ", or a schedule of the epoch" * self.schedulable

    @property
    def constant(self) -> str:
        """What is expected of a value that is no schedule, for example of the result of one."""
        text = self.kind.label
        if self.choices:
            # The choices say more than the word "string" or "integer" they stand for.
            general = TEXT.label if isinstance(self.choices[0], str) else INT.label
            words = [repr(choice) for choice in self.choices]
            few = len(words) <= 2
            text = text.replace(
                general, " or ".join(words) if few else f"one of {', '.join(words)}"
            )
        if self.bounds is not None and self.bounds.phrase:
            plain = text in (INT.label, FLOAT.label)
            text += f" {self.bounds.phrase}" if plain else f", {self.bounds.phrase}"
        if self.accepts_none:
            text += ", or None"
        return text

    def convert(self, value: Any) -> Any:
        """The value in its normal form; a schedule string becomes a `Schedule`.

        Raises
        ------
        Mismatch
            If the value does not satisfy the row.
        ParamError
            If a schedule string is outside the grammar.
        """
        if self.schedulable and is_schedule_text(value):
            return parse(value, self.name)
        if self.schedulable and callable(value):
            return self._checked_callable(value)
        return self.convert_constant(value)

    def convert_constant(self, value: Any) -> Any:
        """As `convert` for a value that is no schedule, for example the result of one."""
        if value is None:
            if self.accepts_none:
                return None
            raise Mismatch(self.expected, "None")
        try:
            converted = self.kind.convert(value)
        except Mismatch as mismatch:
            raise Mismatch(self.expected, mismatch.got) from None
        self._check_choice(converted)
        self._check_bounds(converted)
        return converted

    def default_value(self) -> Any:
        """The default in its normal form; arrays are new at every call."""
        return None if self.default is None else self.kind.convert(self.default)

    def _checked_callable(self, value: Callable[..., Any]) -> Callable[..., Any]:
        try:
            inspect.signature(value).bind(0)
        except TypeError:
            raise Mismatch(self.expected, "a callable that cannot take one argument") from None
        except ValueError:
            return value  # built-in functions may have no signature
        return value

    def _check_choice(self, value: Any) -> None:
        restricted = self.choices and isinstance(value, type(self.choices[0]))
        if restricted and value not in self.choices:
            raise Mismatch(self.expected, describe(value))

    def _check_bounds(self, value: Any) -> None:
        if self.bounds is None:
            return
        numbers = _numbers(value)
        if numbers is not None and not self.bounds.contain(numbers):
            got = describe(value) if not isinstance(value, np.ndarray) else _range_of(value)
            raise Mismatch(self.expected, got)


def _numbers(value: Any) -> np.ndarray | None:
    """The real numbers of a value, or None if it holds no numbers or complex ones."""
    if isinstance(value, np.ndarray):
        return value if value.dtype.kind in "iuf" else None
    items = value if isinstance(value, tuple) else (value,)
    if all(isinstance(i, int | float) and not isinstance(i, bool) for i in items):
        return np.array(items, dtype=object)  # object: an integer of any size compares exactly
    return None


def _range_of(a: np.ndarray) -> str:
    return f"values from {a.min():g} to {a.max():g}"


def table(group: str, scope: str, *rows: Row) -> tuple[Row, ...]:
    """Rows under one heading of the reference."""
    return tuple(replace(row, group=group, scope=scope) for row in rows)
