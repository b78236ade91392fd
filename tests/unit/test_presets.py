"""Every preset runs on a small simulated data set, with nothing but what its comments ask for."""

from pathlib import Path

import numpy as np
import pytest

import pyptyx
from pyptyx.errors import DataError
from pyptyx.params import load_preset
from pyptyx.shipped import preset_names

FOLDER = Path(__file__).parents[2] / "presets"
SCAN, WINDOW, PIXEL_A = (3, 4), (18, 16), (0.4, 0.45)
WITH_SHIPPED_DATA = {"cryo_demo"}


def pixels():
    """(y, x) of the window from its centre."""
    return np.mgrid[: WINDOW[0], : WINDOW[1]] - np.array(WINDOW)[:, None, None] // 2


def specimen(rng, slices, shape):
    return np.exp(0.3j * rng.random((*shape, slices, 1)))


def beam(width):
    y, x = pixels()
    return 50 * np.exp(-(y**2 + x**2) / (2 * width**2))[..., None] + 0j


def microscope(**more):
    return {
        "acc_voltage": 200,
        "pixel_size_y_A": PIXEL_A[0],
        "pixel_size_x_A": PIXEL_A[1],
        "probe": beam(1.5),
        "positions": 2.0 * np.stack(np.mgrid[: SCAN[0], : SCAN[1]], -1).reshape(-1, 2),
        **more,
    }


def simulated(rng, slices=1, **more):
    """Microscope and data of a random specimen."""
    known = microscope(**more)
    obj = specimen(rng, slices, (WINDOW[0] + 4, WINDOW[1] + 6))
    return known, rng.poisson(pyptyx.simulate({**known, "obj": obj}))


def experiment(rng, preset, **more):
    """Scanned diffraction, through `append_exp_params`; masks come with the data."""
    _known, patterns = simulated(rng)
    exp = {
        "dataset": patterns.reshape(*SCAN, *WINDOW),
        "acc_voltage": 200,
        "rez_pixel_size_A": 0.1,
        "scan_step_A": 1.0,
        "PLRotation_deg": 0.0,
        "bright_threshold": 0.3,
        "total_thickness": 60.0,
        "output_folder": None,
        **more,
    }
    if "masks" in exp:
        exp["dataset"] = np.einsum("dyx,tyx->td", exp["masks"], patterns).reshape(*SCAN, -1)
    if "num_slices" in preset:
        exp["num_slices"] = preset["num_slices"]
    return pyptyx.append_exp_params(exp, preset)


def near_field(rng, preset):
    optics = {key: preset[key] for key in ("recon_type", "defocus_array")}
    known, images = simulated(rng, **optics)
    return preset | known | {"dataset": images, "probe": None}


def focal_series(rng, preset):
    series = {key: preset[key] for key in ("recon_type", "positions", "Cs", "alpha_near_field")}
    flat = np.full((*WINDOW, 1), 30 + 0j)
    known, images = simulated(rng, probe=flat, defocus_array=np.linspace(-90, 60, 5), **series)
    assert len(images) == 5
    return preset | known | {"dataset": images}


def larbed(rng, preset):
    tilts = np.zeros((7, 6))
    tilts[:, :2] = 5e-3 * rng.standard_normal((7, 2))
    tilts[:, 4:] = -tilts[:, :2]
    setting = {key: preset[key] for key in ("positions", "tilt_mode")}
    more = {"slice_distances": [20.0], "tilts": tilts}
    known, patterns = simulated(rng, preset["num_slices"], **setting, **more)
    assert len(patterns) == 7
    return preset | known | {"dataset": patterns}


def compressed(rng, preset):
    y, x = pixels()
    radius, sector = np.hypot(y, x), np.floor((np.arctan2(y, x) / np.pi + 1) * 2) % 4
    masks = [
        (radius >= a) & (radius < b) & (sector == s) for a, b in ((0, 3), (3, 9)) for s in range(4)
    ]
    return experiment(rng, preset, masks=np.array(masks, float))


MAKERS = {
    "thin_2d": experiment,
    "low_dose": experiment,
    "multislice": experiment,
    "mixed_state": experiment,
    "near_field": near_field,
    "focal_series": focal_series,
    "larbed": larbed,
    "compressed": compressed,
}


def test_every_preset_is_here():
    assert {path.stem for path in FOLDER.glob("*.toml")} == MAKERS.keys() | WITH_SHIPPED_DATA


@pytest.mark.parametrize("name", MAKERS)
def test_preset_runs(name):
    preset = load_preset(FOLDER / f"{name}.toml")
    params = MAKERS[name](np.random.default_rng(2), dict(preset))
    kept = {key: params[key] for key in preset.keys() - {"probe", "epoch_max"}}
    assert kept == {key: preset[key] for key in kept}
    result = pyptyx.run(params | {"epoch_max": 2, "print_flag": 0, "output_folder": None})
    assert len(result.losses) == 2
    assert result.final_loss < result.losses[0].loss
    assert result.object.shape[2] == preset.get("num_slices", 1)
    assert result.probe.shape[2] == preset.get("mc_n_modes", 1)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_presets_say_what_they_are_for(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert sum("#" in line for line in lines) >= 4


def test_presets_are_found_by_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert preset_names() == sorted(path.stem for path in FOLDER.glob("*.toml"))
    assert load_preset("low_dose") == load_preset(FOLDER / "low_dose.toml")
    with pytest.raises(DataError, match="Did you mean 'low_dose'"):
        load_preset("lowdose")
    with pytest.raises(DataError, match="one of the presets compressed, cryo_demo, "):
        load_preset("results")
    # A folder of results is what a name means first.
    pyptyx.save_params(tmp_path / "low_dose", {"epoch_max": 3})
    assert load_preset("low_dose") == {"epoch_max": 3}
