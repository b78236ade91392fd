"""What pages take for granted: files beside the reader, and names that earlier work left behind."""

import shutil
from pathlib import Path

import h5py
import numpy as np

import pyptyx

ROOT = Path(__file__).parents[2]

SCAN, WINDOW, REZ_A = (8, 9), (24, 26), 0.1
PIXEL_A = tuple(1 / (n * REZ_A) for n in WINDOW)
STEP_A, DEFOCUS_A, ENERGY_KV, SEMIANGLE = 0.8, -150.0, 80, 0.025
N = SCAN[0] * SCAN[1]

ABOUT_SCAN_H5 = {
    "scan_size": (64, 60),
    "scan_step_A": 0.5,
    "acc_voltage": 80,
    "conv_semiangle_mrad": 25,
    "rez_pixel_size_mrad": 1.1,
    "PLRotation_deg": -12,
    "defocus": -200,
}
"""The experiment of the readme and of the page about data of one's own."""


def _radius(shape, step):
    y, x = (step * (np.arange(n) - n // 2) for n in shape)
    return np.hypot(y[:, None], x)


def _disc():
    return _radius(WINDOW, REZ_A) <= SEMIANGLE / pyptyx.wavelength_A(ENERGY_KV)


def _beam(counts=1e4):
    wave = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(_disc())))[..., None]
    return wave * np.sqrt(counts / (np.sum(abs(wave) ** 2) * wave.size))


def _microscope():
    raster = np.stack(np.mgrid[: SCAN[0], : SCAN[1]], axis=-1).reshape(-1, 2)
    return {
        "acc_voltage": ENERGY_KV,
        "pixel_size_y_A": PIXEL_A[0],
        "pixel_size_x_A": PIXEL_A[1],
        "positions": raster * STEP_A / PIXEL_A,
        "probe": _beam(),
    }


def patterns():
    """Counts (sy, sx, ky, kx) of blobs, the same in every call."""
    rng = np.random.default_rng(1)
    known = _microscope()
    shape = np.ceil(known["positions"].max(axis=0)).astype(int) + WINDOW
    noise = np.fft.fft2(rng.normal(size=shape)) * np.exp(-np.fft.ifftshift(_radius(shape, 0.2)))
    phase = np.fft.ifft2(noise).real
    known |= {"obj": np.exp(0.3j * phase / phase.std())[..., None, None]}
    known |= {"extra_probe_defocus": DEFOCUS_A}
    return rng.poisson(pyptyx.simulate(known)).astype(np.uint16).reshape(*SCAN, *WINDOW)


def small(folder):
    """``experiment`` and ``preset`` with data in memory."""
    del folder
    experiment = {
        "dataset": patterns(),
        "acc_voltage": ENERGY_KV,
        "conv_semiangle_mrad": 1e3 * SEMIANGLE,
        "rez_pixel_size_A": REZ_A,
        "scan_step_A": STEP_A,
        "PLRotation_deg": 0.0,
        "defocus": DEFOCUS_A,
        "bright_threshold": 0.4,
        "data_pad": 0,
        "output_folder": "results",
    }
    return {"experiment": experiment, "preset": {"epoch_max": 2, "num_slices": 1}}


def of_pypty(folder):
    """What a script of PyPty has defined."""
    names = small(folder)
    experimental_params = names["experiment"] | {"output_folder": "results/"}
    named = {"experimental_params": experimental_params, "pypty_params": names["preset"]}
    return {**named, "output_folder": "results/"}


def small_file(folder):
    """``experiment.toml`` and its data beside `small`."""
    names = small(folder)
    described = dict(names["experiment"])
    np.save(folder / "patterns.npy", described.pop("dataset"))
    lines = [f"{key} = {value!r}" for key, value in described.items()]
    text = "\n".join(["[experiment]", 'data_path = "patterns.npy"', *lines, "[preset]", ""])
    (folder / "experiment.toml").write_text(text, encoding="utf-8")
    return names


def finished(folder, slices=1):
    """A finished run in ``results``, its parameters and its result."""
    names = small(folder)
    np.save(folder / "patterns.npy", names["experiment"].pop("dataset"))
    names["experiment"] |= {"data_path": str(folder / "patterns.npy"), "total_thickness": 40.0}
    names["experiment"] |= {"num_slices": slices, "output_folder": str(folder / "results")}
    params = pyptyx.append_exp_params(names["experiment"], {"epoch_max": 2})
    result = pyptyx.run(params)
    names = {"params": params, "result": result, "patterns": patterns(), "n_patterns": N}
    return names | _package()


def thick(folder):
    """`finished` with four slices."""
    return finished(folder, slices=4)


def scan_h5(folder):
    """``scan.h5`` as the readme describes it: discs and noise."""
    rng = np.random.default_rng(2)
    shape = (52, 56)
    lit = 4.0 * (_radius(shape, 1.1) <= 25)
    data = rng.poisson(lit, (*ABOUT_SCAN_H5["scan_size"], *shape)).astype(np.uint8)
    with h5py.File(folder / "scan.h5", "w") as file:
        file["data"] = data
    return {}


def scan_toml(folder):
    """``scan.h5`` and ``scan.toml``."""
    scan_h5(folder)
    known = {**ABOUT_SCAN_H5, "scan_size": list(ABOUT_SCAN_H5["scan_size"])}
    lines = ["[experiment]", 'data_path = "scan.h5"', 'output_folder = "results"']
    lines += [f"{key} = {value}" for key, value in known.items()]
    (folder / "scan.toml").write_text("\n".join([*lines, "[preset]", ""]), encoding="utf-8")
    shutil.copy(folder / "scan.toml", folder / "run.toml")
    return {}


def other_programs(folder):
    """A file with metadata but no detector pixel, and a result of PtyRAD."""
    scan_h5(folder)
    with h5py.File(folder / "scan_master.h5", "w") as file:
        file["data"] = patterns()
        file.attrs.update(acc_voltage=ENERGY_KV, scan_step_A=STEP_A)
    rng = np.random.default_rng(3)
    modes, slices, shape = 2, 3, (40, 44)
    with h5py.File(folder / "model_iter0200.hdf5", "w") as file:
        tensors = file.create_group("optimizable_tensors")
        tensors["obja"] = tensors["objp"] = rng.uniform(0.5, 1, (1, slices, *shape))
        tensors["probe"] = rng.normal(size=(modes, *WINDOW)) + 1j
        tensors["probe_pos_shifts"] = np.zeros((N, 2))
        tensors["slice_thickness"] = 10.0
        attributes = file.create_group("model_attributes")
        attributes["crop_pos"] = rng.integers(0, 15, (N, 2))
        attributes["dx"] = PIXEL_A[0]
    return {}


def other_users(folder):
    """Their patterns under their names, and a result of PtyRAD."""
    other_programs(folder)
    return {"datacube": patterns(), "patterns": patterns()}


def camera(folder):
    """`small`, and a camera that hands out rows of patterns."""
    names = small_file(folder)
    rows = names["experiment"]["dataset"]
    vacuum = rows.mean(axis=(0, 1))
    return {**names, "camera": rows, "vacuum": vacuum, "show": lambda image: None}


def doubts(folder):
    """`small` with an angle and a defocus of unknown sign."""
    return {**small(folder), "angle": 0.0, "defocus": 150.0}


def focal_series(folder):
    """Images of one field of view."""
    del folder
    images = np.random.default_rng(4).poisson(100, (9, 30, 28))
    return {"images": images, "ny": 30, "nx": 28, "counts_per_pixel": 100, "np": np, **_package()}


def near_field(folder):
    """Images of a large beam at five positions."""
    del folder
    images = np.random.default_rng(5).poisson(100, (5, 30, 28))
    return {"images": images, "positions": np.indices((5, 2))[0] * [2.0, 3.0], **_package()}


def tilt_series(folder):
    """Patterns at one position."""
    del folder
    data = np.random.default_rng(6).poisson(9.0 * _disc(), (6, *WINDOW))
    slopes = np.linspace(-0.01, 0.01, 12).reshape(6, 2)
    names = {"n": 6, "beam_tilts": slopes, "patterns": data, "probe": _beam()}
    return {**names, "np": np, **_package()}


def virtual_detectors(folder):
    """Signals of three masks."""
    del folder
    masks = np.stack([_radius(WINDOW, 1) < radius for radius in (3, 6, 9)]).astype(float)
    signals = np.tensordot(patterns(), masks, axes=([2, 3], [1, 2]))
    return {"signals": signals, "masks": masks, "disc": _disc(), **_package()}


def _package():
    return {"pyptyx": pyptyx}


def nothing(folder):
    """An empty folder."""
    del folder
    return {}


SCENES = {
    "README.md": scan_toml,
    "howto/calibrate.md": small_file,
    "howto/compressed.md": virtual_detectors,
    "howto/direct_methods.md": camera,
    "howto/dpc.md": small,
    "howto/figures.md": thick,
    "howto/focal_series.md": focal_series,
    "howto/formats.md": other_programs,
    "howto/from_pypty.md": of_pypty,
    "howto/from_py4dstem.md": other_users,
    "howto/from_ptyrad.md": other_users,
    "howto/larbed.md": tilt_series,
    "howto/live_editing.md": finished,
    "howto/memory.md": scan_toml,
    "howto/near_field.md": near_field,
    "howto/nexus.md": finished,
    "howto/orientation.md": doubts,
    "howto/own_data.md": scan_h5,
    "howto/report.md": finished,
    "howto/restart.md": finished,
    "reference/cli.md": scan_toml,
}
"""Pages that need something; paths below ``docs``, or the readme."""


def prepare(page, folder):
    """Fill the folder of a page and return its names; presets lie there as in the checkout."""
    shutil.copytree(ROOT / "presets", folder / "presets")
    scene = SCENES.get(page, nothing)
    return scene(folder)
