"""The CUDA source becomes machine code for every architecture; that needs no GPU."""

import pytest

from pyptyx.physics.grid import Grid
from pyptyx.physics.kernels.cuda.launches import KERNELS
from pyptyx.physics.kernels.cuda.layout import LOSSES, Layout, lit_columns
from pyptyx.physics.kernels.cuda.program import OPTIONS
from pyptyx.physics.kernels.cuda.source import cuda_source
from tests.gpu.emulator_nvrtc import compile_cubin, cupy_nvrtc, kernels, needs_nvrtc

SHARED = 48 * 1024
"""Shared memory of a block on every architecture without asking for more."""

AROUND = dict(crop=(3, 5), background=True, light=True, tilt=True)
"""What a model may have beside the waves."""

# Every architecture, size, loss, kind of data and way of summing at least once.
BUILDS = {
    75: ((64, 96), 1, "lsq_sqrt", "uint16", False),
    80: ((192, 128), 1, "ml", "uint8", True),
    86: ((224, 320), 2, "lsq", "float32", False),
    89: ((384, 160), 1, "lsq_sqrt_2", "uint16", True),
    90: ((128, 256), 1, "lsq_sqrt", "uint16", False),
    100: ((512, 448), 1, "ml", "uint16", False),
    120: ((200, 180), 4, "lsq_sqrt", "uint8", False),
}


def layout(shape, modes, loss, data_type, deterministic):
    low, high = lit_columns(Grid(shape, (0.2, 0.17), 0.025).mask)
    around = AROUND if deterministic or modes > 1 else {}
    return Layout(shape, low, high, modes, loss, data_type, True, deterministic, **around)


@needs_nvrtc
@pytest.mark.parametrize("architecture", BUILDS)
def test_compiles(architecture, record_property):
    cubin, report = compile_cubin(cuda_source(layout(*BUILDS[architecture])), architecture, OPTIONS)
    assert cubin[:4] == b"\x7fELF"
    built = kernels(report)
    record_property("kernels", built)
    assert set(built) == set(KERNELS)
    for name, use in built.items():
        assert use["shared"] <= SHARED, name
        assert use["spilled"] <= 64, name


@needs_nvrtc
@pytest.mark.skipif(cupy_nvrtc() is None, reason="CuPy is not installed")
def test_compiles_through_cupy():
    source = cuda_source(layout((48, 40), 1, "lsq_sqrt", "uint16", False))
    cubin, _ = compile_cubin(source, 90, OPTIONS, through_cupy=True)
    assert cubin[:4] == b"\x7fELF"


def test_the_builds_cover_everything():
    shapes, modes, losses, kinds, sums = zip(*BUILDS.values(), strict=True)
    assert set(losses) == set(LOSSES)
    assert set(kinds) == {"uint8", "uint16", "float32"}
    assert set(sums) == {True, False}
    assert {1, 2, 4} <= set(modes)
    assert {64, 96, 128, 160, 192, 256, 320, 384, 512} <= {n for s in shapes for n in s}


@needs_nvrtc
def test_an_error_in_the_source_is_reported():
    with pytest.raises(AssertionError, match="undefined"):
        compile_cubin('extern "C" __global__ void k() { f(); }', 90, OPTIONS)
