"""The table of PyPty's defects is complete, and every test it names exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "explanation" / "defects.md"

NUMBERS = {
    "BUG-": range(1, 34),
    "SEC-": range(1, 5),
    "PIT-": range(1, 25),
    "S": range(1, 4),
    "F": [n for n in range(1, 25) if n != 19],  # there is no F19
    "G": range(1, 9),
    "O": range(1, 12),
    "I": range(1, 9),
    "A": range(1, 12),
}
IDS = [f"{letters}{n}" for letters, numbers in NUMBERS.items() for n in numbers]

ROW = re.compile(r"\| ([A-Z]+-?\d+) \| ([^|]+) \| ([^|]+) \|")
TEST = re.compile(r"`([\w/]+\.py)::((?:Test\w+::)?test_\w+)`")


def rows():
    return [m.groups() for m in map(ROW.fullmatch, PAGE.read_text("utf-8").splitlines()) if m]


@cache
def names_in(path):
    """Names of the tests in a file; those of a class as ``Class::test``."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    names = {f.name for f in body if isinstance(f, ast.FunctionDef)}
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    return names | {f"{c.name}::{f.name}" for c in classes for f in c.body if hasattr(f, "name")}


def test_every_defect_has_one_row():
    assert [name for name, _, _ in rows()] == IDS


@pytest.mark.parametrize(("name", "what", "held"), rows(), ids=[row[0] for row in rows()])
def test_the_tests_exist(name, what, held):
    assert len(what.split()) <= 8
    named = TEST.findall(held)
    assert named or held.startswith("cannot occur: ")
    missing = [f"{file}::{test}" for file, test in named if test not in names_in(TESTS / file)]
    assert not missing


def test_no_reference_escapes_the_pattern():
    """What looks like a reference is one; a slip of the pen would otherwise go unnoticed."""
    for name, _, held in rows():
        assert held.count(".py") == len(TEST.findall(held)), name
