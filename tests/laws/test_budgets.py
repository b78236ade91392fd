"""Sizes that keep the code readable, and a docstring on everything public."""

import ast
from functools import cache

import pytest
from source_files import L5_MODULES, MODULES, component, label, tree, where

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_ARGUMENTS = 8
EXEMPTION = "noqa: PLR0913"
# Functions with PyPty's signature that are more than a face and therefore live below the faces.
PYPTY_SIGNATURES = {("pyptyx/data/convert.py", "create_pypty_data")}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(module):
    return [node for node in ast.walk(module) if isinstance(node, Function)]


def length(function):
    """Lines from ``def`` to the end without the docstring, so that explaining costs nothing."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        text = function.body[0]
        lines -= text.end_lineno - text.lineno + 1
    return lines


def arguments(function):
    """Named arguments without ``self`` and ``cls``."""
    named = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [a.arg for a in named if a.arg not in {"self", "cls"}]


def exempt(path, function):
    """A function that keeps PyPty's signature says so on its ``def``."""
    header = path.read_text(encoding="utf-8").splitlines()[
        function.lineno - 1 : function.body[0].lineno
    ]
    keeps = component(path) in L5_MODULES or (label(path), function.name) in PYPTY_SIGNATURES
    return keeps and any(EXEMPTION in line for line in header)


def classes_by_name(modules):
    return {c.name: c for m in modules for c in ast.walk(m) if isinstance(c, ast.ClassDef)}


@cache
def all_classes():
    return classes_by_name(tree(path) for path in MODULES)


def documented_methods(classes, cls):
    """Names of the documented methods that `cls` inherits from other classes of the package."""
    names = set()
    for base in cls.bases:
        parent = classes.get(ast.unparse(base).split(".")[-1])
        if parent is not None and parent is not cls:
            names |= documented_methods(classes, parent)
            names |= {f.name for f in parent.body if isinstance(f, Function) and has_text(f)}
    return names


def has_text(node):
    return ast.get_docstring(node) is not None


def explained_elsewhere(function):
    """Variants of one function: overloads and the setter of a property."""
    marks = [ast.unparse(d) for d in function.decorator_list]
    return any(m.split(".")[-1] in {"overload", "setter"} for m in marks)


def undocumented(node, classes, prefix="", inherited=frozenset()):
    """Public classes and functions without a docstring; overrides inherit the one they override."""
    for child in node.body:
        if not isinstance(child, Function | ast.ClassDef) or child.name.startswith("_"):
            continue
        if not has_text(child) and child.name not in inherited and not explained_elsewhere(child):
            yield child, prefix + child.name
        if isinstance(child, ast.ClassDef):
            from_bases = documented_methods(classes, child)
            yield from undocumented(child, classes, f"{child.name}.", from_bases)


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_modules_are_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_MODULE_LINES, f"{label(path)} has {lines} lines"


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_functions_are_short(path):
    long = [
        f"{where(path, f)}: {f.name} has {length(f)} lines"
        for f in functions(tree(path))
        if length(f) > MAX_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_functions_take_few_arguments(path):
    many = [
        f"{where(path, f)}: {f.name} takes {len(arguments(f))} arguments"
        for f in functions(tree(path))
        if len(arguments(f)) > MAX_ARGUMENTS and not exempt(path, f)
    ]
    assert not many, "\n".join(many)


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_everything_public_is_documented(path):
    module = tree(path)
    bare = [f"{where(path, node)}: {name}" for node, name in undocumented(module, all_classes())]
    if ast.get_docstring(module) is None:
        bare.insert(0, f"{label(path)}: the module itself")
    assert not bare, "\n".join(bare)


def test_the_law_sees_what_it_should():
    """The measures above, on sources whose answer is plain."""
    module = ast.parse(
        "def f(self, a, /, b, *rest, c, **more):\n    '''Say.\n\n    More.\n    '''\n    return a\n"
        "class C:\n    '''Doc.'''\n    def g(self):\n        def inner(): ...\n"
        "    def _h(self): ...\n    def k(self):\n        '''Doc.'''\n"
        "class D(C):\n    '''Doc.'''\n    def k(self): ...\n    def m(self): ...\n"
    )
    f, g = functions(module)[0], functions(module)[1]
    assert arguments(f) == ["a", "b", "c"]
    assert length(f) == 2
    assert length(g) == 2
    bare = undocumented(module, classes_by_name([module]))
    assert [name for _, name in bare] == ["C.g", "D.m"]
