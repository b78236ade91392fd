"""Schedules: the grammar means what Python means, and refuses everything else."""

import math
import pickle
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyptyx.errors import ParamError
from pyptyx.params.schedule import (
    Schedule,
    Table,
    describe_callable,
    freeze,
    is_schedule_text,
    parse,
    tabulate,
    value_at,
)

SAME_MEANING = {
    "lambda x: 3": lambda x: 3,
    "lambda x: x >= 5": lambda x: x >= 5,
    "  lambda epoch : 1e-3 * (epoch > 2) + 0.5": lambda e: 1e-3 * (e > 2) + 0.5,
    "lambda x: 0.1 if x < 4 else (2 if x % 2 else -x)": lambda x: (
        0.1 if x < 4 else (2 if x % 2 else -x)
    ),
    "lambda x: max(x, 1, 7 - x)": lambda x: max(x, 1, 7 - x),
    "lambda x: 2 < x <= 6 != 5": lambda x: 2 < x <= 6 != 5,
    "lambda x: x and 4 or True": lambda x: (x and 4) or True,
    "lambda x: not x > 3": lambda x: not x > 3,
    "lambda x: x // 3 - x ** 2 / (x + 1)": lambda x: x // 3 - x**2 / (x + 1),
    "lambda x: round(np.exp(-x / 5), 3)": lambda x: round(float(np.exp(-x / 5)), 3),
    "lambda x: math.floor(x / 2) + int(x * 0.7) + abs(3 - x)": lambda x: (
        math.floor(x / 2) + int(x * 0.7) + abs(3 - x)
    ),
    "lambda x: np.where(x > 3, 1, 2.5)": lambda x: 1 if x > 3 else 2.5,
    "lambda x: np.inf if x > 5 else math.pi": lambda x: math.inf if x > 5 else math.pi,
    "lambda x: 10 ** -x": lambda x: 10**-x,
    "lambda x: 5 if x == 0 else 1 / x": lambda x: 5 if x == 0 else 1 / x,
    "lambda max_: float(max_)": lambda x: float(x),
}


@pytest.mark.parametrize("text", SAME_MEANING)
def test_means_what_python_means(text):
    schedule, reference = parse(text), SAME_MEANING[text]
    for epoch in range(9):
        value, expected = schedule(epoch), reference(epoch)
        assert value == expected
        assert isinstance(value, bool) == isinstance(expected, bool)


NUMBERS = st.integers(0, 20).map(str) | st.sampled_from(["0.5", "x", "x", "True"])
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+ - * < >= == and or".split()), inner).map(
            lambda t: f"({' '.join(t)})"
        ),
        st.tuples(inner, inner, inner).map(lambda t: "({} if {} else {})".format(*t)),
        st.tuples(inner, inner).map(lambda t: "min({}, {})".format(*t)),
        inner.map("(not {})".format),
        inner.map("(-{})".format),
    ),
    max_leaves=8,
)


@given(body=EXPRESSIONS, epoch=st.integers(0, 50))
def test_random_expressions_mean_what_python_means(body, epoch):
    # The comparison needs Python's own meaning; the text is built above from harmless pieces.
    expected = eval(f"lambda x: {body}")(epoch)
    assert parse(f"lambda x: {body}")(epoch) == expected


@pytest.mark.parametrize(
    "text",
    [
        "lambda x: __import__('os')",
        "lambda x: __import__('os').system('true')",
        "lambda x: x.__class__",
        "lambda x: np.load",
        "lambda x: np.load(x)",
        "lambda x: np.core.multiarray",
        "lambda x: math.factorial(x)",
        "lambda x: [i for i in (1, 2)]",
        "lambda x: sum(i for i in (1, 2))",
        "lambda x: (y := x)",
        "lambda x: open(x)",
        "lambda x: eval(x)",
        "lambda x: lambda y: y",
        "lambda x: (lambda y: y)(x)",
        "lambda x: f'{x}'",
        "lambda x: 'text'",
        "lambda x: b'1' * 10",
        "lambda x: None",
        "lambda x: 1j",
        "lambda x: ...",
        "lambda x: [1, 2]",
        "lambda x: {1: 2}",
        "lambda x: x[0]",
        "lambda x: y",
        "lambda x: x @ x",
        "lambda x: x << 9999999",
        "lambda x: ~x",
        "lambda x: x is x",
        "lambda x: x in x",
        "lambda x: max(*x)",
        "lambda x: max(x, key=abs)",
        "lambda x: round(x, ndigits=1)",
        "lambda: 1",
        "lambda x, y: x",
        "lambda *x: 1",
        "lambda **x: 1",
        "lambda x=1: x",
        "lambda x, /: x",
        "lambda *, x: x",
        "lambda np: np.exp(1)",
        "lambda max: max(1, 2)",
        "lambda x: 9**9**9",
        "lambda x: 9**9**9 if x > 1 else 0",
        "lambda x: x + (10**10)**(10**10)",
        "lambda x: 1" + " + 1" * 150,
        "lambda x: " + "-" * 900 + "1",
        "lambda x: " + "(" * 400 + "x" + ")" * 400,
        "lambda x: " + "1" * 2000,
        "lambda x: x\nimport os",
        "lambda x: x; 1",
        "lambda x: x, 1",
        "lambda x: \0",
        "lambda x",
        "lambda",
        "1 + 1",
    ],
)
def test_outside_the_grammar(text):
    with pytest.raises(ParamError) as info:
        parse(text, "atv_weight")
    assert info.value.problems[0].key == "atv_weight"


@pytest.mark.parametrize(
    "text",
    [
        "lambda x: x**9**9",
        "lambda x: round(x, -10**9)",
        "lambda x: ((x**1000)**1000)**1000",
        "lambda x: 1 / (x - 3)",
        "lambda x: math.log(x - 3)",
        "lambda x: np.log(x - 4)",
        "lambda x: np.inf - np.inf",
        "lambda x: (x - 4) ** 0.5",
        "lambda x: min(x)",
        "lambda x: round(x, 0.5)",
    ],
)
def test_failures_name_key_and_epoch(text):
    began = time.perf_counter()
    with pytest.raises(ParamError, match=r"wedge_mu: expected a value at epoch 3"):
        value_at(parse(text), 3, "wedge_mu")
    assert time.perf_counter() - began < 0.5


def test_value_at_of_constants_and_callables():
    assert value_at(0.25, 7, "k") == 0.25
    assert value_at(lambda e: e + 1, 7, "k") == 8
    with pytest.raises(ParamError, match="epoch 7") as info:
        value_at({}.__getitem__, 7, "k")
    assert isinstance(info.value.__cause__, KeyError)
    with pytest.raises(ParamError, match="nan"):
        value_at(lambda e: float("nan"), 7, "k")
    with pytest.raises(ParamError):
        value_at(lambda e: np.array([1, np.nan]), 7, "k")


@pytest.mark.parametrize("value", ["lambda_data.npy", "a lambda x: 1", "", 3, None, "lambdas: 1"])
def test_not_a_schedule(value):
    assert not is_schedule_text(value)


def test_schedules_are_plain_values():
    schedule = parse("lambda x: 2 * x")
    assert schedule == Schedule("lambda x: 2 * x")
    assert hash(schedule) == hash(Schedule("lambda x: 2 * x"))
    assert schedule != parse("lambda x: x * 2")
    assert pickle.loads(pickle.dumps(schedule))(4) == 8


FACTOR = 3
SHORT = (lambda x: max(x, 1), lambda x: [1, 2, 3][x], lambda x: FACTOR * x)
LONG = {
    "other": 1, "a": lambda epoch: (
        np.exp(-epoch)
        if epoch > 2  # a comment, with commas, and ]
        else 1
    ), "b": lambda x: x,
}  # fmt: skip


def test_source_of_callables():
    assert describe_callable(SHORT[0]) == "lambda x: max(x, 1)"
    assert describe_callable(LONG["b"]) == "lambda x: x"
    text = describe_callable(LONG["a"])
    assert [parse(text)(e) for e in range(5)] == [LONG["a"](e) for e in range(5)]


def test_no_source_where_it_would_mean_something_else():
    local = 4
    assert describe_callable(SHORT[1]) is None
    assert describe_callable(SHORT[2]) is None
    assert describe_callable(lambda x: x * local) is None
    assert describe_callable(math.sqrt) is None
    assert describe_callable(test_source_of_callables) is None
    made_without_file = eval("lambda x: x + 1")
    assert describe_callable(made_without_file) is None


def test_freeze_keeps_the_meaning():
    assert freeze(SHORT[0], 5) == Schedule("lambda x: max(x, 1)")
    assert freeze(SHORT[2], 4) == Table((0, 3, 6, 9))
    max = lambda a, b: a * b  # noqa: E731
    assert freeze(lambda x: max(x, 2), 4) == Table((0, 2, 4, 6))
    given_schedule = parse("lambda x: 1 / x")
    assert freeze(given_schedule, 5) is given_schedule


def test_freeze_compares_values(monkeypatch):
    # A text that lies, for example after an edit of the file, is found out.
    monkeypatch.setattr("pyptyx.params.schedule.describe_callable", lambda f: "lambda x: 1 / x")
    assert freeze(lambda x: x, 3) == Table((0, 1, 2))


def test_table_ends():
    table = tabulate(lambda e: e * 2, 3)
    assert [table(e) for e in range(3)] == [0, 2, 4]
    with pytest.raises(ParamError, match="epochs 0 to 2"):
        value_at(table, 3, "k")
