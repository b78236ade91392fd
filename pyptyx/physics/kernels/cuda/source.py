"""The CUDA source of one layout, and the record through which the host speaks to the kernels.

Every kernel takes a pointer to one record `Task` in device memory and one integer.  All addresses
and numbers that change from batch to batch are in the record, so a captured graph of launches is
replayed for any batch, object or gradient by copying a new record before it.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from pyptyx.physics.kernels.cuda.layout import CHUNK, DATA_TYPES, LOSSES, SUM_THREADS, Layout
from pyptyx.physics.kernels.cuda.transforms import codelets

FIXED_LIMIT = 2.0**46
"""Largest contribution to a sum in fixed point: 65 536 of them fit into a word of 63 bits."""

TASK_FIELDS = (
    ("object", "const Complex*"),  # (slices, rows, columns)
    ("probe", "const Complex*"),  # (modes, ny, nx), waves or spectra / (ny nx)
    ("data", "const void*"),  # (batch, ky, kx)
    ("background", "const float*"),  # (ky, kx), zero beyond the band limit
    ("corners", "const int*"),  # (batch, 2)
    ("shifts", "const double*"),  # (batch, 2)
    ("light", "const double*"),  # (batch,), factors on the intensity
    ("reach", "const int*"),  # (stored,)
    ("propagator_y", "const Complex*"),  # (gaps, ny)
    ("propagator_x", "const Complex*"),  # (gaps, stored)
    ("ramp_y", "Complex*"),  # (batch, ny)
    ("ramp_x", "Complex*"),  # (batch, stored)
    ("wave", "Complex*"),  # (batch, modes, ny, pitch)
    ("incoming", "Complex*"),  # (slices kept, batch, modes, ny, pitch)
    ("loss_parts", "double2*"),  # (batch, groups of columns)
    ("shift_parts", "double2*"),  # (batch, modes, groups of columns)
    ("pull_parts", "double2*"),  # (batch, groups of columns)
    ("tilt_parts", "double2*"),  # (gaps, batch, modes, groups of columns)
    ("slopes", "float*"),  # (batch, ky, kx), derivatives of the loss
    ("probe_parts", "Complex*"),  # (chunks, modes, ny, nx or stored)
    ("object_gradient", "Complex*"),  # (slices, rows, columns)
    ("object_words", "long long*"),  # (slices, rows, columns, 2)
    ("probe_gradient", "Complex*"),  # (modes, ny, nx)
    ("shift_gradient", "double2*"),  # (batch,)
    ("tilt_gradient", "double2*"),  # (gaps, batch), by whole frequencies, NY times too large
    ("slope_sum", "float*"),  # (ky, kx), weighted
    ("pull", "double2*"),  # (batch,), sum of dl/dI times what the waves have in I
    ("result", "double2*"),  # (batch,), loss and sum of squares
    ("overflow", "long long*"),
    ("largest", "unsigned long long*"),
    ("object_rows", "long long"),
    ("object_columns", "long long"),
    ("batch", "long long"),
    ("wants_gradient", "long long"),
    ("data_scale", "double"),
    ("floor", "double"),
    ("weight", "double"),
    ("quanta", "double"),  # fixed-point words per unit
)
"""Fields of `Task` and their C++ types, all of eight bytes; an address of zero is none."""

_NUMPY_TYPES = {"long long": np.int64, "double": np.float64}

TASK_TYPE = np.dtype([(name, _NUMPY_TYPES.get(kind, np.uint64)) for name, kind in TASK_FIELDS])
"""The record as NumPy sees it."""


def cuda_source(layout: Layout) -> str:
    """CUDA source of all kernels for `layout`; it needs no header."""
    y, x = layout.along_y, layout.along_x
    parts = [
        cuda_text("transform.cu"),
        codelets(y, x),
        y.source("AlongY", layout.columns),
        x.source("AlongX", 1),
        cuda_text("loss.cu"),
        _constants(layout),
        _task(),
        *(cuda_text(f"{name}.cu") for name in ("common", "rows", "columns", "sums")),
    ]
    return "\n".join(parts)


def task_record(**values: Any) -> np.ndarray:
    """A record `Task`, () of `TASK_TYPE`; fields that are not given are zero."""
    record = np.zeros((), TASK_TYPE)
    for name, value in values.items():
        record[name] = value
    return record


@cache
def cuda_text(name: str) -> str:
    """One of the ``.cu`` files of this package."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _task() -> str:
    fields = "\n".join(f"    {kind} {name};" for name, kind in TASK_FIELDS)
    return f"struct Task {{\n{fields}\n}};\n"


def _constants(layout: Layout) -> str:
    integers = {
        "NY": layout.shape[0],
        "NX": layout.shape[1],
        "DATA_NY": layout.data_shape[0],
        "DATA_NX": layout.data_shape[1],
        "LOW": layout.low,
        "HIGH": layout.high,
        "PITCH": layout.pitch,
        "MODES": layout.modes,
        "ROWS": layout.rows,
        "COLUMNS": layout.columns,
        "CHUNK": CHUNK,
        "SUM_THREADS": SUM_THREADS,
        # The incoming wave of slice 0 is the probe, unless it has been moved.
        "FIRST_KEPT": 0 if layout.shift else 1,
    }
    lines = [f"constexpr int {name} = {value};" for name, value in integers.items()]
    flags = {
        "DETERMINISTIC": layout.deterministic,
        "BACKGROUND": layout.background,
        "LIGHT": layout.light,
        "TILT": layout.tilt,
    }
    lines += [f"constexpr bool {name} = {str(flag).lower()};" for name, flag in flags.items()]
    lines.append(f"constexpr float FIXED_LIMIT = {FIXED_LIMIT:.1f}f;")
    lines.append(f"constexpr Loss LOSS = {LOSSES[layout.loss]};")
    lines.append(f"typedef {DATA_TYPES[layout.data_type]} Datum;")
    return "\n".join(lines) + "\n"
