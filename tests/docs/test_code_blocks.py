"""Every block of code in the documentation runs, page by page and from top to bottom.

Tutorials run as they are written.  Elsewhere a page shows how something is called, so runs are cut
to a few measurements and epochs.
"""

import tomllib

import numpy as np
import pytest

from docs.generate import blocks
from pyptyx.engine import run as engine
from tests.docs import scenes

DOCS = scenes.ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)): path for path in sorted(DOCS.rglob("*.md"))}
PAGES["README.md"] = scenes.ROOT / "README.md"
TUTORIALS = sorted(name for name in PAGES if name.startswith("tutorials/"))

EPOCHS, MEASUREMENTS = 3, 40
MOST_NOT_RUN = 8
SHELL, SHOWN = {"", "console", "bash"}, {"text", "toml"}


def runs(page):
    """Whether a page has anything to run."""
    found = blocks.blocks(page)
    return any(not b.not_run and (b.language == "python" or [*b.commands()]) for b in found)


@pytest.fixture
def short_runs(monkeypatch):
    """Reconstructions of few epochs; many measurements are thinned out."""
    complete = engine._run

    def short(given, callbacks, processes):
        given = {**given, "epoch_max": min(EPOCHS, given.get("epoch_max", EPOCHS))}
        given["warm_start_epochs"] = 0
        number = len(np.atleast_1d(given.get("positions", [0])))
        if number > 1000 and given.get("sequence") is None:
            given["sequence"] = np.arange(0, number, number // MEASUREMENTS)
        return complete(given, callbacks, processes)

    monkeypatch.setattr(engine, "_run", short)


@pytest.mark.parametrize("name", [n for n in PAGES if n not in TUTORIALS and runs(PAGES[n])])
def test_page(name, tmp_path, short_runs):
    blocks.run(PAGES[name], tmp_path, scenes.prepare(name, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorial(name, tmp_path):
    blocks.run(PAGES[name], tmp_path)
    for picture in blocks.pictures(PAGES[name]):
        assert (tmp_path / picture.name).is_file(), "a picture that the code does not make"
        assert picture.is_file(), "not in the documentation: python -m docs.generate"


def test_every_block_is_run_or_has_a_language_that_cannot_be():
    for page in PAGES.values():
        for block in blocks.blocks(page):
            assert block.language in {"python", *SHELL, *SHOWN}, f"{page}:{block.line}"
            if block.language == "toml":
                tomllib.loads(block.code)


def test_few_blocks_are_left_out():
    left_out = [block for page in PAGES.values() for block in blocks.blocks(page) if block.not_run]
    assert len(left_out) <= MOST_NOT_RUN


def test_scenes_belong_to_pages():
    assert scenes.SCENES.keys() <= PAGES.keys()


# ---- the runner itself ---------------------------------------------------------------------------

PAGE = """\
Text with `code`.

```python
a = 1
print("sum", a + 1)
```

```text
sum 2
...
```

<!-- not run: fails, as it should -->
```python
raise ValueError
```

```toml title="made.toml"
key = 3
```

1. A list

    ```python
    with open("made.toml") as file:
        b = file.read()
    ```

```console
$ pyptyx keys epoch_max
epoch_max  [preset]
...
```
"""


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.md"

    def write(text=PAGE):
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_blocks_share_names_and_folder(page, tmp_path):
    names = blocks.run(page(), tmp_path)
    assert names["a"] == 1
    assert names["b"] == "key = 3\n"


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("sum 2", "product 2", "product"),
        ("epoch_max  [preset]\n...", "epoch_max  [experiment]", "experiment"),
        ("keys epoch_max", "keys no_such_word", "exit code 1"),
    ],
)
def test_output_that_differs_is_noticed(page, tmp_path, right, wrong, complaint):
    with pytest.raises(AssertionError, match=complaint):
        blocks.run(page(PAGE.replace(right, wrong)), tmp_path)


def test_a_failing_block_fails_at_its_line(page, tmp_path):
    path = page(PAGE.replace("a = 1", "a = undefined"))
    with pytest.raises(NameError) as caught:
        blocks.run(path, tmp_path)
    line = caught.traceback[-1].lineno + 1
    assert "undefined" in path.read_text().splitlines()[line - 1]


def test_every_fence_is_seen():
    for path in PAGES.values():
        lines = path.read_text(encoding="utf-8").splitlines()
        fences = sum(line.lstrip().startswith("```") for line in lines)
        assert fences == 2 * len(blocks.blocks(path))
