"""What a parameter's value may be: scalar, text, path, pair, array, and the bounds of its numbers.

A `Kind` turns what a user may write (NumPy scalars, lists, ``pathlib.Path``, 0/1 for a flag) into
the one form the package works with, or raises `Mismatch`.
"""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

DEFAULT_CUTOFF = 2 / 3
"""Band limit meant by a negative cut-off, as a fraction of the largest frequency."""


class Mismatch(Exception):
    """A value that is not of the expected kind; `expected` and `got` are phrases for the user."""

    def __init__(self, expected: str, got: str):
        super().__init__(f"expected {expected}, got {got}")
        self.expected = expected
        self.got = got


def describe(value: Any) -> str:
    """A short phrase for a value in a message: its content, or dtype and shape."""
    if value is None or isinstance(value, bool | int | float | str | list | tuple):
        return reprlib.repr(value)
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None and len(shape):
        return f"array of {dtype} with shape {tuple(shape)}"
    return f"{type(value).__name__} {reprlib.repr(value)}"


@dataclass(frozen=True)
class Kind:
    """A named conversion.

    Attributes
    ----------
    label : str
        What is expected, as a phrase.
    convert : callable
        ``convert(value)`` returns the converted value or raises `Mismatch`.
    """

    label: str
    convert: Callable[[Any], Any]


@dataclass(frozen=True)
class Bounds:
    """An interval of numbers; infinity belongs to it only if an infinite end is closed."""

    lo: float
    hi: float
    lo_closed: bool
    hi_closed: bool

    @classmethod
    def parse(cls, text: str) -> Bounds:
        """Read interval notation such as ``"(0, 1]"`` or ``"[0, inf)"``."""
        lo, hi = text[1:-1].split(",")
        return cls(float(lo), float(hi), text[0] == "[", text[-1] == "]")

    def __str__(self) -> str:
        left, right = "[" if self.lo_closed else "(", "]" if self.hi_closed else ")"
        return f"{left}{self.lo:g}, {self.hi:g}{right}"

    @property
    def phrase(self) -> str:
        """The interval in words, for messages."""
        words = []
        if math.isfinite(self.lo):
            words.append(f"{'≥' if self.lo_closed else '>'} {self.lo:g}")
        if math.isfinite(self.hi):
            words.append(f"{'≤' if self.hi_closed else '<'} {self.hi:g}")
        return " and ".join(words)

    def contain(self, numbers: np.ndarray) -> bool:
        """Whether every number lies inside; NaN never does."""
        with np.errstate(invalid="ignore"):
            above = numbers >= self.lo if self.lo_closed else numbers > self.lo
            below = numbers <= self.hi if self.hi_closed else numbers < self.hi
        return bool(np.all(above & below))


FINITE = Bounds.parse("(-inf, inf)")
POSITIVE = Bounds.parse("(0, inf)")
NON_NEGATIVE = Bounds.parse("[0, inf)")
ONE_OR_MORE = Bounds.parse("[1, inf)")
UNIT_OPEN = Bounds.parse("(0, 1)")


def _plain(value: Any) -> Any:
    """A NumPy scalar or 0-d array as the Python scalar it holds."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return value


def _bool(value: Any) -> bool:
    plain = _plain(value)
    if isinstance(plain, bool | int | float) and plain in (0, 1):
        return bool(plain)
    raise Mismatch(BOOL.label, describe(value))


def _int(value: Any) -> int | float:
    plain = _plain(value)
    if isinstance(plain, int) and not isinstance(plain, bool):
        return plain
    if isinstance(plain, float) and plain.is_integer():
        return int(plain)
    if isinstance(plain, float) and math.isinf(plain):
        return plain
    raise Mismatch(INT.label, describe(value))


def _count(value: Any) -> int | float:
    plain = _plain(value)
    return int(plain) if isinstance(plain, bool) else _int(value)


def _float(value: Any) -> float:
    plain = _plain(value)
    if isinstance(plain, int | float) and not isinstance(plain, bool):
        try:
            return float(plain)
        except OverflowError:
            pass
    raise Mismatch(FLOAT.label, describe(value))


def _weight(value: Any) -> float:
    plain = _plain(value)
    return float(plain) if isinstance(plain, bool) else _float(value)


def _cutoff(value: Any) -> float:
    number = _float(value)
    return DEFAULT_CUTOFF if number < 0 else number


def _text(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    raise Mismatch(TEXT.label, describe(value))


def _path(value: Any) -> str:
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if isinstance(text, str) and "\0" not in text:
            return str(text)
    raise Mismatch(PATH.label, describe(value))


def _folder(value: Any) -> str:
    text = _path(value)
    stripped = text.rstrip(os.sep + (os.altsep or ""))
    return stripped or text[:1]


def _dtype(value: Any) -> str:
    try:
        dtype = np.dtype(value)
    except (TypeError, ValueError):
        dtype = np.dtype(object)
    if dtype.kind not in "iuf":
        raise Mismatch(DTYPE.label, describe(value))
    return dtype.name


BOOL = Kind("True or False (1 or 0)", _bool)
INT = Kind("an integer", _int)
COUNT = Kind("an integer (True = 1, False = 0)", _count)
FLOAT = Kind("a number", _float)
WEIGHT = Kind("a number (False = 0)", _weight)
CUTOFF = Kind("a number (negative = 2/3)", _cutoff)
TEXT = Kind("a string", _text)
PATH = Kind("a path", _path)
FOLDER = Kind("a folder", _folder)
DTYPE = Kind("a real NumPy dtype", _dtype)


def either(*kinds: Kind) -> Kind:
    """The first of several kinds that accepts the value; put arrays last, their message is best."""
    label = " or ".join(k.label for k in kinds)

    def convert(value: Any) -> Any:
        got = describe(value)
        for kind in kinds:
            try:
                return kind.convert(value)
            except Mismatch as mismatch:
                got = mismatch.got
        raise Mismatch(label, got)

    return Kind(label, convert)


def pair(item: Kind, names: str) -> Kind:
    """A tuple of two values of one kind, for example ``(y, x)``."""
    label = f"two values {names}, each {item.label}"

    def convert(value: Any) -> tuple[Any, Any]:
        if isinstance(value, list | tuple | np.ndarray) and len(value) == 2:
            try:
                return item.convert(value[0]), item.convert(value[1])
            except Mismatch:
                pass
        raise Mismatch(label, describe(value))

    return Kind(label, convert)


def standing_for_none(word: str) -> Kind:
    """A word that means the same as None."""
    label = repr(word)

    def convert(value: Any) -> None:
        if not isinstance(value, str) or value != word:
            raise Mismatch(label, describe(value))

    return Kind(label, convert)


def optional(item: Kind) -> Kind:
    """None, or a value of the kind; needed inside pairs only (see `Row.nullable` for keys)."""
    return Kind(f"None or {item.label}", lambda v: None if v is None else item.convert(v))


Shape = tuple[str | int, ...]


def _fits(shape: tuple[int, ...], pattern: Shape) -> bool:
    same = len(shape) == len(pattern)
    return same and all(isinstance(p, str) or s == p for s, p in zip(shape, pattern, strict=True))


def _shape_text(pattern: Shape) -> str:
    return f"({', '.join(str(p) for p in pattern)}{',' if len(pattern) == 1 else ''})"


def _as_integers(a: np.ndarray) -> np.ndarray | None:
    if a.dtype.kind == "f" and not (np.isfinite(a).all() and (a == np.rint(a)).all()):
        return None
    return a.astype(np.int64) if a.dtype.kind in "iuf" else None


def _as_real(a: np.ndarray) -> np.ndarray | None:
    if a.dtype.kind == "f":
        return a
    return a.astype(np.float64) if a.dtype.kind in "biu" else None


_CAST: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
    "integer": _as_integers,
    "real": _as_real,
    "mask": lambda a: a if a.dtype.kind == "b" else _as_real(a),
    "complex": lambda a: a if a.dtype.kind == "c" else _as_real(a),
}


def array(*shapes: Shape, dtype: str = "real") -> Kind:
    """A non-empty array without NaN in one of several shapes.

    Parameters
    ----------
    *shapes : tuple of str and int
        A name stands for any length, an integer for itself.  A scalar may stand for one axis.
    dtype : {"real", "integer", "mask", "complex"}
        Integers become float64 in a real array, integral floats int64 in an integer one; booleans
        stay booleans in a mask; real values are allowed in a complex array.
    """
    label = f"{dtype} array {' or '.join(_shape_text(s) for s in shapes)}"
    accepts_scalar = any(len(s) == 1 and isinstance(s[0], str) for s in shapes)

    def convert(value: Any) -> np.ndarray:
        got = describe(value)
        try:
            raw = np.asarray(value)
        except (TypeError, ValueError):
            raise Mismatch(label, got) from None
        if raw.ndim == 0 and accepts_scalar:
            raw = raw.reshape(1)
        a = _CAST[dtype](raw)
        if a is None or not any(_fits(a.shape, s) for s in shapes):
            raise Mismatch(label, got if isinstance(value, np.ndarray | str) else describe(raw))
        if a.size == 0:
            raise Mismatch(label, f"an empty array with shape {a.shape}")
        bad = ~np.isfinite(a) if a.dtype.kind == "c" else np.isnan(a)
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            raise Mismatch(label, f"{int(bad.sum())} NaN or infinite entries, the first at {where}")
        return a

    return Kind(label, convert)


def _lazy_stack(value: Any) -> Any:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        try:
            value = np.asarray(value)
        except (TypeError, ValueError):
            raise Mismatch(LAZY_STACK.label, describe(value)) from None
        shape, dtype = value.shape, value.dtype
    if len(shape) not in (2, 3, 4) or 0 in shape or np.dtype(dtype).kind not in "biuf":
        raise Mismatch(LAZY_STACK.label, describe(value))
    return value


LAZY_STACK = Kind("real array (N, ky, kx), (scan y, scan x, ky, kx) or (N, masks)", _lazy_stack)
"""A pattern stack, which may be large: neither copied nor searched for NaN here."""
