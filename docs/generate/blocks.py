"""Code on the pages: where it is and how it is run.

A page's blocks are run from top to bottom, in one namespace and one folder:

=======================================  ========================================================
```` ```python ````                      executed
```` ```toml title="scan.toml" ````      written to the file that the title names
```` ```console ```` or no language      lines that start with ``pyptyx`` or ``$ pyptyx`` are run
```` ```text ````                        what the Python block before it prints
=======================================  ========================================================

Of the output that is shown, below a command in a console or as text, every line has to come, but
for its numbers.  A line ``...`` stands for any others.

A comment ``<!-- not run: REASON -->`` on the line before a fence leaves its block out.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>.*)$")
_NOT_RUN = re.compile(r"<!-- not run: (?P<reason>\S.*) -->")
_TITLE = re.compile(r'title="(?P<title>[^"]+)"')
_COMMAND = re.compile(r"^(?:\$ )?(?P<command>pyptyx(?: .*)?)$")
_PICTURE = re.compile(r"!\[[^\]]*\]\((?P<path>[^)]+\.png)\)")
_NUMBER = re.compile(r"[-+]?\d[\d.]*(?:e[-+]?\d+)?")

ANYTHING = "..."
"""Line that stands for any others."""


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes
    ----------
    page : Path
        Where it stands.
    line : int
        Number of its first line of code.
    info : str
        What follows the opening fence.
    code : str
        The text inside.
    not_run : str
        Why it is left out; empty if it is run.
    """

    page: Path
    line: int
    info: str
    code: str
    not_run: str = ""

    @property
    def language(self) -> str:
        """First word behind the fence."""
        return self.info.split(maxsplit=1)[0] if self.info else ""

    @property
    def title(self) -> str:
        """Name of the file that the block shows, if any."""
        match = _TITLE.search(self.info)
        return match["title"] if match else ""

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Commands of the program in the block, each with the lines of output shown below it."""
        if self.language not in ("", "console", "bash"):
            return
        current: tuple[str, list[str]] | None = None
        for line in self.code.splitlines():
            match = _COMMAND.match(line)
            if match:
                if current:
                    yield current
                current = match["command"], []
            elif current and self.language == "console":
                current[1].append(line)
        if current:
            yield current


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    found = []
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        if not opening:
            number += 1
            continue
        indent = opening["indent"]
        start = number + 1
        number = start
        while lines[number].rstrip() != f"{indent}```":
            number += 1
        code = "\n".join(line.removeprefix(indent) for line in lines[start:number])
        reason = _NOT_RUN.search(lines[start - 2]) if start > 1 else None
        info = opening["info"].strip()
        found.append(Block(page, start + 1, info, code, reason["reason"] if reason else ""))
        number += 1
    return found


def pictures(page: Path) -> list[Path]:
    """Pictures of the page, in order."""
    text = page.read_text(encoding="utf-8")
    return [page.parent / match["path"] for match in _PICTURE.finditer(text)]


def run(page: Path, folder: Path, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run the blocks of a page.

    Parameters
    ----------
    page : Path
    folder : Path
        Working directory meanwhile.
    names : dict, optional
        What the page takes for granted.

    Returns
    -------
    dict
        The names that there are at the end.

    Raises
    ------
    Exception
        What a block raises, with the page and line in its traceback.
    AssertionError
        If a command fails, or does not print what the page shows.
    """
    names = {"__name__": "__main__", **(names or {})}
    with contextlib.chdir(folder):
        printed = ""
        for block in blocks(page):
            if not block.not_run:
                printed = _run(block, names, printed)
    return names


def _run(block: Block, names: dict[str, Any], printed: str) -> str:
    """Run a block and return what it prints; `printed` is what the one before has printed."""
    where = f"{block.page}:{block.line}"
    if block.language == "text":
        _check_output(where, block.code.splitlines(), printed)
    elif block.title:
        Path(block.title).write_text(block.code + "\n", encoding="utf-8")
    for command, shown in block.commands():
        _check_output(f"{where}: {command}", shown, _output(command))
    if block.language != "python":
        return ""
    # Empty lines in front give a traceback the line numbers of the page.
    code = compile("\n" * (block.line - 1) + block.code, str(block.page), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        exec(code, names)
    return stream.getvalue()


def _output(command: str) -> str:
    """Standard output of a command of the program."""
    from pyptyx.cli import main

    with contextlib.redirect_stdout(io.StringIO()) as stream:
        code = main(shlex.split(command, comments=True)[1:])
    if code:
        raise AssertionError(f"{command}: exit code {code} in {os.getcwd()}")
    return stream.getvalue()


def _check_output(where: str, shown: list[str], output: str) -> None:
    """Every line that is shown was printed, but for numbers."""
    came = {_without_numbers(line) for line in output.splitlines()}
    for line in shown:
        if line.strip() != ANYTHING and _without_numbers(line) not in came:
            raise AssertionError(f"{where}: expected the line {line!r} in\n{output}")


def _without_numbers(line: str) -> str:
    return " ".join(_NUMBER.sub("#", line).split())
