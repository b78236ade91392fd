"""The CPU translations do what the reference kernels do."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.fft

from pyptyx.backend import Backend
from pyptyx.physics.grid import Band, Grid
from pyptyx.physics.kernels import reference
from pyptyx.physics.kernels.reference import Loss

GRIDS = [Grid((12, 18), (0.31, 0.24), 0.025), Grid((15, 11), (0.22, 0.35), 0.037)]
CORNERS = np.array([[0, 0], [5, 3], [2, 6], [2, 6], [1, 2]])
BATCH = len(CORNERS)
LOSSES = [Loss(n) for n in ("lsq_sqrt", "ml", "lsq", "lsq_sqrt_2", "ml_shifted", "lsq_compressed")]
LOSSES += [Loss("ml", 0.3), Loss("ml_shifted", 0.4)]
TOLERANCE = {np.complex64: 3e-6, np.complex128: 1e-13}


@pytest.fixture(params=GRIDS, ids=["12x18", "15x11"])
def grid(request):
    return request.param


@pytest.fixture(params=[np.complex64, np.complex128])
def dtype(request):
    return request.param


@pytest.fixture
def fast():
    pytest.importorskip("numba")
    from pyptyx.physics.kernels import fast_cpu

    return fast_cpu


@pytest.fixture
def compiled(fast):
    return importlib.import_module("pyptyx.compiled")


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def waves(rng, dtype, *shape):
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)


def assert_same(got, expected, dtype):
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, atol=TOLERANCE[dtype] * abs(expected).max())


@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("object_modes", [1, 3])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("common", [True, False], ids=["first slice", "later slice"])
def test_transmit(fast, rng, grid, dtype, modes, object_modes, shared, common):
    ny, nx = grid.shape
    obj = waves(rng, dtype, object_modes, 4, ny + 5, nx + 7)
    incoming = waves(
        rng, dtype, 1 if shared else BATCH, modes, 1 if common else object_modes, ny, nx
    )
    expected = reference.transmit(incoming, obj, 2, CORNERS)
    assert_same(fast.transmit(incoming, obj, 2, CORNERS), expected, dtype)
    start = waves(rng, dtype, *obj.shape)
    for target in (start, None):
        results = []
        for kernels in (reference, fast):
            g, g_object = expected.copy(), None if target is None else target.copy()
            kernels.transmit_vjp(incoming, obj, 2, CORNERS, g, g_object)
            results.append((g, g_object))
        (g, g_object), (fast_g, fast_g_object) = results
        assert_same(fast_g, g, dtype)
        if target is not None:
            assert_same(fast_g_object, g_object, dtype)
            np.testing.assert_array_equal(fast_g_object[:, [0, 1, 3]], start[:, [0, 1, 3]])


@pytest.mark.parametrize("counts", [np.uint8, np.uint16])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_compare_takes_whole_numbers(fast, rng, grid, dtype, loss, counts):
    spectrum = waves(rng, dtype, BATCH, 1, 1, *grid.shape)
    mask = grid.mask.astype(spectrum.real.dtype)
    data = rng.integers(0, 256, (BATCH, *grid.shape)).astype(counts)
    for kernels in (reference, fast):
        found = []
        for same in (data, data.astype(mask.dtype)):
            wave = spectrum.copy()
            found.append((*kernels.compare(wave, same, mask, grid.band, loss, 0.7), wave))
        for whole, real in zip(*found, strict=True):
            assert_same(whole, real, dtype)


@pytest.mark.parametrize("beyond", [True, False], ids=["counts outside the band", "none outside"])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_compare(fast, rng, grid, dtype, loss, beyond):
    """Both against the whole window, where the band limit is nothing but a mask."""
    spectrum = waves(rng, dtype, BATCH, 2, 3, *grid.shape)
    spectrum[0, :, :, 0] = 0  # no light where electrons were counted
    mask = grid.mask.astype(spectrum.real.dtype)
    data = rng.choice([0.0, 0.4, 2.0, 7.0], (BATCH, *grid.shape)).astype(mask.dtype)
    if not beyond:
        data *= mask
    intensity = (abs(spectrum) ** 2).mean(axis=(1, 2)) * mask
    value, derivative = loss(intensity, data)
    expected = spectrum * (derivative * mask * (2 * 0.7 / 6))[:, None, None]
    for kernels in (reference, fast):
        wave = spectrum.copy()
        got, sse = kernels.compare(wave, data, mask, grid.band, loss, 0.7)
        assert got.dtype == sse.dtype == np.float64
        np.testing.assert_allclose(got, value, rtol=10 * TOLERANCE[dtype])
        np.testing.assert_allclose(
            sse, ((intensity - data) ** 2).sum(axis=(1, 2)), rtol=10 * TOLERANCE[dtype]
        )
        assert_same(wave, expected.astype(dtype), dtype)


@pytest.mark.parametrize("scenarios", [1, 3])
def test_modulate(fast, rng, grid, dtype, scenarios):
    ny, nx = grid.shape
    a = waves(rng, dtype, scenarios, 2, ny, nx) * grid.mask
    a = a.astype(dtype)
    rows = rng.integers(0, scenarios, BATCH)
    e_y, e_x = waves(rng, dtype, BATCH, ny), waves(rng, dtype, BATCH, nx)
    expected = reference.modulate(a, rows, e_y, e_x, grid.band)
    np.testing.assert_allclose(
        expected, a[rows] * e_y[:, None, :, None] * e_x[:, None, None, :], rtol=1e-4
    )
    assert_same(fast.modulate(a, rows, e_y, e_x, grid.band), expected, dtype)
    g, start = waves(rng, dtype, BATCH, 2, ny, nx), waves(rng, dtype, *a.shape)
    targets = [start.copy(), start.copy()]
    for kernels, target in zip((reference, fast), targets, strict=True):
        kernels.modulate_vjp(g, rows, e_y, e_x, target, grid.band)
    assert_same(targets[1] * grid.mask, targets[0] * grid.mask, dtype)


@pytest.mark.parametrize("axes", [(), (2,), (2, 3)])
def test_marginals(fast, rng, grid, dtype, axes):
    ny, nx = grid.shape
    a, g = waves(rng, dtype, BATCH, *axes, ny, nx), waves(rng, dtype, BATCH, *axes, ny, nx)
    for limited in (False, True):
        if limited:
            a = (a * grid.mask).astype(dtype)
        band = grid.band if limited else None
        for got, expected in zip(
            fast.imag_marginals(a, g, band), reference.imag_marginals(a, g, band), strict=True
        ):
            np.testing.assert_allclose(got, expected, atol=TOLERANCE[dtype] * abs(expected).max())


@pytest.mark.parametrize("fast", [False, True], ids=["SciPy", "vectors"])
def test_transforms_with_a_band(rng, grid, dtype, fast):
    """Forward: right inside the band; backward: of what is zero outside."""
    backend = Backend("segments" if fast else "reference")
    a = waves(rng, dtype, 2, 3, *grid.shape)
    expected = scipy.fft.fft2(a)
    got = backend.fft2(a.copy(), overwrite=True, band=grid.band)
    assert_same(got[..., grid.mask], expected[..., grid.mask], dtype)
    assert np.all(np.isfinite(got))
    assert_same(backend.fft2(a), expected, dtype)
    limited = (a * grid.mask).astype(dtype)
    expected = scipy.fft.ifft2(limited, norm="forward")
    for overwrite in (False, True):
        b = limited.copy()
        assert_same(backend.fft2_adjoint(b, overwrite, grid.band), expected, dtype)
        if not overwrite:
            np.testing.assert_array_equal(b, limited)


def test_a_package_that_does_not_import_is_done_without(monkeypatch, caplog):
    """numba refuses a NumPy it does not know yet."""
    pytest.importorskip("numba")
    real = importlib.import_module

    def refuse(name):
        if name == "numba":
            raise ImportError("Numba needs NumPy 2.3 or less")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    backend = Backend("auto")
    assert not backend.compiled
    assert not backend.fuses
    assert "numba is installed but cannot be used: Numba needs" in caplog.text


def test_kernels_compile_where_nothing_can_be_kept(compiled, monkeypatch):
    """numba refuses to keep what it finds no folder for."""
    real = compiled.numba.njit

    def without_a_place(*function, cache=False, **how):
        if cache:
            raise RuntimeError("no locator available")
        return real(*function, **how)

    monkeypatch.setattr(compiled.numba, "njit", without_a_place)
    assert compiled.compile_for_cpu(lambda a: 2 * a)(3) == 6


def test_parts_become_machine_code_within_their_callers_only(compiled, monkeypatch):
    from numba.core.codegen import JITCodeLibrary

    made, original = [], JITCodeLibrary._finalize_specific

    def finalize(library):
        made.append(library.name)
        original(library)

    half = compiled.part(lambda a: a / 2)
    third = compiled.part(lambda a: half(a) / 1.5)
    monkeypatch.setattr(JITCodeLibrary, "_finalize_specific", finalize)
    whole = compiled.numba.njit(**compiled._HOW)(lambda a, b: third(a) + half(b) + half(a))
    assert whole(6.0, 4) == 7
    assert len(made) == 1
    assert whole(np.float32(6), 8.0) == 9


@pytest.fixture
def double(tmp_path, monkeypatch):
    """A function in a module of its own."""
    source = tmp_path / "some_kernels.py"
    source.write_text("def double(a):\n    return 2 * a\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(importlib.import_module("numba").config, "CACHE_DIR", "")
    yield importlib.import_module("some_kernels").double
    del sys.modules["some_kernels"]


def test_what_was_compiled_from_other_sources_is_dropped(
    compiled, double, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", compiled.__name__)
    function = compiled.compile_for_cpu(double)
    compiled.announce(function)
    assert "compiling the kernels" in caplog.text
    caplog.clear()
    assert function(4) == 8
    again = compiled.compile_for_cpu(double)
    compiled.announce(again)
    assert not caplog.text
    before = set(tmp_path.rglob("*.nb[ci]"))
    monkeypatch.setattr(compiled, "_sources", lambda package: "changed")
    other = compiled.compile_for_cpu(double)
    compiled.announce(other)
    assert "compiling the kernels" in caplog.text
    assert other(4) == 8
    after = set(tmp_path.rglob("*.nb[ci]"))
    assert len(before) == len(after) == 1
    assert before != after


def test_code_for_different_types_never_shares_a_file(compiled, double, tmp_path):
    """As when two processes compile at once, and neither knows of the other."""
    whole, real = compiled.compile_for_cpu(double), compiled.compile_for_cpu(double)
    assert whole(4) == 8
    assert real(0.25) == 0.5
    assert len(list(tmp_path.rglob("*.nbc"))) == 2
    later = compiled.compile_for_cpu(double)
    assert later(0.25) == 0.5
    assert later(4) == 8
    assert sum(later.stats.cache_hits.values()) == 2
    assert not later.stats.cache_misses


def test_a_full_disk_does_not_stop_a_run(compiled, double, monkeypatch, caplog):
    function = compiled.compile_for_cpu(double)

    def full(name, data):
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(function._cache._cache_file._files, "_save_data", full)
    assert function(4) == 8
    assert "cannot be kept in" in caplog.text
    assert "Disk quota exceeded" in caplog.text


def test_every_source_of_compiled_code_counts(compiled, tmp_path):
    root = Path(compiled.__file__).parent
    for home in compiled._HOMES:
        assert list((root / home).rglob("*.py")), home
        (tmp_path / home / "deep").mkdir(parents=True)
    module = tmp_path / compiled._HOMES[1] / "deep" / "columns.py"
    module.write_text("a = 1")
    first = compiled._sources.__wrapped__(tmp_path)
    module.write_text("a = 2")
    assert compiled._sources.__wrapped__(tmp_path) != first


@pytest.mark.parametrize("name", ["lsq_sqrt", "ml", "lsq", "lsq_sqrt_2", "ml_shifted"])
def test_loss_where_no_light_is(fast, rng, dtype, name):
    data = rng.choice([0, 0.4, 2, 7], 37).astype(np.empty(0, dtype).real.dtype)
    constant = data.dtype.type(Loss(name).constant)
    code, slope = fast.LOSS_NUMBERS[name], np.empty_like(data)
    expected = fast.row_loss(np.zeros_like(data), data, code, constant, slope)
    assert fast.dark_loss(data, code) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(9, 12), (14, 7)])
@pytest.mark.parametrize("cutoff", [0.3, 1.0, 5.0])
def test_band_covers_the_window_once(shape, cutoff):
    grid = Grid(shape, (0.2, 0.3), 0.02, cutoff)
    band = Band(grid.mask)
    seen = np.zeros(shape, int)
    compact = np.zeros(band.shape, int)
    for place, source in band.inside:
        seen[place] += 1
        compact[source] += 1
    for place in band.outside:
        assert not grid.mask[place].any()
        seen[place] += 1
    assert np.all(seen == 1)
    assert np.all(compact == 1)
    for row, (first, last) in zip(grid.mask, band.extent, strict=True):
        kept = np.zeros(shape[1], bool)
        kept[:first] = True
        kept[shape[1] - last :] = True
        np.testing.assert_array_equal(kept, row)
