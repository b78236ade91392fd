"""Results of other programs as a start for ours: object, probe, positions, distances.

=========  =====================================================================================
PtyRAD     HDF5 of ``save_result: model``: object (mode, slice, y, x) as amplitude and phase, probe
           (mode, y, x), integer corners plus shifts in px, orthonormal transforms
py4DSTEM   HDF5 of a saved reconstruction: object (x, y) or (slice, x, y), complex or as potential,
           probe with its centre in the corner, positions of the probe's centre in px
phaser     HDF5 of type ``phaser_state``: object (slice, y, x), probe (mode, y, x), positions of
           the probe's centre in Å, orthonormal transforms
=========  =====================================================================================

All three have our sign of the phase: transmission exp(+iσV), propagator exp(−iπλz q²).  They sum
over probe modes, we average, so that a probe of M modes is multiplied by √M.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pyptyx.constants import ELECTRON_REST_keV, HC_keV_A
from pyptyx.data.formats.base import positive, refusal
from pyptyx.data.formats.hdf5_metadata import scalar, text
from pyptyx.data.hdf5 import open_h5
from pyptyx.errors import DataError, ParamError, Problem

logger = logging.getLogger(__name__)

Params = dict[str, Any]


def load_result(path: str | os.PathLike[str], counts: float | None = None) -> Params:
    """Object, probe and positions of a reconstruction by PtyRAD, py4DSTEM or phaser.

    Parameters
    ----------
    path : path
        The HDF5 file.
    counts : float, optional
        Mean counts of a pattern of the data to be used.  The probe is scaled to them.  Without it
        the probe keeps the counts of the data as the other program saw them, which PtyRAD and
        phaser normalise.

    Returns
    -------
    dict
        Parameters to be merged into those of a run, as far as the file gives them: ``obj
        (Y, X, Nz, Mo)`` and ``probe (ny, nx, Mp)`` complex, ``probe_is_aberrated``, ``positions
        (N, 2)`` as ``(y, x)`` in px of the top-left corner, ``num_slices``, ``slice_distances``
        in Å, ``pixel_size_y_A``, ``pixel_size_x_A``, ``acc_voltage`` in kV.

    Raises
    ------
    DataError
        If the file is not HDF5 or not a result of one of these programs.
    ParamError
        If `counts` is not positive.
    """
    if counts is not None and positive(counts) is None:
        raise ParamError(Problem("counts", "a positive number", repr(counts)))
    file_path = Path(os.fspath(path)).expanduser()
    with open_h5(file_path) as file:
        reader = _reader_of(file)
        if reader is None:
            groups = ", ".join(list(file)[:10]) or "nothing"
            raise refusal(
                file_path,
                f"groups {groups}",
                "Measured patterns are opened by load_data.",
                "a result of PtyRAD, py4DSTEM or phaser",
            )
        try:
            result = reader(file)
        except (KeyError, ValueError, IndexError, OSError) as error:
            if isinstance(error, DataError):
                raise
            raise refusal(
                file_path,
                f"one that cannot be read ({error})",
                "It may be of another version of that program, or damaged.",
                "a complete result",
            ) from error
    if counts is not None and "probe" in result:
        result["probe"] = result["probe"] * np.sqrt(counts / _counts(result["probe"]))
    return result


def _reader_of(file: h5py.File) -> Callable[[h5py.File], Params] | None:
    if "optimizable_tensors" in file:
        return _ptyrad
    if isinstance(file.get("type"), h5py.Dataset) and text(file["type"]) == "phaser_state":
        return _phaser
    return _py4dstem if any(_groups_named(file, "_object_emd")) else None


def _counts(probe: np.ndarray) -> float:
    """Counts of a pattern: ``N Σ|p|²``, averaged over modes."""
    ny, nx, modes = probe.shape
    return float(ny * nx * (np.abs(probe) ** 2).sum(dtype=np.float64) / modes)


def _assembled(
    obj: np.ndarray, probe: np.ndarray | None, *, orthonormal: bool, distances: Any = ()
) -> Params:
    """Parameters of an object (Mo, Nz, Y, X) and a centred probe (Mp, ny, nx)."""
    slices = obj.shape[1]
    result: Params = {"obj": np.ascontiguousarray(obj.transpose(2, 3, 1, 0)), "num_slices": slices}
    if probe is not None:
        scale = np.sqrt(len(probe))
        if orthonormal:
            scale = scale / np.sqrt(probe.shape[-2] * probe.shape[-1])
        result["probe"] = np.ascontiguousarray(probe.transpose(1, 2, 0)) * scale
        result["probe_is_aberrated"] = True
    gaps = np.atleast_1d(np.asarray(distances, dtype=np.float64))
    if slices > 1 and gaps.size:
        result["slice_distances"] = gaps
    return result


def _pixels(result: Params, size_yx: Any) -> None:
    size_y, size_x = (float(s) for s in np.broadcast_to(size_yx, (2,)))
    result |= {"pixel_size_y_A": size_y, "pixel_size_x_A": size_x}


def _ptyrad(file: h5py.File) -> Params:
    tensors, attributes = file["optimizable_tensors"], file["model_attributes"]
    obj = tensors["obja"][()] * np.exp(1j * tensors["objp"][()])
    occupancy = attributes.get("omode_occu")
    if isinstance(occupancy, h5py.Dataset) and occupancy.shape == obj.shape[:1]:
        # Weights of the intensities; the last slice passes them on unchanged.
        weights = np.asarray(occupancy[()], dtype=np.float64) * len(obj)
        obj[:, -1] *= np.sqrt(weights)[:, None, None]
    probe = tensors["probe"][()]
    if not np.iscomplexobj(probe):
        probe = probe[..., 0] + 1j * probe[..., 1]
    thickness = scalar(tensors, "slice_thickness") or scalar(attributes, "slice_thickness")
    result = _assembled(obj, probe, orthonormal=True, distances=thickness or ())
    result["positions"] = attributes["crop_pos"][()] + np.asarray(
        tensors["probe_pos_shifts"][()], dtype=np.float64
    )
    pixel = scalar(attributes, "dx")
    if pixel:
        _pixels(result, pixel)
    voltage = scalar(file, "params/init_params/probe_kv")
    return result | ({"acc_voltage": voltage} if voltage else {})


def _phaser(file: h5py.File) -> Params:
    state = file["object"]
    obj = state["data"][()]
    thicknesses = state["thicknesses"][()]
    # Our gaps lie between slices; phaser propagates by the thickness of the slice that was passed.
    probe_group = file.get("probe")
    probe = None if probe_group is None else probe_group["data"][()]
    result = _assembled(obj[None], probe, orthonormal=True, distances=thicknesses[:-1])
    sampling = np.broadcast_to(state["sampling"][()], (2,))
    _pixels(result, sampling)
    scan = file.get("scan")
    if scan is not None and probe is not None:
        centres = (scan["data"] if isinstance(scan, h5py.Group) else scan)[()].reshape(-1, 2)
        middle = (np.array(probe.shape[-2:]) - 1) / 2
        result["positions"] = (centres - state["corner"][()]) / sampling - middle
    wavelength = positive(scalar(file, "wavelength"))
    return result | ({} if wavelength is None else {"acc_voltage": _voltage_kV(wavelength)})


def _voltage_kV(wavelength_A: float) -> float:
    """Voltage of a wavelength, the positive root of ``E (E + 2 m c²) = (hc/λ)²``."""
    rest = ELECTRON_REST_keV
    return float(np.sqrt(rest**2 + (HC_keV_A / wavelength_A) ** 2) - rest)


def _py4dstem(file: h5py.File) -> Params:
    group = next(_groups_named(file, "_object_emd")).parent
    obj = group["_object_emd/data"][()]
    if not np.iscomplexobj(obj):
        obj = np.exp(1j * obj)
    obj = obj.reshape(1, *(1,) * (3 - obj.ndim), *obj.shape)
    probe = group["_probe_emd/data"][()] if "_probe_emd" in group else None
    if probe is not None:
        probe = np.fft.fftshift(probe.reshape(-1, *probe.shape[-2:]), axes=(-2, -1))
    setup, made = (
        group.get(f"metadatabundle/{name}_metadata") for name in ("preprocess", "instantiation")
    )
    if setup is not None and "data_transpose" in setup and bool(setup["data_transpose"][()]):
        logger.warning(
            "py4DSTEM had transposed the patterns for this result: set transpose_patterns too"
        )
    distances = _list(made, "slice_thicknesses")
    result = _assembled(obj, probe, orthonormal=False, distances=distances)
    sampling = _list(setup, "sampling")
    if sampling.size:
        _pixels(result, sampling)
    positions = _list(setup, "positions_px")
    if positions.size and probe is not None:
        # Positions are of the centre of the probe, ours of the corner of its window.
        result["positions"] = positions.reshape(-1, 2) - np.array(probe.shape[-2:]) // 2
    energy = positive(scalar(made, "energy"), 1e-3)
    return result | ({} if energy is None else {"acc_voltage": energy})


def _list(group: h5py.Group | None, name: str) -> np.ndarray:
    """Numbers of an entry of EMD metadata: an array, or a group of arrays ``0, 1, ...``."""
    item = None if group is None else group.get(name)
    if isinstance(item, h5py.Group):
        parts = [item[k][()] for k in sorted((k for k in item if k.isdigit()), key=int)]
        item_value = np.asarray(parts)
    else:
        item_value = np.asarray([] if item is None else item[()])
    numeric = item_value.dtype.kind in "iuf"
    return item_value.astype(np.float64) if numeric else np.empty(0)


def _groups_named(file: h5py.File, name: str) -> Iterator[h5py.Group]:
    """Groups of a name, anywhere in a file."""
    found: list[h5py.Group] = []

    def visit(path: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group) and path.split("/")[-1] == name and "data" in item:
            found.append(item)

    file.visititems(visit)
    yield from found
