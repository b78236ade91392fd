"""The CUDA translations of the segments: the same source on the CPU, as machine code, on a GPU."""

import inspect

import numpy as np
import pytest

import pyptyx
from pyptyx.backend import Backend, CupyBackend, cuda_device_count
from pyptyx.engine import setup
from pyptyx.errors import DeviceError, ShapeError
from pyptyx.physics.grid import Grid
from pyptyx.physics.kernels import reference, select
from pyptyx.physics.kernels.cuda_segments import CudaSegments
from pyptyx.physics.kernels.reference import Loss
from pyptyx.physics.kernels.segment_source import (
    KERNELS,
    LOSSES,
    TASK,
    TASK_FIELDS,
    segments_source,
    task_record,
)
from tests.golden.test_evaluation import CASES
from tests.gpu.emulator import Module, Stream, host_library, needs_compiler
from tests.gpu.emulator_nvrtc import compile_cubin, kernels, needs_nvrtc
from tests.gpu.guard import GuardArray, GuardBackend

GRIDS = [Grid((13, 22), (0.31, 0.24), 0.025), Grid((38, 35), (0.22, 0.35), 0.037)]
CORNERS = np.array([[0, 0], [5, 3], [2, 6], [2, 6], [1, 2], [3, 7], [4, 1], [5, 7], [0, 4]])
BATCH = len(CORNERS)
MODES, OBJECT_MODES, SLICES = 2, 3, 4
TOLERANCE = {np.complex64: 1e-6, np.complex128: 1e-14}
OPTIONS = ("--std=c++17",)
SEGMENTS = (
    "transmit", "transmit_vjp", "compare", "imag_marginals", "modulate", "modulate_vjp",
    "gather", "scatter_add", "add_rows",
)  # fmt: skip


class EmulatedDevice(GuardBackend):
    """A device whose CUDA source runs on the CPU; it remembers what was launched."""

    name = "emulated:0"
    runs_cuda = True

    def __init__(self):
        super().__init__()
        self.launched = []
        self.sent = 0

    def asarray(self, a, dtype=None):
        """Send to the device."""
        self.sent += 1
        return super().asarray(a, dtype)

    def raw_module(self, source, options=OPTIONS):
        """The source compiled for the host."""
        return _Recording(Module(host_library(source), Stream()), self.launched)


class _Recording:
    def __init__(self, module, launched):
        self._module = module
        self._launched = launched

    def get_function(self, name):
        kernel = self._module.get_function(name)

        def launch(grid, block, args):
            self._launched.append((name, grid[0], int(args[1])))
            kernel(grid, block, args)

        return launch


@pytest.fixture(
    params=[
        pytest.param("emulated", marks=needs_compiler),
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not cuda_device_count(), reason="needs a CUDA device"),
            ],
        ),
    ]
)
def backend(request):
    device = EmulatedDevice() if request.param == "emulated" else CupyBackend(0)
    with device.context():
        yield device


@pytest.fixture(params=GRIDS, ids=["13x22", "38x35"])
def grid(request):
    return request.param


@pytest.fixture(params=[np.complex64, np.complex128])
def dtype(request):
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def waves(rng, dtype, *shape):
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)


def run(backend, kernels, name, *arguments):
    """Call one segment; what it returns and its arrays afterwards, without tables, on the host."""
    placed = [_place(backend, a) for a in arguments]
    out = getattr(kernels, name)(*placed)
    out = out if isinstance(out, tuple) else (out,)
    arrays = [a for a in (*out, *placed) if hasattr(a, "dtype") and a.dtype.kind != "i"]
    return [backend.to_host(a) for a in arrays]


def _place(backend, a):
    """Integer tables stay on the host."""
    if isinstance(a, np.ndarray):
        return a.copy() if a.dtype.kind == "i" else backend.asarray(a.copy())
    return a


def assert_same(backend, name, *arguments, segments=None, where=None):
    """A segment and the reference leave the same numbers; `where` limits the comparison."""
    got = run(backend, segments or CudaSegments(backend), name, *arguments)
    expected = run(Backend(), reference, name, *arguments)
    assert len(got) == len(expected) > 0
    tolerance = TOLERANCE[next(a.dtype.type for a in expected if a.dtype.kind == "c")]
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if where is not None and a.shape[-2:] == where.shape:
            a, b = a[..., where], b[..., where]
        np.testing.assert_allclose(a, b, atol=20 * tolerance * abs(b).max(), rtol=0)


@pytest.mark.parametrize("shared", [True, False], ids=["one for all", "one each"])
@pytest.mark.parametrize("common", [True, False], ids=["first slice", "later slice"])
def test_transmit(backend, rng, grid, dtype, shared, common):
    ny, nx = grid.shape
    obj = waves(rng, dtype, OBJECT_MODES, SLICES, ny + 5, nx + 7)
    incoming = waves(
        rng, dtype, 1 if shared else BATCH, MODES, 1 if common else OBJECT_MODES, ny, nx
    )
    g = waves(rng, dtype, BATCH, MODES, OBJECT_MODES, ny, nx)
    target = waves(rng, dtype, *obj.shape)
    assert_same(backend, "transmit", incoming, obj, 2, CORNERS)
    for g_object in (target, None):
        assert_same(backend, "transmit_vjp", incoming, obj, 2, CORNERS, g, g_object)


def test_transmit_vjp_by_atomic_additions(backend, rng, grid, dtype):
    ny, nx = grid.shape
    obj = waves(rng, dtype, OBJECT_MODES, SLICES, ny + 5, nx + 7)
    incoming = waves(rng, dtype, BATCH, MODES, OBJECT_MODES, ny, nx)
    g, target = waves(rng, dtype, *incoming.shape), waves(rng, dtype, *obj.shape)
    arguments = incoming, obj, 3, CORNERS, g, target
    segments = CudaSegments(backend, ordered=False)
    assert_same(backend, "transmit_vjp", *arguments, segments=segments)


def test_a_batch_that_does_not_begin_at_the_corner(backend, rng, dtype):
    """The area that is searched for windows is as large as the windows need."""
    obj = waves(rng, dtype, OBJECT_MODES, SLICES, 71, 94)
    corners = np.array([[31, 20], [33, 59], [52, 44]])
    g = waves(rng, dtype, 3, MODES, OBJECT_MODES, 19, 35)
    target = waves(rng, dtype, *obj.shape)
    assert_same(backend, "transmit_vjp", g.copy(), obj, 1, corners, g, target)


@pytest.mark.parametrize("beyond", [True, False], ids=["counts outside the band", "none outside"])
@pytest.mark.parametrize(
    "loss", [*(Loss(name) for name in ("lsq_sqrt", "ml", "lsq", "lsq_sqrt_2", "gauss_compressed")),
             Loss("ml", 0.3), Loss("ml_shifted", 0.2)], ids=str,
)  # fmt: skip
def test_compare(backend, rng, grid, dtype, loss, beyond):
    spectrum = waves(rng, dtype, BATCH, MODES, OBJECT_MODES, *grid.shape)
    spectrum[0, :, :, 0] = 0  # no light where electrons were counted
    mask = grid.mask.astype(spectrum.real.dtype)
    mask[0, 0] = 0.5
    data = rng.choice([0.0, 0.4, 2.0, 7.0], (BATCH, *grid.shape)).astype(mask.dtype)
    if not beyond:
        data *= grid.mask
    assert_same(backend, "compare", spectrum, data, mask, grid.band, loss, 0.7)


def test_nan_reaches_the_loss(backend, rng, grid, dtype):
    spectrum = waves(rng, dtype, 2, 1, 1, *grid.shape)
    spectrum[1, 0, 0, 0, 1] = np.nan
    mask = grid.mask.astype(spectrum.real.dtype)
    data = np.ones((2, *grid.shape), mask.dtype)
    for name in LOSSES:
        loss = Loss(name, 0.1)
        value, sse, *_ = run(
            backend, CudaSegments(backend), "compare", spectrum, data, mask, grid.band, loss, 1.0
        )
        assert list(np.isnan(value)) == list(np.isnan(sse)) == [False, True], name


@pytest.mark.parametrize("scenarios", [1, 4])
def test_modulate(backend, rng, grid, dtype, scenarios):
    ny, nx = grid.shape
    a = (waves(rng, dtype, scenarios, MODES, ny, nx) * grid.mask).astype(dtype)
    rows = rng.integers(0, scenarios, BATCH)
    e_y, e_x = waves(rng, dtype, BATCH, ny), waves(rng, dtype, BATCH, nx)
    assert_same(backend, "modulate", a, rows, e_y, e_x, grid.band)
    g, target = waves(rng, dtype, BATCH, MODES, ny, nx), waves(rng, dtype, *a.shape)
    assert_same(backend, "modulate_vjp", g, rows, e_y, e_x, target, grid.band, where=grid.mask)
    assert_same(backend, "add_rows", g, rows, target)


@pytest.mark.parametrize("axes", [(), (2,), (2, 3)])
@pytest.mark.parametrize("shared", [True, False], ids=["one for all", "one each"])
@pytest.mark.parametrize("limited", [True, False], ids=["band", "all"])
def test_marginals(backend, rng, grid, dtype, axes, shared, limited):
    a = waves(rng, dtype, 1 if shared else BATCH, *axes, *grid.shape)
    g = waves(rng, dtype, BATCH, *axes, *grid.shape)
    if limited:
        a *= grid.mask
    assert_same(backend, "imag_marginals", a, g, grid.band if limited else None)


@pytest.mark.parametrize("axes", [(), (3,), (3, 2)])
def test_windows(backend, rng, grid, dtype, axes):
    ny, nx = grid.shape
    obj = waves(rng, dtype, *axes, ny + 5, nx + 7)
    patches = waves(rng, dtype, BATCH, *axes, ny, nx)
    assert_same(backend, "gather", obj, CORNERS, (ny, nx))
    assert_same(backend, "scatter_add", obj, CORNERS, patches)


def test_names_and_signatures_are_those_of_the_reference():
    public = [n for n, _ in inspect.getmembers(CudaSegments, inspect.isfunction) if n[0] != "_"]
    assert set(public) == set(SEGMENTS)
    for name in SEGMENTS:
        expected = inspect.signature(getattr(reference, name)).parameters
        got = inspect.signature(getattr(CudaSegments, name)).parameters
        assert list(got) == ["self", *expected], name


def test_the_translation_for_the_cpu_has_the_same_names():
    pytest.importorskip("numba")
    fast_cpu = select(Backend("auto"))
    for name in SEGMENTS:
        expected = inspect.signature(getattr(reference, name)).parameters
        assert list(inspect.signature(getattr(fast_cpu, name)).parameters) == list(expected), name


def test_selection():
    assert isinstance(select(EmulatedDevice()), CudaSegments)
    assert select(GuardBackend()) is select(Backend()) is reference
    with pytest.raises(DeviceError, match="cpu: expected a CUDA device"):
        Backend().raw_module("")


class FakeDevice:
    """A device that knows whether it is the current one."""

    def __init__(self, number):
        self.number = number
        self.entered = 0

    def __enter__(self):
        self.entered += 1

    def __exit__(self, *exc):
        self.entered -= 1


class FakeCupy:
    """What a `CupyBackend` needs from CuPy to send arrays and to compile."""

    def __init__(self):
        self.cuda, self.ndarray = self, GuardArray
        self.devices = {}
        self.stream = FakeDevice(None)
        self.compiled = []

    def Device(self, number):
        return self.devices.setdefault(number, FakeDevice(number))

    def Stream(self, non_blocking):
        return self.stream

    def asarray(self, a, dtype):
        assert self.devices[3].entered == self.stream.entered == 1
        return np.asarray(a, dtype).view(GuardArray)

    def RawModule(self, code, options):
        self.compiled.append((code, options))
        return object()


def test_one_module_per_source_and_arrays_on_the_device(monkeypatch):
    fake = FakeCupy()
    monkeypatch.setattr("pyptyx.backend._cupy", lambda: fake)
    device = CupyBackend(3)
    assert device.runs_cuda
    assert isinstance(select(device), CudaSegments)
    assert device.raw_module("a") is device.raw_module("a")
    assert device.raw_module("a", ()) is not device.raw_module("a")
    assert fake.compiled == [("a", OPTIONS), ("a", ())]
    # Also outside of the device's context, where constants are made.
    assert isinstance(device.asarray(np.arange(3)), GuardArray)
    assert fake.devices[3].entered == fake.stream.entered == 0


@needs_compiler
@pytest.mark.parametrize(
    "bad", [[[-1, 0]], [[0, 8]], [[6, 0]]], ids=["before", "beyond right", "beyond below"]
)
def test_windows_beyond_the_object_are_refused(bad, rng):
    """Nothing else keeps a kernel from foreign memory."""
    device, corners = EmulatedDevice(), np.array(bad)
    obj = device.asarray(waves(rng, np.complex64, 1, 1, 18, 29))
    wave = device.asarray(waves(rng, np.complex64, 1, 1, 1, 13, 22))
    kernels = CudaSegments(device)
    for call in (
        lambda: kernels.transmit(wave, obj, 0, corners),
        lambda: kernels.transmit_vjp(wave, obj, 0, corners, wave, obj),
        lambda: kernels.gather(obj, corners, (13, 22)),
        lambda: kernels.scatter_add(obj, corners, wave),
    ):
        with pytest.raises(ShapeError, match=r"windows of \(13, 22\) inside"):
            call()
    with pytest.raises(ShapeError, match="rows 0 to 0"):
        kernels.add_rows(wave[:, 0], np.array([1]), wave[:, 0])
    assert not device.launched


@needs_compiler
def test_arrays_that_kernels_can_not_change_are_refused(rng):
    device = EmulatedDevice()
    kernels, corners = CudaSegments(device), np.zeros((1, 2), int)
    wave = device.asarray(waves(rng, np.complex64, 1, 2, 1, 13, 22))
    obj = device.asarray(waves(rng, np.complex64, 1, 1, 18, 29))
    with pytest.raises(ValueError, match="contiguous"):
        kernels.transmit_vjp(wave[:, :1], obj, 0, corners, wave[:, ::2, :, :, ::2], None)
    with pytest.raises(ValueError, match="array of complex128"):
        kernels.transmit_vjp(wave, obj, 0, corners, wave, obj.astype(complex))


@needs_compiler
def test_launches(rng):
    """One message per call, and grids that cover every pixel but no more than they have to."""
    device = EmulatedDevice()
    kernels = CudaSegments(device)
    dtype, (ny, nx) = np.complex64, (38, 35)
    obj = device.asarray(waves(rng, dtype, 3, 2, ny + 5, nx + 7))
    wave = device.asarray(waves(rng, dtype, BATCH, 2, 3, ny, nx))
    before = device.sent
    kernels.transmit(wave, obj, 1, CORNERS)
    kernels.transmit_vjp(wave, obj, 1, CORNERS, wave, None)
    kernels.transmit_vjp(wave, obj, 1, CORNERS, wave, obj)
    assert device.sent - before == 3
    tiles, columns = -(-ny * nx // 256), -(-(nx + 7) // 32)
    assert device.launched == [
        ("transmit", BATCH * tiles, 1),
        ("transmit_vjp", BATCH * tiles, 1),
        ("transmit_vjp_in_order", 3 * (ny + 5) * columns, 1),
    ]


@needs_compiler
def test_views_and_other_precisions_are_read(rng):
    """Arrays that are only read may have any layout and precision."""
    device = EmulatedDevice()
    obj, wave = waves(rng, np.complex128, 1, 3, 18, 29), waves(rng, np.complex64, 1, 1, 1, 13, 44)
    corners = np.array([[1, 2], [3, 4]])
    got = CudaSegments(device).transmit(
        device.asarray(wave)[..., ::2], device.asarray(obj), 1, corners.astype(np.int16)
    )
    expected = reference.transmit(wave[..., ::2], obj.astype(np.complex64), 1, corners)
    np.testing.assert_allclose(device.to_host(got), expected, rtol=1e-5)


@needs_compiler
@pytest.mark.parametrize(
    "case", ["lsq_sqrt", "ml", "nz3 mp2 mo3 w.3", "tilts dists edge", "sb mp2 mo2", "no shift",
             "tilts mp2 tm4"],
)  # fmt: skip
def test_evaluation(case, monkeypatch):
    """The engine on a device of which every segment is a CUDA kernel."""
    device = EmulatedDevice()
    expected = pyptyx.loss_and_gradient(CASES[case] | {"kernels": "reference"})
    monkeypatch.setattr(setup, "make_backends", lambda devices, prefer, kernels: [device])
    got = pyptyx.loss_and_gradient(CASES[case])
    assert {"transmit", "transmit_vjp_in_order"} <= {name for name, _, _ in device.launched}
    assert got[0] == pytest.approx(expected[0], rel=1e-12)
    for key, value in expected[2].items():
        np.testing.assert_allclose(got[2][key], value, rtol=1e-9, atol=1e-9 * abs(value).max())


def test_fields_of_the_record():
    assert TASK.size == 8 * len(TASK_FIELDS)
    record = task_record(incoming=2**63, area_left=-3, gain=0.25)
    assert record.view(np.uint64)[0] == 2**63
    assert record.view(np.int64)[[n for n, _ in TASK_FIELDS].index("area_left")] == -3
    assert record.view(float)[-1] == 0.25


@needs_nvrtc
@pytest.mark.parametrize("architecture", [75, 80, 86, 89, 90, 100, 120])
def test_compiles(architecture, dtype, record_property):
    cubin, report = compile_cubin(segments_source(np.dtype(dtype)), architecture, OPTIONS)
    assert cubin[:4] == b"\x7fELF"
    built = kernels(report)
    record_property("kernels", built)
    assert set(built) == set(KERNELS)
    for name, use in built.items():
        assert use["spilled"] <= 64, name
        assert use["shared"] <= 8192, name
        assert use["registers"] <= (64 if dtype is np.complex64 else 96), name
