"""The names of the package: those that stay, those of PyPty, and when they are loaded."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pyptyx

PACKAGE = Path(pyptyx.__file__).parent
STABILITY = PACKAGE.parent / "docs" / "reference" / "stability.md"


def typed_names():
    """Names that a type checker sees: those imported below ``if TYPE_CHECKING``."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {alias.name: node.module for node in block.body for alias in node.names}


def test_type_checkers_and_python_see_the_same_names():
    assert typed_names() == pyptyx._WHERE
    assert set(pyptyx.__all__) == pyptyx._WHERE.keys()
    assert set(pyptyx.__all__) <= set(dir(pyptyx))
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("name", pyptyx.__all__)
def test_every_public_name_is_there_and_explained(name):
    assert getattr(pyptyx, name).__doc__
    assert f"`{name}`" in STABILITY.read_text(encoding="utf-8")


def test_everything_can_be_imported_at_once():
    names = {}
    source = "from pyptyx import *"
    exec(source, names)
    assert set(pyptyx.__all__) <= names.keys()


def test_names_of_pypty_are_reachable_and_others_are_not():
    assert pyptyx.get_ctf is pyptyx.utils.get_ctf
    assert pyptyx.fit_vector_field is pyptyx.se.fit_vector_field
    assert pyptyx.iterative.run is pyptyx.run
    with pytest.raises(AttributeError, match="no attribute 'get_moon'"):
        _ = pyptyx.get_moon


def test_the_import_alone_loads_nothing():
    code = "import sys, pyptyx; print(*(m for m in sys.modules if m.split('.')[0] == 'pyptyx'), "
    code += "'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["pyptyx", "False"]
