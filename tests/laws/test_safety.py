"""No code from data, no swallowed errors, no prints, no paths of one machine."""

import ast
import re

import pytest
from source_files import MODULES, REPOSITORY, component, dotted, label, tree, where

FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__",
    "os.system", "os.popen", "os.execv", "os.spawnv",
    "pickle.load", "pickle.loads",
}  # fmt: skip
FORBIDDEN_MODULES = {"marshal", "shelve", "dill", "cloudpickle", "joblib", "code", "codeop"}
FORBIDDEN_KEYWORDS = {"shell", "allow_pickle"}
# A subclass of the unpickler with a closed list of globals reads pickles; writing is harmless.
PICKLE_NAMES_IN_PARAMS = {
    "Unpickler", "UnpicklingError", "PickleError", "PicklingError", "dump", "dumps",
    "HIGHEST_PROTOCOL", "DEFAULT_PROTOCOL",
}  # fmt: skip
MAY_PRINT = {"cli"}

# Spelt so that this file does not match itself.
MACHINE_PATH = re.compile(
    r"(?<![\w.~$}])/(?:home|root|Users|work|mnt|scratch|tmp)/\w|[A-Z]:\\\\?Users"
)
SKIPPED_FOLDERS = {".git", "site", "build", "dist", "node_modules", "demo_output"}
TEXT_SUFFIXES = {
    ".py", ".md", ".toml", ".yml", ".yaml", ".json", ".cfg", ".ini", ".txt", ".cu", ".csv", ".sh",
    "",
}  # fmt: skip


def calls(module):
    return [node for node in ast.walk(module) if isinstance(node, ast.Call)]


def unsafe_calls(module):
    """Nodes that would run text or bytes as code."""
    for call in calls(module):
        name = dotted(call.func)
        if name.removeprefix("builtins.") in FORBIDDEN_CALLS:
            yield call, name
        for keyword in call.keywords:
            literal = keyword.value
            off = isinstance(literal, ast.Constant) and literal.value is False
            if keyword.arg in FORBIDDEN_KEYWORDS and not off:
                yield call, f"{keyword.arg}={ast.unparse(literal)}"


def module_imports(module):
    """Nodes with the top-level module and, for ``from`` imports, the names they bring in."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name.split(".")[0], None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node, node.module.split(".")[0], alias.name) for alias in node.names)


def pickle_uses(module):
    """Names of the pickle modules that are used."""
    for node, name, member in module_imports(module):
        if name in {"pickle", "_pickle", "cPickle"} and member is not None:
            yield node, member
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and dotted(node.value) in {"pickle", "_pickle"}:
            yield node, node.attr


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_nothing_runs_text_as_code(path):
    found = [f"{where(path, node)}: {name}" for node, name in unsafe_calls(tree(path))]
    found += [
        f"{where(path, node)}: {name}"
        for node, name, _ in module_imports(tree(path))
        if name in FORBIDDEN_MODULES
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_pickles_are_read_only_through_the_restricted_unpickler(path):
    allowed = PICKLE_NAMES_IN_PARAMS if component(path) == "params" else set()
    found = [
        f"{where(path, node)}: pickle.{name}"
        for node, name in pickle_uses(tree(path))
        if name not in allowed
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_unpickler_is_subclassed_and_never_called(path):
    found = [
        where(path, c) for c in calls(tree(path)) if dotted(c.func).endswith("pickle.Unpickler")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_no_bare_except(path):
    found = [
        where(path, node)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_only_the_command_line_prints(path):
    found = [where(path, call) for call in calls(tree(path)) if dotted(call.func) == "print"]
    assert component(path) in MAY_PRINT or not found, "\n".join(found)


def text_files():
    for path in sorted(REPOSITORY.rglob("*")):
        parts = path.relative_to(REPOSITORY).parts
        hidden = any(p.startswith(".") and p != ".ci" for p in parts[:-1])
        skipped = hidden or SKIPPED_FOLDERS.intersection(parts) or "__pycache__" in parts
        if not skipped and path.suffix in TEXT_SUFFIXES and path.is_file():
            yield path


def test_no_file_names_a_path_of_one_machine():
    found = [
        f"{label(path)}:{number}: {line.strip()[:80]}"
        for path in text_files()
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    ["eval('1')", "builtins.exec(s)", "os.system('x')", "run(a, shell=True)",
     "np.load(p, allow_pickle=True)", "np.load(p, allow_pickle=flag)", "pickle.loads(b)"],
)  # fmt: skip
def test_the_law_sees_what_is_unsafe(source):
    assert list(unsafe_calls(ast.parse(source)))


@pytest.mark.parametrize(
    "source", ["re.compile('x')", "np.load(p, allow_pickle=False)", "self.exec(s)"]
)
def test_the_law_leaves_the_harmless_alone(source):
    assert not list(unsafe_calls(ast.parse(source)))


@pytest.mark.parametrize("source", ["import pickle\npickle.load(f)", "from pickle import loads"])
def test_the_law_sees_open_pickles(source):
    names = [name for _, name in pickle_uses(ast.parse(source))]
    assert names
    assert not PICKLE_NAMES_IN_PARAMS.intersection(names)


def test_the_law_sees_paths_of_one_machine():
    here = "/".join(["", "home", "someone", "data.h5"])
    assert MACHINE_PATH.search(f"open('{here}')")
    assert not MACHINE_PATH.search("https://example.org" + here)
    assert not MACHINE_PATH.search("results/run_1/co.npy")
