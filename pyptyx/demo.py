"""The demonstration: real cryo 4D-STEM data that travel with the package, from file to picture.

The data set is a part of the one published with Ptycho.jl (MIT, Copyright (c) 2023 Xiaopeng Wu, Yu
Lei): rotavirus-like particles at 300 kV.  See ``examples/data/README.md``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from pyptyx.files import make_folder, replacing
from pyptyx.shipped import shipped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyptyx.engine.run import Result

logger = logging.getLogger(__name__)

# Keys of the experiment and the attributes of the file that hold them.
_EXPERIMENT_KEYS = {
    "acc_voltage": "acc_voltage",
    "conv_semiangle_mrad": "conv_semiangle_mrad",
    "rez_pixel_size_A": "rez_pixel_size_A",
    "scan_step_A": "scan_step_A",
    "PLRotation_deg": "PLRotation_deg",
    "defocus": "C10_A",
}


@dataclass(frozen=True)
class DemoReport:
    """What the demonstration made.

    Attributes
    ----------
    result : Result
        What `pyptyx.run` returned.
    folder : Path
        Where everything lies.
    pictures : tuple of Path
        The phase, the probe and the loss.
    """

    result: Result
    folder: Path
    pictures: tuple[Path, ...]


def run_demo(output_folder: str | Path, epochs: int | None = None) -> DemoReport:
    """Reconstruct the shipped data set and save pictures of the result.

    Parameters
    ----------
    output_folder : str or Path
        Created if it does not exist.
    epochs : int, optional
        Number of epochs; by default that of the preset.

    Returns
    -------
    DemoReport

    Raises
    ------
    DataError
        If the data or the preset are missing from the installation.
    ParamError
        If `epochs` is not a positive number.
    """
    from pyptyx.engine.experiment import append_exp_params
    from pyptyx.iterative import run
    from pyptyx.params import load_run_file

    folder = Path(output_folder)
    _, preset = load_run_file(shipped("presets/cryo_demo.toml"))
    if epochs is not None:
        preset["epoch_max"] = epochs
    experiment = {**demo_experiment(), "output_folder": str(folder)}
    params = append_exp_params(experiment, preset)
    result = run(params)
    return DemoReport(result, folder, _save_pictures(folder, result))


def demo_experiment() -> dict[str, Any]:
    """The experiment dictionary of the shipped data; its numbers come from the file's attributes.

    Returns
    -------
    dict
        Keys as in an experiment of the user.

    Raises
    ------
    DataError
        If the data are missing from the installation.
    """
    path = shipped("examples/data/cryo_rotavirus.h5")
    with h5py.File(path, "r") as file:
        scan_size = file["data"].shape[:2]
        experiment = {key: float(file.attrs[name]) for key, name in _EXPERIMENT_KEYS.items()}
    return {"data_path": str(path), "scan_size": scan_size, **experiment}


def _save_pictures(folder: Path, result: Result) -> tuple[Path, ...]:
    from pyptyx.output import plots

    window = result.probe.shape[:2]
    field = plots.scanned_field(result.positions, window)
    mask = plots.scanned_mask(result.positions, window, result.object.shape[:2])
    pixel_size_A = result.pixel_size_A
    figures = {
        "phase.png": plots.plot_phase(result.object, pixel_size_A, field=field, mask=mask),
        "probe.png": plots.plot_probe(result.probe, pixel_size_A),
        "loss.png": plots.plot_loss(result.losses),
    }
    make_folder(folder)
    return tuple(_save(figure, folder / name) for name, figure in figures.items())


def _save(figure: Figure, path: Path) -> Path:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
    logger.info("wrote %s", path)
    return path
