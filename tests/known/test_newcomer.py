"""The first hour with the program: a raw file, the commands as typed, and nothing else.

Every command is a process of its own, the installed console script where there is one.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest
from bright_scene import Scene, white_phase

pytestmark = pytest.mark.slow

SCENE = Scene(scan=(20, 23), aberrations=(150.0,))

INSTALLED = os.environ.get("PYPTYX_PROGRAM") or shutil.which(
    "pyptyx", path=str(Path(sys.executable).parent)
)
"""The console script; the variable names one that is installed elsewhere, such as from a wheel."""
PROGRAM = [INSTALLED] if INSTALLED else [sys.executable, "-m", "pyptyx"]

BLANKS = {
    "scan_size": "[20, 23]",
    "scan_step_A": str(SCENE.step),
    "conv_semiangle_mrad": str(1e3 * SCENE.semiangle),
}
MISTAKES = {"scan_size": "[23, 21]", "scan_step_A": "0.8", "conv_semiangle_mrad": "'30 mrad'"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with nothing but a raw file: patterns in a row, and the voltage as an attribute."""
    folder = tmp_path_factory.mktemp("newcomer")
    patterns = SCENE.patterns(white_phase((130, 141), SCENE.pixel, 0.55, 0.05), dose=4000)
    with h5py.File(folder / "raw.h5", "w") as file:
        file["data"] = patterns.reshape(-1, *SCENE.detector).astype(np.uint16)
        file.attrs["acc_voltage"] = SCENE.energy_kV
    return folder


def pyptyx(folder, *words, code=0):
    """A finished command: what it has printed, and its log."""
    done = subprocess.run(
        [*PROGRAM, *words], cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done


def fill_in(folder, values):
    """Complete the blanks of the file that ``init`` has written, as its comments say."""
    text = (folder / "raw.toml").read_text(encoding="utf-8")
    for key, value in values.items():
        blank = f"# {key} = ?"
        assert blank in text
        text = text.replace(blank, f"{key} = {value}", 1)
    return text


def test_the_first_hour(folder):
    file = folder / "raw.toml"
    assert "uint16" in pyptyx(folder, "inspect", "raw.h5").stdout
    said = pyptyx(folder, "init", "raw.h5").stdout
    assert "missing   scan_size, scan_step_A, rez_pixel_size_mrad" in said

    # Three mistakes: a key misspelt, a scan that does not fit, a unit written into a number.
    complete = fill_in(folder, BLANKS)
    wrong = fill_in(folder, MISTAKES).replace("\nscan_step_A =", "\nscan_stp_A =")
    file.write_text(wrong, encoding="utf-8")
    said = pyptyx(folder, "validate", "raw.toml", code=1).stderr
    assert said.count(": expected") == 3
    assert "scan_stp_A: expected a known key, got an unknown one" in said
    assert "Did you mean 'scan_step_A'?" in said
    assert "conv_semiangle_mrad: expected a number > 0, or None, got '30 mrad'" in said
    assert "scan_size: expected Ny x Nx = 460" in said
    assert "got 23 x 21 = 483" in said

    file.write_text(complete, encoding="utf-8")
    assert "overlap ratio" in pyptyx(folder, "validate", "raw.toml").stdout
    search = ("--aberrations", "3", "--largest-defocus", "180")
    found = pyptyx(folder, "calibrate", "raw.toml", *search).stdout
    keys = found[found.index("[experiment]") :]
    calibrated = tomllib.loads(keys)["experiment"]
    assert calibrated["aberrations"][0] == pytest.approx(150, rel=0.1)
    assert calibrated["rez_pixel_size_A"] == pytest.approx(SCENE.dk, rel=0.03)
    file.write_text(complete.replace("[experiment]", keys, 1), encoding="utf-8")

    assert "batches" in pyptyx(folder, "plan", "raw.toml").stdout
    run = pyptyx(folder, "run", "raw.toml", "--set", "epoch_max=4", "--set", "update_probe_pos=0")
    assert "epochs    4" in run.stdout
    first, last = map(float, re.search(r"loss (\S+) -> (\S+)", run.stdout).groups())
    assert last < first < 1.05 * last  # the sweeps before the first epoch do most of it
    assert run.stderr.count("evaluations") == 4  # lines, as nobody sees a bar here
    assert "\r" not in run.stderr
    assert "epochs    6" in pyptyx(folder, "resume", "raw_results", "--set", "epoch_max=6").stdout

    pyptyx(folder, "report", "raw_results")
    assert "<html" in (folder / "raw_results" / "report.html").read_text(encoding="utf-8")
    pyptyx(folder, "export", "raw_results")
    with h5py.File(folder / "raw_results.nxs") as nexus:
        assert nexus.attrs["default"]
