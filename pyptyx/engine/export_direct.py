"""What the direct methods have left in ``direct/``, ``wdd/``, ``dpc/`` and ``tcbf/``.

Arrays that can be shown become maps; all others, numbers and complex waves, are kept as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.engine.export_folder import load_array
from pyptyx.errors import DataError
from pyptyx.output.maps import Axis, Map, image_axes
from pyptyx.output.nexus_fields import legal_name
from pyptyx.params import load_params
from pyptyx.params.files import read_json

FOLDERS = ("direct", "wdd", "dpc", "tcbf")
"""Where the direct methods save, in the order in which their results are exported."""

_NOT_IN_RAD = ("obf", "tcbf")
"""Kernels whose images are no phases in rad."""


@dataclass
class DirectResults:
    """The results of one folder.

    Attributes
    ----------
    folder : Path
    params : dict
        The parameters they were made with; empty if nobody has saved them.
    maps : list of Map
    others : dict of ndarray or str
        By name: arrays that are no maps, and documents.
    shown : set of Path
        Files that are in a map as they are.
    """

    folder: Path
    params: dict[str, Any]
    maps: list[Map] = field(default_factory=list)
    others: dict[str, np.ndarray | str] = field(default_factory=dict)
    shown: set[Path] = field(default_factory=set)

    def show(self, name: str) -> np.ndarray | None:
        """An array that goes into a map; None if there is none of this name."""
        path = self.folder / f"{name}.npy"
        if not path.is_file():
            return None
        self.shown.add(path)
        return load_array(path)

    def stems(self, pattern: str) -> list[str]:
        """Names of arrays, sorted."""
        return sorted(path.stem for path in self.folder.glob(f"{pattern}.npy"))

    @property
    def step_A(self) -> float | None:
        """Scan step in Å."""
        step = self.params.get("scan_step_A")
        return None if step is None else float(step)


def direct_results(folder: Path, run_params: Mapping[str, Any]) -> list[DirectResults]:
    """All results below an output folder.

    Parameters
    ----------
    folder : Path
    run_params : mapping
        Parameters of the run in the same folder; they count where a method has saved none.

    Raises
    ------
    DataError
        If a file is damaged.
    """
    found = []
    for name in FOLDERS:
        place = folder / name
        if any(place.glob("*.npy")):
            results = DirectResults(place, _params_of(place) or dict(run_params))
            for reader in _READERS[name]:
                results.maps.extend(reader(results))
            _keep_others(results)
            found.append(results)
    return found


def has_maps(folder: Path) -> bool:
    """Whether a direct method has left anything to show below an output folder."""
    return any(results.maps for results in direct_results(folder, {}))


def _params_of(place: Path) -> dict[str, Any]:
    return load_params(place) if (place / "params.json").is_file() else {}


def _linear(results: DirectResults) -> Iterator[Map]:
    """Images by `direct_image` with what is known about them over spatial frequency."""
    for stem in results.stems("phase_*"):
        kernel = stem.removeprefix("phase_")
        info = _info(results.folder / f"info_{kernel}.json")
        pixel = info.get("pixel_A", results.step_A)
        found = {name: results.show(f"{name}_{kernel}") for name in ("phase", "amplitude")}
        signals = {name: image for name, image in found.items() if image is not None}
        axes = image_axes(signals["phase"].shape, pixel)
        units = {} if kernel in _NOT_IN_RAD else {"phase": "rad"}
        yield Map(legal_name(f"direct_{kernel}"), signals, axes, units)
        step = None if pixel is None else float(pixel) * float(info.get("upsample", 1))
        yield from _spectra(results, kernel, step)


def _info(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except DataError:
        return {}
    return found if isinstance(found, dict) else {}


def _spectra(results: DirectResults, kernel: str, step_A: float | None) -> Iterator[Map]:
    """Half planes of the frequencies of the scan, whose padded width is even, and rings."""
    step, unit = (1.0, "") if step_A is None else (step_A, "1/angstrom")
    for quantity in ("ssnr", "transfer", "condition"):
        plane = results.show(f"{quantity}_{kernel}")
        if plane is None:
            continue
        rows, columns = plane.shape
        q_y = np.fft.fftshift(np.fft.fftfreq(rows, step))
        q_x = np.fft.rfftfreq(max(2 * (columns - 1), 1), step)
        axes = (Axis("q_y", q_y, unit), Axis("q_x", q_x, unit))
        signals = {quantity: np.fft.fftshift(plane, axes=0)}
        yield Map(legal_name(f"direct_{kernel}_{quantity}"), signals, axes)
    correlation, rings = results.show(f"frc_{kernel}"), results.show(f"frc_q_A_{kernel}")
    if correlation is not None and rings is not None:
        axis = Axis("q", rings, "1/angstrom")
        yield Map(legal_name(f"direct_{kernel}_frc"), {"frc": correlation}, (axis,))


def _depth_stack(results: DirectResults) -> Iterator[Map]:
    stack, heights = results.show("depth_stack"), results.show("depth_stack_heights_A")
    if stack is None:
        return
    z = Axis("z", np.arange(len(stack)))
    if heights is not None and len(heights) == len(stack):
        z = Axis("z", heights, "angstrom")
    axes = (z, *image_axes(stack.shape, results.step_A))
    yield Map("direct_depth_stack", {"phase": stack}, axes, {"phase": "rad"})


def _wdd(results: DirectResults) -> Iterator[Map]:
    path = results.folder / "object.npy"
    if path.is_file():  # the wave itself stays among the others
        wave = load_array(path)
        signals = {"phase": np.angle(wave), "amplitude": np.abs(wave)}
        yield Map("wdd", signals, image_axes(wave.shape, results.step_A), {"phase": "rad"})


def _dpc(results: DirectResults) -> Iterator[Map]:
    for stem in results.stems("*"):
        phase = results.show(stem)
        if phase is not None and phase.ndim == 2:
            axes = image_axes(phase.shape, results.step_A)
            yield Map(legal_name(f"dpc_{stem}"), {"phase": phase}, axes, {"phase": "rad"})


def _tcbf(results: DirectResults) -> Iterator[Map]:
    for stem in results.stems("tcbf_image_*"):
        image = results.show(stem)
        finer = re.fullmatch(r"tcbf_image_upsampling_(\d+(?:\.\d+)?)", stem)
        pixel = results.step_A
        if finer and pixel is not None:
            pixel /= float(finer[1])
        if image is not None:
            axes = image_axes(image.shape, pixel)
            yield Map(legal_name(stem), {"intensity": image}, axes)


_READERS = {"direct": (_linear, _depth_stack), "wdd": (_wdd,), "dpc": (_dpc,), "tcbf": (_tcbf,)}


def _keep_others(results: DirectResults) -> None:
    """What is in no map: waves, coefficients, shifts, documents."""
    for path in sorted(results.folder.glob("*.npy")):
        if path not in results.shown:
            results.others[legal_name(path.stem)] = load_array(path)
    for path in sorted(results.folder.glob("info_*.json")):
        results.others[legal_name(path.stem)] = path.read_text(encoding="utf-8")
