"""Every script in ``examples`` runs from an empty folder; simulated specimens are found again."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("[0-9]*.py"))
NEEDS_A_FILE = {"15_petra_near_field.py"}
"""Examples on data that do not come with the package."""

MAX_LINES = 60
MIN_CORRELATION = 0.95

pytestmark = pytest.mark.slow


def run(script, folder):
    """Run a script in `folder`, without a display and on one core."""
    environment = os.environ | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, script], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


def test_there_are_examples():
    assert {path.name for path in SCRIPTS} >= NEEDS_A_FILE
    numbers = [path.name[:2] for path in SCRIPTS]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_length(script):
    assert len(script.read_text(encoding="utf-8").splitlines()) < MAX_LINES


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_example(script, tmp_path):
    done = run(script, tmp_path)
    if script.name in NEEDS_A_FILE:
        assert done.returncode == 1
        assert script.name in done.stderr  # how to call it
        assert not list(tmp_path.iterdir())
        return
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()
    correlations = re.findall(r"correlation of .*: (\d\.\d+)", done.stdout)
    assert all(float(value) >= MIN_CORRELATION for value in correlations), done.stdout
    if script.name.startswith("1"):
        assert correlations
        assert list(tmp_path.glob("results_*/phase.png"))
