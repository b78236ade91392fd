"""Defects of PyPty's set-up that no other test would notice; see docs/explanation/defects.md."""

import ast
import logging
from pathlib import Path

import numpy as np
from test_pypty_script import COUNTS, DISC_A, REZ_A, SCAN, STEP_A, WAVELENGTH_A, aperture

import pyptyx as pypty


def test_a_calibration_from_the_disc_is_announced(caplog):
    """A disc is measured to a percent or two at best; nobody should learn it later."""
    semiangle_mrad = 1e3 * DISC_A * WAVELENGTH_A
    disc = np.broadcast_to(COUNTS * aperture(), (*SCAN, *aperture().shape))
    experimental_params = {
        "dataset": disc,
        "output_folder": None,
        "acc_voltage": 200,
        "conv_semiangle_mrad": semiangle_mrad,
        "scan_step_A": STEP_A,
        "PLRotation_deg": 0,
    }
    with caplog.at_level(logging.WARNING, logger="pyptyx"):
        params = pypty.append_exp_params(experimental_params)
    assert "rez_pixel_size_A" in caplog.text
    assert "two percent uncertain" in caplog.text
    np.testing.assert_allclose(params["rez_pixel_size_A"], REZ_A, rtol=0.05)
    caplog.clear()
    pypty.append_exp_params(experimental_params | {"rez_pixel_size_A": REZ_A})
    assert "percent uncertain" not in caplog.text


def test_no_figure_blocks_a_script():
    """``pyplot.show`` is never called; figures are shown without waiting, if at all."""
    package = pypty.__path__[0]
    for path in sorted(Path(package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                assert node.func.attr != "show" or owner not in {"plt", "pyplot"}, path
