"""Write everything that is generated: ``python -m docs.generate [NAME ...]`` from the checkout.

Without names all is written; names are those of signs (``sign_defocus``), of tutorials and of the
pages ``commands`` and ``parameters``.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from docs.generate import blocks, commands, signs
from pyptyx.params import reference

DOCS = Path(__file__).parents[1]
PICTURES = DOCS / "pictures"

logger = logging.getLogger(__name__)


def _sign(name: str) -> None:
    figure, facts = signs.SIGNS[name]()
    text = json.dumps(facts, ensure_ascii=True)
    figure.savefig(PICTURES / f"sign_{name}.png", dpi=110, metadata={"Description": text})


def _page(name: str, text: Callable[[], str]) -> None:
    (DOCS / "reference" / f"{name}.md").write_text(text(), encoding="utf-8")


def _tutorial(page: Path) -> None:
    """Run the blocks of a tutorial and keep the pictures that it shows."""
    with tempfile.TemporaryDirectory() as folder:
        blocks.run(page, Path(folder))
        for picture in blocks.pictures(page):
            shutil.copy(Path(folder) / picture.name, picture)


WRITERS: dict[str, Callable[[], None]] = {
    **{f"sign_{name}": partial(_sign, name) for name in signs.SIGNS},
    "commands": partial(_page, "commands", commands.markdown),
    "parameters": partial(_page, "parameters", reference.markdown),
    **{page.stem: partial(_tutorial, page) for page in sorted((DOCS / "tutorials").glob("*.md"))},
}

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in sys.argv[1:] or WRITERS:
        WRITERS[name]()
        logger.info("wrote %s", name)
