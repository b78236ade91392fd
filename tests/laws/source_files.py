"""The package's sources as syntax trees, for the laws."""

import ast
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "pyptyx"
MODULES = sorted(PACKAGE.rglob("*.py"))

L5_MODULES = frozenset(
    "initialize iterative direct dpc tcbf utils se vaa fft".split()
    + "cli doctor demo __init__ __main__".split()
)
"""The faces: thin modules with PyPty's names, which keep PyPty's signatures."""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def label(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def component(path: Path) -> str:
    """Package or module directly below ``pyptyx``."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def where(path: Path, node: ast.AST) -> str:
    return f"{label(path)}:{getattr(node, 'lineno', 1)}"


def dotted(node: ast.expr) -> str:
    """``a.b.c`` for a chain of names, otherwise an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (head := dotted(node.value)):
        return f"{head}.{node.attr}"
    return ""
