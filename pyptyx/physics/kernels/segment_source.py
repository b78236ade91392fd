"""The CUDA source of the segments, the record its kernels read, and the shapes of their grids."""

from __future__ import annotations

import math
import struct
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from pyptyx.physics.kernels.cuda.launches import Launch

THREADS = 256
"""Threads of a block."""

COLUMNS = 32
"""Threads side by side along x, where a block is more than a piece of one pattern."""

LANES = THREADS // COLUMNS
"""Shares of the batch, or rows, beside each other in such a block."""

PIXELS = 4
"""Pixels of one thread of `compare`."""

KERNELS = (
    "transmit", "transmit_vjp", "transmit_vjp_in_order", "modulate", "modulate_vjp",
    "gather", "scatter_add", "add_rows", "compare", "sum_losses", "imag_marginals", "sum_columns",
)  # fmt: skip
"""Names of all kernels."""

LOSSES = {"lsq_sqrt": 0, "ml": 1, "lsq": 2, "lsq_sqrt_2": 3, "ml_shifted": 4}
"""The losses that `CudaSegments.compare` knows, by their number there."""

TASK_FIELDS = (
    ("incoming", "const Complex*"),  # see the steps
    ("object", "const Complex*"),  # (object_modes, slices, object_rows, object_columns)
    ("wave", "Complex*"),  # (batch, modes, object_modes, ny, nx)
    ("target", "Complex*"),  # gradient that is added to, or null
    ("ramp_y", "const Complex*"),  # (batch, ny)
    ("ramp_x", "const Complex*"),  # (batch, nx)
    ("data", "const Real*"),  # (batch, ny, nx)
    ("mask", "const Real*"),  # (ny, nx)
    ("loss_parts", "double2*"),  # (batch, blocks)
    ("column_parts", "double*"),  # (batch, groups of rows, nx)
    ("result", "double*"),
    ("corners", "long long"),  # tables, counted from the end of the record: (batch, 2)
    ("rows", "long long"),  # (batch,)
    ("extent", "long long"),  # (ny, 2)
    ("batch", "long long"),
    ("modes", "long long"),
    ("object_modes", "long long"),
    ("ny", "long long"),
    ("nx", "long long"),
    ("step_pattern", "long long"),  # of the incoming wave
    ("step_mode", "long long"),
    ("step_object", "long long"),
    ("slices", "long long"),
    ("object_rows", "long long"),
    ("object_columns", "long long"),
    ("area_top", "long long"),  # where sums over the batch are formed
    ("area_left", "long long"),
    ("area_rows", "long long"),
    ("area_columns", "long long"),
    ("loss", "long long"),
    ("floor", "double"),
    ("gain", "double"),
)
"""Fields of `Task` and their C++ types, all of eight bytes; an address of zero is none."""

_FORMATS = {"long long": "q", "double": "d"}

TASK = struct.Struct("".join(_FORMATS.get(kind, "Q") for _, kind in TASK_FIELDS))
"""The layout of the record."""


def task_record(**values: Any) -> np.ndarray:
    """A record `Task` as int32; fields that are not given are zero."""
    return np.frombuffer(TASK.pack(*(values.get(name, 0) for name, _ in TASK_FIELDS)), np.int32)


@cache
def segments_source(dtype: np.dtype[Any]) -> str:
    """CUDA source of all segments for complex numbers of `dtype`; it needs no header."""
    single = dtype == np.complex64
    real = "float" if single else "double"
    numbers = {"THREADS": THREADS, "COLUMNS": COLUMNS, "LANES": LANES, "PIXELS": PIXELS}
    return "\n".join(
        [
            f"#define VECTOR_ATOMICS {int(single)}",
            f"typedef {real} Real;",
            f"typedef {real}2 Complex;",
            *(f"constexpr int {name} = {value};" for name, value in numbers.items()),
            "struct Task {",
            *(f"    {kind} {name};" for name, kind in TASK_FIELDS),
            "};",
            files(__package__).joinpath("segments.cu").read_text(encoding="utf-8"),
        ]
    )


def blocks(kernel: str, count: int, number: int = 0) -> Launch:
    """`count` blocks of `THREADS`."""
    return Launch(kernel, (count, 1, 1), THREADS, number)


def per_element(kernel: str, count: int) -> Launch:
    """One thread for each of `count` elements."""
    return blocks(kernel, math.ceil(count / THREADS))


def per_pixel(kernel: str, shape: tuple[int, ...], z: int = 0) -> Launch:
    """One thread per pixel of every pattern of a wave; blocks do not cross patterns."""
    return blocks(kernel, shape[0] * math.ceil(shape[-2] * shape[-1] / THREADS), z)


def in_order(kernel: str, planes: int, area: dict[str, int], z: int = 0) -> Launch:
    """`LANES` threads per pixel of an area of every plane."""
    tiles = math.ceil(area["area_columns"] / COLUMNS)
    return blocks(kernel, planes * area["area_rows"] * tiles, z)
