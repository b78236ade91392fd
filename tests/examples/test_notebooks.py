"""The cells of every notebook run one after the other, in an empty folder, as a plain script.

That needs no kernel; what a notebook adds is only how the last value of a cell is shown.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples" / "notebooks").glob("*.ipynb"))

RESULTS = {
    "first_reconstruction": ["results_notebook/co.npy"],
    "own_data": ["results_own_data/co.npy", "results_own_data/direct/fit.json", "own_data.nxs"],
}


def content(path):
    return json.loads(path.read_text(encoding="utf-8"))


def script(path):
    """The code cells of a notebook."""
    cells = [cell for cell in content(path)["cells"] if cell["cell_type"] == "code"]
    return "\n".join("".join(cell["source"]) for cell in cells)


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == RESULTS.keys()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_clean(path):
    """Nothing that was printed, and no name of a machine, is stored with the code."""
    notebook = content(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_run(path, tmp_path):
    environment = os.environ | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script(path)], cwd=tmp_path, env=environment, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "overlap ratio" in done.stdout
    for name in RESULTS[path.stem]:
        assert (tmp_path / name).stat().st_size > 0
    if path.stem == "own_data":
        for words in ("scan_stp_A", "23 x 21 = 483", "got '30 mrad'", "C10"):
            assert words in done.stdout
