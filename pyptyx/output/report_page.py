"""The report as a page: HTML that needs no other file, no network and no script.

What a page consists of is given as data; every text is escaped here.  Colours follow the theme of
the reader, columns the width of the screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from typing import Protocol

from pyptyx import __version__


class Block(Protocol):
    """A part of a section."""

    def html(self) -> str:
        """The block as HTML."""
        ...


@dataclass(frozen=True)
class Text(Block):
    """A paragraph; words between backquotes are shown as code."""

    text: str

    def html(self) -> str:
        return f"<p>{_marked(self.text)}</p>"


@dataclass(frozen=True)
class Picture(Block):
    """A drawing.

    Attributes
    ----------
    svg : str
        From `pyptyx.output.report_figures.inline_svg`.
    caption : str
    """

    svg: str
    caption: str

    def html(self) -> str:
        return f"<figure>{self.svg}<figcaption>{_marked(self.caption)}</figcaption></figure>"


@dataclass(frozen=True)
class Grid(Block):
    """Blocks beside each other where there is room."""

    blocks: Sequence[Block]

    def html(self) -> str:
        return f'<div class="grid">{"".join(b.html() for b in self.blocks)}</div>'


@dataclass(frozen=True)
class Tile(Block):
    """A small image.

    Attributes
    ----------
    uri, caption, alt : str
    aspect : float
        Width over height as it is to be shown.
    """

    uri: str
    caption: str
    alt: str
    aspect: float

    def html(self) -> str:
        style = f"aspect-ratio:{self.aspect:.4f}"
        image = f'<img src="{self.uri}" alt="{escape(self.alt)}" style="{style}">'
        return f"<figure>{image}<figcaption>{_marked(self.caption)}</figcaption></figure>"


@dataclass(frozen=True)
class Tiles(Block):
    """Small images in as many columns as fit, with a heading."""

    title: str
    tiles: Sequence[Tile]
    pixels: bool = False

    def html(self) -> str:
        kind = "tiles small" if self.pixels else "tiles"
        body = "".join(tile.html() for tile in self.tiles)
        return f'<div><h3>{escape(self.title)}</h3><div class="{kind}">{body}</div></div>'


@dataclass(frozen=True)
class Table(Block):
    """Rows of texts; behind a summary if there is one."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    summary: str = ""

    def html(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in self.head)
        rows = "".join(
            f"<tr>{''.join(f'<td>{_marked(cell)}</td>' for cell in row)}</tr>" for row in self.rows
        )
        table = f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'
        if not self.summary:
            return table
        return f"<details><summary>{escape(self.summary)}</summary>{table}</details>"


@dataclass(frozen=True)
class Warned(Block):
    """What is suspicious: title, observation, remedy."""

    title: str
    observation: str
    remedy: str

    def html(self) -> str:
        return (
            f"<li><p><strong>{escape(self.title)}.</strong> {_marked(self.observation)}</p>"
            f"<p>{_marked(self.remedy)}</p></li>"
        )


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes
    ----------
    title, status : str
        Heading and the line below it.
    cards : sequence of (str, str)
        The most important numbers with their names.
    warnings : sequence of Warned
    checked : int
        Number of rules that were looked at.
    sections : sequence of Section
    footer : str
    refresh_s : float or None
        The browser loads the page again after so many seconds.
    """

    title: str
    status: str
    cards: Sequence[tuple[str, str]]
    warnings: Sequence[Warned]
    checked: int
    sections: Sequence[Section] = field(default=())
    footer: str = ""
    refresh_s: float | None = None

    def html(self) -> str:
        """The whole document."""
        style = files("pyptyx.output").joinpath("report.css").read_text(encoding="utf-8")
        refresh = ""
        if self.refresh_s is not None:
            refresh = f'<meta http-equiv="refresh" content="{max(1, round(self.refresh_s))}">'
        sections = "".join(
            f"<section><h2>{escape(s.title)}</h2>{''.join(b.html() for b in s.blocks)}</section>"
            for s in self.sections
        )
        return (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">{refresh}'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f'<meta name="generator" content="pyptyx {escape(__version__)}">'
            f"<title>{escape(self.title)} - pyptyx report</title>"
            f"<style>{style}</style></head><body><main>"
            f"<header><h1>{escape(self.title)}</h1>"
            f'<p class="status">{_marked(self.status)}</p></header>'
            f"{self._cards()}{self._warnings()}{sections}"
            f"<footer><p>{_marked(self.footer)}</p></footer></main></body></html>\n"
        )

    def fragment(self) -> str:
        """Numbers, warnings and sections for a page of somebody else, such as a notebook.

        It has no colours of its own, so that it suits any theme.
        """
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th>"
            f"<td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in self.cards
        )
        warned = "".join(w.html() for w in self.warnings)
        blocks = "".join(b.html() for s in self.sections for b in s.blocks)
        return (
            f"<div><strong>{escape(self.title)}</strong><br>{_marked(self.status)}"
            f"<table>{rows}</table>{f'<ul>{warned}</ul>' if warned else ''}"
            f"<div style='display:flex;flex-wrap:wrap;gap:1em'>{blocks}</div></div>"
        )

    def _cards(self) -> str:
        body = "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
            for name, value in self.cards
        )
        return f'<dl class="cards">{body}</dl>'

    def _warnings(self) -> str:
        if not self.warnings:
            text = f"Nothing suspicious; {self.checked} rules were checked."
            return f'<section><h2>Warnings</h2><p class="good">{text}</p></section>'
        items = "".join(w.html() for w in self.warnings)
        count = f"{len(self.warnings)} of {self.checked} rules have something to say."
        return (
            f'<section><h2>Warnings</h2><p class="status">{count}</p>'
            f'<ul class="findings">{items}</ul></section>'
        )


def _marked(text: str) -> str:
    """Escaped text with ``code`` where there are backquotes."""
    parts = escape(text).split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))
