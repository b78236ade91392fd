"""An output folder as images: float32 TIFF stacks for programs, PNG with scale bars for people."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pyptyx.engine.export_results import PathLike, Results, open_results
from pyptyx.errors import ParamError, Problem
from pyptyx.files import make_folder
from pyptyx.output import plots
from pyptyx.output.images import save_figure, write_tiff
from pyptyx.output.maps import Map

logger = logging.getLogger(__name__)

FORMATS = ("tiff", "png")

_DPI = 200
_FEWEST_PIXELS = 2
"""Of a side of the scanned field, below which the whole object is shown."""


def export_images(
    folder_path: PathLike, output_folder: PathLike, image_format: str = "png"
) -> tuple[Path, ...]:
    """Write the results of an output folder as images.

    Parameters
    ----------
    folder_path : path
        Of a run, or of direct methods.
    output_folder : path
        Where the images go; created if it does not exist.
    image_format : {"png", "tiff"}
        ``"tiff"`` writes the numbers as they are, wrapped phases in rad over the whole object,
        float32 with pixel size and slice spacing: a page for each slice and object mode.
        ``"png"`` writes pictures with scale bars, phases of the scanned field without their ramp:
        one of all slices together and, of several, one of each.

    Returns
    -------
    tuple of Path
        The files.

    Raises
    ------
    DataError
        With one problem for each file that is missing or damaged.
    ParamError
        If the format is unknown or the parameters do not fit the arrays.
    OutputError
        If a file cannot be written, or the package for TIFF is missing.
    """
    if image_format not in FORMATS:
        raise ParamError(Problem("format", f"one of {', '.join(FORMATS)}", repr(image_format)))
    results, target = open_results(folder_path), Path(output_folder)
    make_folder(target)
    write = _tiffs if image_format == "tiff" else _pngs
    return tuple(write(results, target))


def _tiffs(results: Results, target: Path) -> Iterator[Path]:
    if results.arrays:
        # (y, x, slice, mode) as (slice, mode, y, x): ImageJ's order of the pages.
        obj = results.arrays["obj"].transpose(2, 3, 0, 1)
        gaps = results.gaps_A
        spacing = float(np.mean(gaps)) if gaps else None
        if len(set(gaps)) > 1:
            logger.warning("slice distances differ: the TIFF says their mean, %.4g Å", spacing)
        stacks = {"phase": np.angle(obj), "amplitude": np.abs(obj)}
        for name, stack in stacks.items():
            path = target / f"{name}.tif"
            write_tiff(path, stack, results.pixel_A, spacing)
            yield path
        # A probe has no slices; its modes and scenarios are pages.
        probe = np.abs(results.arrays["probe"]) ** 2
        pages = probe.reshape(*probe.shape[:2], -1).transpose(2, 0, 1)
        path = target / "probe.tif"
        write_tiff(path, pages[None], results.pixel_A)
        yield path
    for one, pixel_A in _direct_images(results):
        for name, image in one.signals.items():
            path = target / f"{one.name}_{name}.tif"
            write_tiff(path, image, pixel_A, _spacing(one))
            yield path


def _pngs(results: Results, target: Path) -> Iterator[Path]:
    for name, figure in _figures(results):
        path = target / f"{name}.png"
        save_figure(path, figure, _DPI)
        yield path


def _figures(results: Results) -> Iterator[tuple[str, Figure]]:
    if results.arrays:
        yield from _object_figures(results)
        yield "probe", plots.plot_probe(results.arrays["probe"], results.pixel_A)
    if results.loss:
        columns = zip(results.loss["epoch"], results.loss["loss"], strict=True)
        yield "loss", plots.plot_loss({"epoch": epoch, "loss": loss} for epoch, loss in columns)
    for one, pixel_A in _direct_images(results):
        for name, images in one.signals.items():
            stack = images[None] if images.ndim == 2 else images
            for z, image in enumerate(stack):
                part = f"_slice_{z}" if len(stack) > 1 else ""
                yield f"{one.name}_{name}{part}", plots.plot_map(image, pixel_A, one.label(name))


def _object_figures(results: Results) -> Iterator[tuple[str, Figure]]:
    obj, pixel_A = results.arrays["obj"], results.pixel_A
    field, mask = _scanned(results)
    slices, modes = obj.shape[2:]
    for mode in range(modes):
        end = f"_mode_{mode}" if modes > 1 else ""
        for z in (None, *(range(slices) if slices > 1 else ())):
            part = "" if z is None else f"_slice_{z}"
            phase = plots.plot_phase(
                obj, pixel_A, slice_index=z, object_mode=mode, field=field, mask=mask
            )
            amplitude = plots.plot_amplitude(
                obj, pixel_A, slice_index=z, object_mode=mode, field=field, mask=mask
            )
            yield f"phase{end}{part}", phase
            yield f"amplitude{end}{part}", amplitude


def _scanned(results: Results) -> tuple[plots.Field, np.ndarray | None]:
    """What the beam centres enclose; everything where they enclose next to nothing."""
    obj, probe, positions = (results.arrays[key] for key in ("obj", "probe", "positions"))
    field = plots.scanned_field(positions, probe.shape[:2])
    if min(part.stop - part.start for part in field) <= _FEWEST_PIXELS:
        return plots.WHOLE, None
    return field, plots.scanned_mask(positions, probe.shape[:2], obj.shape[:2])


def _direct_images(results: Results) -> Iterator[tuple[Map, tuple[float, float]]]:
    """Images of direct methods with their pixels; those without a known pixel are left out."""
    for direct in results.direct:
        for one in direct.maps:
            if [axis.name for axis in one.axes[-2:]] != ["y", "x"]:
                continue
            if one.pixel_A is None:
                logger.warning("%s is left out: its pixel size is not known", one.name)
                continue
            yield one, one.pixel_A


def _spacing(one: Map) -> float | None:
    """Mean distance of the planes of a stack in Å."""
    z = one.axes[0]
    if z.name != "z" or z.unit != "angstrom" or len(z.values) < 2:
        return None
    return float(np.mean(np.diff(z.values)))
