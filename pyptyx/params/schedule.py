"""Parameters that change with the epoch: safe ``"lambda x: ..."`` strings, callables and tables.

Strings are parsed with `ast` and interpreted node by node; nothing is ever compiled or executed.
The grammar: one parameter; numbers and booleans; ``+ - * / // % **``; comparisons; ``and or not``;
conditional expressions; calls of ``min max abs int float round`` and of ``np.`` / ``math.``
``exp log sqrt sin cos floor ceil`` (and ``np.where``); the constants ``pi`` and ``inf`` of both.
"""

from __future__ import annotations

import ast
import inspect
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyptyx.errors import ParamError, Problem
from pyptyx.params.kinds import describe

MAX_TEXT = 1000
MAX_NODES = 200
MAX_BITS = 4096
"""Largest integer a power may produce, in bits: ``9**9**9`` would fill the memory."""
MAX_DIGITS = 300

_STARTS_WITH_LAMBDA = re.compile(r"\s*lambda\b")
_REMEDY = (
    "Use numbers, the epoch, + - * / // % **, comparisons, min max abs int float round, np.exp ..."
)


def _power(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and b > 0 and a.bit_length() * b > MAX_BITS:
        raise OverflowError("power too large")
    return a**b


def _round(a: Any, digits: Any = None) -> Any:
    if digits is None:
        return round(a)
    if abs(digits) > MAX_DIGITS:
        raise OverflowError("too many digits")
    return round(a, digits)


_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_UNARY: dict[type, Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
}
_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS = ("exp", "log", "sqrt", "sin", "cos", "floor", "ceil")
_CONSTANTS = {f"{module}.{c}": getattr(math, c) for module in ("np", "math") for c in ("pi", "inf")}
_CALLS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "int": int,
    "float": float,
    "round": _round,
    "np.where": np.where,
    **{f"np.{name}": getattr(np, name) for name in _FUNCTIONS},
    **{f"math.{name}": getattr(math, name) for name in _FUNCTIONS},
}
_RESERVED = {"np", "math", *_CALLS}


def _dotted(node: ast.expr) -> str:
    """``"name"`` or ``"module.name"``; an empty string for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return ""


def _children(node: ast.expr, parameter: str) -> list[ast.expr]:
    """The sub-expressions of an allowed node; ValueError for a node outside the grammar."""
    match node:
        case ast.Constant(value=bool() | int() | float()):
            return []
        case ast.Name(id=name) if name == parameter:
            return []
        case ast.Attribute() if _dotted(node) in _CONSTANTS:
            return []
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return [left, right]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return [operand]
        case ast.BoolOp(values=values):
            return values
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return [test, body, orelse]
        case ast.Compare(left=left, ops=ops, comparators=rest) if {*map(type, ops)} <= {*_COMPARE}:
            return [left, *rest]
        case ast.Call(func=func, args=args, keywords=[]) if _dotted(func) in _CALLS:
            return args
    raise ValueError(f"{ast.unparse(node)[:60]!r} is not allowed")


def _check(body: ast.expr, parameter: str) -> None:
    """Refuse what is outside the grammar, too large, or a constant power that overflows."""
    pending, count = [body], 0
    while pending:
        node = pending.pop()
        count += 1
        if count > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} terms")
        pending.extend(_children(node, parameter))
    for sub in ast.walk(body):
        is_power = isinstance(sub, ast.BinOp) and isinstance(sub.op, ast.Pow)
        if is_power and not any(
            isinstance(n, ast.Name) and n.id == parameter for n in ast.walk(sub)
        ):
            try:
                _value(sub, 0)
            except OverflowError as error:
                raise ValueError(f"{error} in {ast.unparse(sub)!r}") from None
            except ArithmeticError:
                continue  # a division by zero may lie in a branch that is never taken


def _value(node: ast.AST, x: Any) -> Any:
    """Interpret a checked node at ``parameter = x``; every intermediate is a Python scalar."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name():
            return x
        case ast.Attribute():
            return _CONSTANTS[_dotted(node)]
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_value(left, x), _value(right, x))
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](_value(operand, x))
        case ast.BoolOp():
            return _bool_op(node, x)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body if _value(test, x) else orelse, x)
        case ast.Compare():
            return _compare(node, x)
        case ast.Call(func=func, args=args):
            result = _CALLS[_dotted(func)](*(_value(a, x) for a in args))
            return result.item() if isinstance(result, np.generic | np.ndarray) else result
    raise TypeError(f"unchecked node {type(node).__name__}")


def _bool_op(node: ast.BoolOp, x: Any) -> Any:
    stop_on = isinstance(node.op, ast.Or)
    result: Any = None
    for sub in node.values:
        result = _value(sub, x)
        if bool(result) is stop_on:
            break
    return result


def _compare(node: ast.Compare, x: Any) -> bool:
    left = _value(node.left, x)
    for op, right_node in zip(node.ops, node.comparators, strict=True):
        right = _value(right_node, x)
        if not _COMPARE[type(op)](left, right):
            return False
        left = right
    return True


def _parse_lambda(text: str) -> tuple[str, ast.expr]:
    """Parameter name and body of a lambda string inside the grammar; ValueError otherwise."""
    if not is_schedule_text(text):
        raise ValueError("it does not start with 'lambda'")
    if len(text) > MAX_TEXT:
        raise ValueError(f"it is longer than {MAX_TEXT} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"it is not a Python expression ({error})") from None
    if not isinstance(tree, ast.Lambda):
        raise ValueError("it is not one lambda expression")
    args = tree.args
    extra = args.posonlyargs + args.kwonlyargs
    if len(args.args) != 1 or extra or args.vararg or args.kwarg or args.defaults:
        raise ValueError("it must have exactly one parameter, without a default")
    parameter = args.args[0].arg
    if parameter in _RESERVED:
        raise ValueError(f"the parameter must not be called {parameter!r}")
    try:
        _check(tree.body, parameter)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return parameter, tree.body


@dataclass(frozen=True)
class Schedule:
    """A value as a function of the epoch, given as the text of a lambda expression.

    Attributes
    ----------
    source : str
        The text as written; two schedules are equal if their texts are.

    Raises
    ------
    ValueError
        If the text is outside the grammar of this module.
    """

    source: str
    _body: ast.expr = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_body", _parse_lambda(self.source)[1])

    def __call__(self, epoch: int) -> Any:
        """The value at an epoch: an int, float or bool."""
        with np.errstate(all="ignore"):
            return _value(self._body, epoch)

    def __reduce__(self) -> tuple[Any, ...]:
        return Schedule, (self.source,)


@dataclass(frozen=True)
class Table:
    """A schedule written out: ``values[epoch]``.  Stands for a callable that has no source text."""

    values: tuple[Any, ...]

    def __call__(self, epoch: int) -> Any:
        """The value at an epoch; IndexError beyond the end of the table."""
        if not 0 <= epoch < len(self.values):
            raise IndexError(f"the saved table covers epochs 0 to {len(self.values) - 1} only")
        return self.values[epoch]


def is_schedule_text(value: Any) -> bool:
    """Whether a value is a string whose first token is ``lambda``."""
    return isinstance(value, str) and _STARTS_WITH_LAMBDA.match(value) is not None


def parse(text: str, key: str = "schedule") -> Schedule:
    """Read a ``"lambda x: ..."`` string.

    Parameters
    ----------
    text : str
        The string.
    key : str
        Name of the parameter, for the message.

    Raises
    ------
    ParamError
        If the string is outside the grammar of this module; names the key and the string.
    """
    try:
        return Schedule(text)
    except ValueError as error:
        got = f"{text[:80]!r} ({error})"
        problem = Problem(key, "a formula of the epoch, such as 'lambda x: x < 20'", got, _REMEDY)
        raise ParamError(problem) from None


def _is_nan(value: Any) -> bool:
    array = value if isinstance(value, np.ndarray) else None
    if array is None:
        return isinstance(value, float | complex | np.inexact) and bool(np.isnan(value))
    return array.dtype.kind in "fc" and bool(np.isnan(array).any())


def schedule_name(schedule: Callable[..., Any]) -> str:
    """What a schedule is called in messages: its text, or the name of the function."""
    named = getattr(schedule, "__name__", type(schedule).__name__)
    text = getattr(schedule, "source", None) or describe_callable(schedule)
    return text or named.replace("<lambda>", "lambda")


def value_at(value: Any, epoch: int, key: str) -> Any:
    """The value of a parameter at an epoch.

    Parameters
    ----------
    value : object
        A constant, or a `Schedule`, `Table` or other callable of the epoch.
    epoch : int
        Epoch number.
    key : str
        Name of the parameter, for the message.

    Raises
    ------
    ParamError
        If the callable raises or gives NaN or a complex number; names the key and the epoch.
    """
    if not callable(value):
        return value
    expected = f"a value at epoch {epoch}"
    remedy = f"Correct the schedule {schedule_name(value)!r}"
    try:
        result = value(epoch)
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        raise ParamError(Problem(key, expected, got, remedy)) from error
    if _is_nan(result) or isinstance(result, complex):
        raise ParamError(Problem(key, expected, describe(result), remedy))
    return result


def tabulate(schedule: Callable[[int], Any], n: int, key: str = "schedule") -> Table:
    """The values at epochs ``0 ... n - 1``; ParamError where the callable fails."""
    return Table(tuple(value_at(schedule, epoch, key) for epoch in range(n)))


def describe_callable(function: Callable[..., Any]) -> str | None:
    """Source text of a lambda, if it can be found and lies in the grammar of this module.

    The file of the lambda is parsed with `ast` and the expression is matched by its position, so
    commas, brackets, line breaks and neighbours on the same line do no harm.  None is returned for
    anything else: named functions, closures, names from outside, code without a file.
    """
    code = getattr(function, "__code__", None)
    if code is None or code.co_name != "<lambda>" or code.co_freevars:
        return None
    try:
        tree = ast.parse("".join(inspect.findsource(function)[0]))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    positions = {(p[0], p[2]) for p in code.co_positions() if None not in p[:3]}
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Lambda) and (node.body.lineno, node.body.col_offset) in positions
    ]
    if len(found) != 1:
        return None
    text = ast.unparse(found[0])
    try:
        return Schedule(text).source
    except ValueError:
        return None


def freeze(function: Callable[[int], Any], n: int, key: str = "schedule") -> Schedule | Table:
    """A callable in a form that can be saved: its source text if faithful, else its values.

    Parameters
    ----------
    function : callable of one int
        The schedule.
    n : int
        Number of epochs over which text and callable must agree, and which a table covers.
    key : str
        Name of the parameter, for messages.

    Raises
    ------
    ParamError
        If the callable fails at one of the epochs.
    """
    if isinstance(function, Schedule | Table):
        return function
    table = tabulate(function, n, key)
    text = describe_callable(function)
    if text is None:
        return table
    schedule = Schedule(text)
    try:
        same = tabulate(schedule, n, key) == table
    except (ParamError, ValueError):
        same = False  # the text means something else here, or the values are arrays
    return schedule if same else table
