"""Imports point down, packages of one row do not know each other, and cupy has one door."""

import ast

import pytest
from source_files import L5_MODULES, MODULES, PACKAGE, component, dotted, label, tree, where

LAYERS = {
    1: {
        "backend",
        "device_group",
        "compiled",
        "lowering",
        "machine",
        "uploads",
        "trees",
        "constants",
        "errors",
        "files",
        "shipped",
        "vector_fft",
    },
    2: {"params", "data", "physics", "optim"},
    3: {"terms", "methods", "executors", "output"},
    4: {"engine"},
    5: L5_MODULES,
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}
# The rows of single modules may use each other; the rows of packages may not.
ROWS_OF_MODULES = {1, 5}


def imported_names(path):
    """Pairs of a node and an absolute dotted name it imports."""
    package = ["pyptyx", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and dotted(node.func).endswith("import_module"):
            argument = node.args[0] if node.args else None
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield node, argument.value


def target_component(name):
    """The part of ``pyptyx`` that a dotted name belongs to, or None for other packages."""
    parts = name.split(".")
    # The version is a plain text that every layer may stamp on what it writes.
    if parts[0] != "pyptyx" or name == "pyptyx.__version__":
        return None
    known = len(parts) > 1 and parts[1] in LAYER_OF
    exists = len(parts) > 1 and (
        (PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").is_file()
    )
    return parts[1] if known or exists else "__init__"


def complaint(source, target):
    """Why `source` must not import `target`, or None."""
    if source == target:
        return None
    here, there = LAYER_OF[source], LAYER_OF[target]
    if there > here:
        return f"{source} (layer {here}) imports {target} (layer {there}), which lies above"
    if there == here and here not in ROWS_OF_MODULES:
        return f"{source} and {target} stand in one row and must not know each other"
    return None


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_every_module_has_a_layer(path):
    assert component(path) in LAYER_OF, f"{label(path)}: add it to the table of layers"


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_imports_point_down(path):
    complaints = [
        f"{where(path, node)}: {text}"
        for node, name in imported_names(path)
        if (target := target_component(name)) and (text := complaint(component(path), target))
    ]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_only_the_backend_imports_cupy(path):
    doors = [
        where(path, node)
        for node, name in imported_names(path)
        if name.split(".")[0] in {"cupy", "cupyx", "cupy_backends"}
    ]
    assert component(path) == "backend" or not doors, "\n".join(doors)


def test_the_law_sees_what_it_should(tmp_path, monkeypatch):
    """The checks above are themselves checked on a module that breaks each of them."""
    monkeypatch.setattr("test_layers.PACKAGE", tmp_path)
    path = tmp_path / "physics" / "bad.py"
    path.parent.mkdir()
    path.write_text(
        "import cupy.cuda\nfrom ..engine import loop\nfrom .. import params\nfrom . import grid\n"
        "import importlib\nimportlib.import_module('pyptyx.terms')\n"
    )
    names = [name for _, name in imported_names(path)]
    assert names == [
        "cupy.cuda", "pyptyx.engine.loop", "pyptyx.params", "pyptyx.physics.grid",
        "importlib", "pyptyx.terms",
    ]  # fmt: skip
    targets = [target_component(name) for name in names]
    assert targets == [None, "engine", "params", "physics", None, "terms"]
    assert complaint("physics", "engine")
    assert complaint("physics", "params")
    assert complaint("physics", "physics") is None
    assert complaint("physics", "errors") is None
    assert complaint("cli", "demo") is None
    assert target_component("pyptyx.__version__") is None
    assert target_component("pyptyx.run") == "__init__"
