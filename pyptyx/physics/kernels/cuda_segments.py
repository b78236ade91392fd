"""Translations of `reference` for CUDA: one kernel per segment, nothing stored between.

The source ``segments.cu`` is compiled at run time for single and for double precision.  As for the
kernels in `pyptyx.physics.kernels.cuda`, every kernel takes a pointer to one record in device
memory and one integer.  The integer tables of a batch (corners, rows, extents) follow the record,
so that a call sends one message to the device, from page-locked memory and without waiting.

Sums over the batch have a fixed order, also those into the object, where every pixel belongs to one
thread block that looks for the windows above it.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.errors import Problem, ShapeError
from pyptyx.physics.grid import Band
from pyptyx.physics.kernels import reference
from pyptyx.physics.kernels.cuda.launches import Launch
from pyptyx.physics.kernels.cuda.workspace import address
from pyptyx.physics.kernels.segment_source import (
    LANES,
    LOSSES,
    PIXELS,
    THREADS,
    blocks,
    in_order,
    per_element,
    per_pixel,
    segments_source,
    task_record,
)

Array = Any


class CudaSegments:
    """The segments on one CUDA device, by the names and signatures of `reference`.

    Nothing here waits for the device.  Arrays that are changed have to be contiguous; others are
    copied if they are not.

    Parameters
    ----------
    backend : Backend
        A CUDA device.
    ordered : bool
        Whether the object's gradient is summed in an order that does not change; otherwise by
        atomic additions, which round differently from run to run.
    """

    def __init__(self, backend: Backend, ordered: bool = True) -> None:
        self._backend = backend
        self._xp = backend.xp
        self._ordered = ordered
        self._functions: dict[tuple[np.dtype[Any], str], Any] = {}

    def transmit(self, incoming: Array, obj: Array, z: int, corners: np.ndarray) -> Array:
        """See `reference.transmit`."""
        window, dtype = incoming.shape[-2:], incoming.dtype
        incoming, obj = self._read(incoming, dtype), self._read(obj, dtype)
        area = _covered(corners, window, obj.shape)
        out = self._xp.empty((len(corners), incoming.shape[1], len(obj), *window), dtype)
        fields = _of_wave(out) | _of_incoming(incoming) | _of_object(obj) | area
        self._run(dtype, fields, {"corners": corners}, per_pixel("transmit", out.shape, z))
        return out

    def transmit_vjp(
        self,
        incoming: Array,
        obj: Array,
        z: int,
        corners: np.ndarray,
        g: Array,
        g_object: Array | None,
    ) -> None:
        """See `reference.transmit_vjp`; the order of summation is that of the device."""
        dtype = g.dtype
        incoming, obj = self._read(incoming, dtype), self._read(obj, dtype)
        area = _covered(corners, g.shape[-2:], obj.shape)
        fields = _of_wave(g) | _of_incoming(incoming) | _of_object(obj) | area
        launch = per_pixel("transmit_vjp", g.shape, z)
        if g_object is not None:
            fields["target"] = _changed(g_object, dtype)
            if self._ordered:
                launch = in_order("transmit_vjp_in_order", len(obj), area, z)
        self._run(dtype, fields, {"corners": corners}, launch)

    def compare(
        self,
        spectrum: Array,
        data: Array,
        mask: Array,
        band: Band,
        loss: reference.Loss,
        weight: float,
    ) -> tuple[Array, Array]:
        """See `reference.compare`; where the mask is zero, the wave is not read."""
        if loss.name not in LOSSES:
            return reference.compare(spectrum, data, mask, band, loss, weight)
        dtype, real = spectrum.dtype, spectrum.real.dtype
        batch, modes = len(spectrum), spectrum.shape[1] * spectrum.shape[2]
        data, mask = self._read(data, real), self._read(mask, real)
        tiles = math.ceil(math.prod(mask.shape) / (PIXELS * THREADS))
        parts = self._xp.empty((batch, tiles, 2), np.float64)
        result = self._xp.empty((2, batch), np.float64)
        fields = _of_wave(spectrum) | {
            "modes": modes,
            "data": address(data),
            "mask": address(mask),
            "loss_parts": address(parts),
            "result": address(result),
            "loss": LOSSES[loss.name],
            "floor": loss.constant,
            "gain": 2 * weight / modes,
        }
        launches = blocks("compare", batch * tiles), per_element("sum_losses", batch)
        self._run(dtype, fields, {}, *launches)
        return result[0], result[1]

    def imag_marginals(self, a: Array, g: Array, band: Band | None = None) -> tuple[Array, Array]:
        """See `reference.imag_marginals`; `a` has the modes of `g`, and one or all patterns."""
        batch, (ny, nx) = len(g), g.shape[-2:]
        modes = math.prod(g.shape[1:-2])
        a, g = self._read(a, g.dtype), self._read(g, g.dtype)
        if a.shape[1:] != g.shape[1:]:
            raise ShapeError(Problem("a", f"(1 or B, {g.shape[1:]})", str(a.shape)))
        groups = math.ceil(ny / LANES)
        parts = self._xp.empty((batch, groups, nx), np.float64)
        result = self._xp.empty(batch * (ny + nx), np.float64)
        fields = {
            "incoming": address(a),
            "step_pattern": 0 if len(a) == 1 else modes * ny * nx,
            "wave": address(g),
            "batch": batch,
            "modes": modes,
            "ny": ny,
            "nx": nx,
            "column_parts": address(parts),
            "result": address(result),
        }
        extent = np.repeat([[nx, 0]], ny, axis=0) if band is None else band.extent
        launches = blocks("imag_marginals", batch * groups), per_element("sum_columns", batch * nx)
        self._run(g.dtype, fields, {"extent": extent}, *launches)
        return result[: batch * ny].reshape(batch, ny), result[batch * ny :].reshape(batch, nx)

    def modulate(self, a: Array, rows: np.ndarray, e_y: Array, e_x: Array, band: Band) -> Array:
        """See `reference.modulate`."""
        a, (e_y, e_x) = self._read(a, a.dtype), self._ramps(e_y, e_x, a.dtype)
        _check_rows(rows, len(a))
        out = self._xp.empty((len(rows), *a.shape[1:]), a.dtype)
        fields = {
            **_of_wave(out[:, :, None]),
            "incoming": address(a),
            "ramp_y": address(e_y),
            "ramp_x": address(e_x),
        }
        tables = {"rows": rows, "extent": band.extent}
        self._run(a.dtype, fields, tables, per_pixel("modulate", out.shape))
        return out

    def modulate_vjp(
        self, g: Array, rows: np.ndarray, e_y: Array, e_x: Array, target: Array, band: Band
    ) -> None:
        """See `reference.modulate_vjp`; shares of the batch are summed side by side."""
        e_y, e_x = self._ramps(e_y, e_x, target.dtype)
        ramps = {"ramp_y": address(e_y), "ramp_x": address(e_x)}
        tables = {"rows": rows, "extent": band.extent}
        self._add_by_row("modulate_vjp", g, target, ramps, tables)

    def add_rows(self, g: Array, rows: np.ndarray, target: Array) -> None:
        """See `reference.add_rows`; shares of the batch are summed side by side."""
        self._add_by_row("add_rows", g, target, {}, {"rows": rows})

    def gather(self, obj: Array, corners: np.ndarray, window: tuple[int, int]) -> Array:
        """See `reference.gather`."""
        obj = self._read(obj, obj.dtype)
        area, planes = _covered(corners, window, obj.shape), _planes(obj)
        out = self._xp.empty((len(corners), *obj.shape[:-2], *window), obj.dtype)
        fields = (
            area | _of_object(planes) | _of_wave(out.reshape(len(corners), 1, len(planes), *window))
        )
        self._run(obj.dtype, fields, {"corners": corners}, per_pixel("gather", out.shape))
        return out

    def scatter_add(self, target: Array, corners: np.ndarray, patches: Array) -> None:
        """See `reference.scatter_add`; shares of the batch are summed side by side."""
        dtype, window = target.dtype, patches.shape[-2:]
        patches = self._read(patches, dtype)
        area, planes = _covered(corners, window, target.shape), _planes(target)
        fields = {
            **_of_object(planes),
            **area,
            "incoming": address(patches),
            "target": _changed(target, dtype),
            "batch": len(corners),
            "object_modes": len(planes),
            "ny": window[0],
            "nx": window[1],
        }
        launch = in_order("scatter_add", len(planes), area)
        self._run(dtype, fields, {"corners": corners}, launch)

    def _add_by_row(
        self,
        kernel: str,
        g: Array,
        target: Array,
        fields: dict[str, Any],
        tables: dict[str, np.ndarray],
    ) -> None:
        """Add every pattern of `g` (B, Mp, ny, nx) to its row of `target` (Ns, Mp, ny, nx)."""
        scenarios, modes, ny, nx = target.shape
        g = self._read(g, target.dtype)
        _check_rows(tables["rows"], scenarios)
        area = {"area_rows": ny, "area_columns": nx}
        shape = {"batch": len(g), "modes": modes, "ny": ny, "nx": nx}
        places = {"incoming": address(g), "target": _changed(target, target.dtype)}
        launch = in_order(kernel, scenarios * modes, area)
        self._run(target.dtype, fields | area | shape | places, tables, launch)

    def _ramps(self, e_y: Array, e_x: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        return self._read(e_y, dtype), self._read(e_x, dtype)

    def _read(self, a: Array, dtype: np.dtype[Any]) -> Array:
        """`a` as a kernel reads it; a copy only where it has to be."""
        return self._xp.ascontiguousarray(a, dtype)

    def _run(
        self,
        dtype: np.dtype[Any],
        fields: dict[str, Any],
        tables: dict[str, np.ndarray],
        *launches: Launch,
    ) -> None:
        """Send one record with its tables and enqueue the kernels that read it."""
        flat = [np.asarray(table, np.int32).reshape(-1) for table in tables.values()]
        starts = accumulate((table.size for table in flat), initial=0)
        record = task_record(**fields, **dict(zip(tables, starts, strict=False)))
        task = self._backend.asarray(np.concatenate([record, *flat]))
        for launch in launches:
            function = self._function(np.dtype(dtype), launch.kernel)
            function(launch.grid, (launch.threads, 1, 1), (task, np.int32(launch.number)))

    def _function(self, dtype: np.dtype[Any], name: str) -> Any:
        if (dtype, name) not in self._functions:
            module = self._backend.raw_module(segments_source(dtype))
            self._functions[dtype, name] = module.get_function(name)
        return self._functions[dtype, name]


def _of_wave(wave: Array) -> dict[str, int]:
    """A wave (B, Mp, Mo, ny, nx) that is written."""
    batch, modes, object_modes, ny, nx = wave.shape
    return {
        "wave": address(wave),
        "batch": batch,
        "modes": modes,
        "object_modes": object_modes,
        "ny": ny,
        "nx": nx,
    }


def _of_incoming(wave: Array) -> dict[str, int]:
    """A wave (B or 1, Mp, Mo or 1, ny, nx) that is read."""
    patterns, modes, object_modes, ny, nx = wave.shape
    step = ny * nx
    return {
        "incoming": address(wave),
        "step_object": 0 if object_modes == 1 else step,
        "step_mode": object_modes * step,
        "step_pattern": 0 if patterns == 1 else modes * object_modes * step,
    }


def _of_object(obj: Array) -> dict[str, int]:
    """An object (Mo, Nz, Y, X)."""
    _modes, slices, rows, columns = obj.shape
    return {
        "object": address(obj),
        "slices": slices,
        "object_rows": rows,
        "object_columns": columns,
    }


def _planes(obj: Array) -> Array:
    """The planes (..., Y, X) of an array as modes of an object of one slice."""
    return obj.reshape(-1, 1, *obj.shape[-2:])


def _changed(a: Array, dtype: np.dtype[Any]) -> int:
    """Address of an array that a kernel changes."""
    if a.dtype != dtype:
        raise ValueError(f"a kernel for {dtype} was to change an array of {a.dtype}")
    return address(a)


def _covered(
    corners: np.ndarray, window: tuple[int, int], shape: tuple[int, ...]
) -> dict[str, int]:
    """The smallest area of an object (..., Y, X) around all windows.

    Windows beyond the object are refused: they would be read and written in foreign memory.
    """
    (top, left), (down, across) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    bottom, right = down + window[0], across + window[1]
    if min(top, left) < 0 or bottom > shape[-2] or right > shape[-1]:
        raise ShapeError(
            Problem(
                "corners",
                f"windows of {tuple(window)} inside the object of {tuple(shape[-2:])}",
                f"corners from {(top, left)} to {(down, across)}",
            )
        )
    return {
        "area_top": top,
        "area_left": left,
        "area_rows": bottom - top,
        "area_columns": right - left,
    }


def _check_rows(rows: np.ndarray, count: int) -> None:
    if (rows < 0).any() or (rows >= count).any():
        raise ShapeError(
            Problem("scenarios", f"rows 0 to {count - 1}", f"{rows.min()} to {rows.max()}")
        )
