"""Images as files: TIFF with numbers for other programs, PNG with pictures for people."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pyptyx.errors import OutputError, Problem, ShapeError
from pyptyx.files import replacing

_AXES = {2: "YX", 3: "ZYX", 4: "ZCYX"}
"""ImageJ's names of the axes, in the only order it takes."""


def write_tiff(
    target: Path,
    images: np.ndarray,
    pixel_A: tuple[float, float],
    spacing_A: float | None = None,
) -> None:
    """Write images as an uncompressed float32 TIFF with the tags of ImageJ, atomically.

    Pixel size and slice spacing are in nm, and ``resolution`` is that of either axis, so square
    pixels are not needed.  The pages follow each other, slices outermost.

    Parameters
    ----------
    target : Path
    images : ndarray (Y, X), (Nz, Y, X) or (Nz, C, Y, X)
        Real numbers.
    pixel_A : tuple of float
        ``(y, x)`` in Å.
    spacing_A : float, optional
        Distance of the slices in Å.

    Raises
    ------
    ShapeError
        If the images are complex, empty or of other dimensions.
    OutputError
        If tifffile is not installed or the file cannot be written.
    """
    if images.ndim not in _AXES or images.size == 0 or np.iscomplexobj(images):
        expected = "real images (Y, X), (Nz, Y, X) or (Nz, C, Y, X)"
        raise ShapeError(Problem("images", expected, f"{images.dtype} of shape {images.shape}"))
    metadata: dict[str, Any] = {"axes": _AXES[images.ndim], "unit": "nm"}
    if spacing_A:
        metadata["spacing"] = spacing_A / 10
    y, x = pixel_A
    with replacing(target) as temporary:
        _tifffile().imwrite(
            temporary,
            np.asarray(images, np.float32),
            imagej=True,
            resolution=(10 / x, 10 / y),
            metadata=metadata,
        )


def save_figure(path: Path, figure: Figure, dpi: int = 120) -> None:
    """Write a figure as PNG, atomically.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)


def _tifffile() -> Any:
    try:
        return import_module("tifffile")
    except ImportError as error:
        remedy = "pip install 'pyptyx[tiff]', or choose another format"
        raise OutputError(f"TIFF: the package tifffile is missing. {remedy}") from error
