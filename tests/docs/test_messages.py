"""The messages on the page about errors are those that the package can say."""

import ast
import re

import pytest

from tests.docs.scenes import ROOT

PAGE = ROOT / "docs/howto/troubleshooting.md"
ANY = "…"


def texts(tree):
    """Strings of a module, with `ANY` for what is filled in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(v.value if isinstance(v, ast.Constant) else ANY for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%[.\d]*[sgdf]", ANY, node.value)


@pytest.fixture(scope="module")
def said():
    """Everything in the source that may be part of a message."""
    modules = sorted((ROOT / "pyptyx").rglob("*.py"))
    return {t for path in modules for t in texts(ast.parse(path.read_text(encoding="utf-8")))}


def messages():
    """First cells of the tables whose heading says `message`."""
    listed = None
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cell = line.split(" | ")[0].removeprefix("| ")
        if not line.startswith("|"):
            listed = None
        elif listed is None:
            listed = cell == "message"
        elif listed and cell.startswith("`"):
            yield cell.strip("`")


def parts(message):
    """A problem is said in pieces: key, what is expected, what came."""
    key, expected, rest = message.partition(": expected ")
    if not expected:
        return [message]
    wanted, _, got = rest.partition(", got ")
    return [part for part in (key, wanted, got) if part.strip(ANY)]


def pattern(part):
    """A part of a message, any text in place of `ANY`."""
    return re.compile(".*".join(map(re.escape, part.split(ANY))))


def test_every_message_is_in_the_source(said):
    found = list(messages())
    assert len(found) > 30
    strange = [
        (message, part)
        for message in found
        for part in parts(message)
        if not any(pattern(part).search(text) for text in said)
    ]
    assert strange == []


def test_a_message_that_nobody_says_is_noticed(said):
    part = parts("scan_size: expected Ny x Nx = …, the number of cats")[1]
    assert not any(pattern(part).search(text) for text in said)
    assert any(pattern("Ny x Nx = …, the number of patterns").search(text) for text in said)


def test_errors_of_the_page_exist():
    from pyptyx import errors

    names = re.findall(r"^\| `(\w+Error)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) == 7
    assert all(issubclass(getattr(errors, name), errors.PyptyxError) for name in names)
