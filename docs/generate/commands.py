"""The reference page of the command line, written from the parser of the program."""

from __future__ import annotations

import argparse

from pyptyx.cli.program import parser

_INTRODUCTION = """\
# Commands and options

This page is generated from the program. [Command line](cli.md) says how its parts work together."""

_HEADER = "| argument | meaning |\n|---|---|"


def markdown() -> str:
    """The page as Markdown: one section and one table for each command."""
    program = parser()
    parts = [_INTRODUCTION, "## Of every command", _table(program)]
    for action in program._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                parts += [f"## {name}", str(command.description), _code(_usage(command))]
                parts += [_table(command)] * bool(_rows(command))
    return "\n\n".join(parts) + "\n"


def _usage(command: argparse.ArgumentParser) -> str:
    """How the command is called; `argparse` writes this differently from version to version."""
    words = [command.prog]
    for action in command._actions:
        if not action.option_strings:
            words.append(f"[{action.metavar} ...]" if action.nargs == "*" else f"{action.metavar}")
    return " ".join(words + ["[options]"] * bool(_rows(command)))


def _code(text: str) -> str:
    return f"```text\n{text.strip()}\n```"


def _table(command: argparse.ArgumentParser) -> str:
    return "\n".join([_HEADER, *_rows(command)])


def _rows(command: argparse.ArgumentParser) -> list[str]:
    """Rows of the table; ``--help`` and ``--verbose`` are those of every command."""
    common = {"help", "verbose", "version"} if command.prog != "pyptyx" else set()
    return [
        f"| {_name(action)} | {_meaning(action)} |"
        for action in command._actions
        if action.dest not in common and not isinstance(action, argparse._SubParsersAction)
    ]


def _name(action: argparse.Action) -> str:
    value = action.metavar if isinstance(action.metavar, str) else ""
    if not action.option_strings:
        return f"`{value or action.dest}`"
    takes = f" {value or action.dest.upper()}" if action.nargs != 0 else ""
    if action.choices and not value:
        takes = " " + "\\|".join(map(str, action.choices))
    return ", ".join(f"`{option}{takes}`" for option in action.option_strings)


def _meaning(action: argparse.Action) -> str:
    # `%(default)s` and `%%` are those of argparse.
    return ((action.help or "") % {"default": action.default}).replace("|", "\\|")
