"""Images of a scan in progress: whatever the order, the end is what the batch gives."""

import threading

import numpy as np
import pytest

import pyptyx
from pyptyx.backend import Backend
from pyptyx.data import open_source
from pyptyx.engine import direct_live, setup
from pyptyx.errors import DataError, ParamError, ShapeError
from pyptyx.executors import ThreadExecutor
from pyptyx.methods import scan_spectrum
from pyptyx.methods.bright_field import bright_field
from pyptyx.methods.linear import KERNELS, linear_image
from pyptyx.methods.live import LiveSums, geometry
from tests.gpu.guard import GuardBackend
from tests.known.direct_scenes import SEMIANGLE, WAVELENGTH_A, correlation, scene

OPTICS, ROTATION = (150.0, 20.0, -12.0), 0.2


@pytest.fixture(scope="module")
def made():
    whole = scene(shape=(36, 40), radius_px=8.0, c10=150, c12a=20, c12b=-12, seed=3)
    counts = np.rint(whole.patterns[:, :30] * 3e4).astype(np.uint16)
    whole.patterns, whole.phase = counts.reshape(-1, 36, 40), whole.phase[:, :30]
    return whole


def optics_of(made, n_bin=1):
    return {
        "dk_A": made.dk_A,
        "wavelength_A": WAVELENGTH_A,
        "step_A": made.step_A,
        "scan_size": (36, 30),
        "semiangle_rad": SEMIANGLE,
        "n_bin": n_bin,
    }


def batch(made, n_bin=1, **options):
    with open_source(made.patterns) as source:
        bright = bright_field(source, **optics_of(made, n_bin))
    return linear_image(bright, OPTICS, ROTATION, **options)


def live(made, n_bin=1, reference=None, **options):
    pattern = made.patterns.mean(axis=0) if reference is None else reference
    return LiveSums(geometry(pattern, **optics_of(made, n_bin)), OPTICS, ROTATION, **options)


def feed(sums, made, block, seed=5):
    """All patterns in a random order, `block` at a time."""
    order = np.random.default_rng(seed).permutation(len(made.patterns))
    for start in range(0, len(order), block):
        points = order[start : start + block]
        sums.add(made.patterns[points], points)


def same(got, expected):
    for name in ("phase", "transfer", "ssnr", "frc", "noise_rad", "resolution_A"):
        one, other = getattr(got, name), getattr(expected, name)
        scale = np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * scale, err_msg=name)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("n_bin", [1, 2])
def test_the_end_is_what_the_batch_gives(kernel, n_bin, made):
    sums = live(made, n_bin, kernel=kernel)
    feed(sums, made, 37)
    same(sums.image(), batch(made, n_bin, kernel=kernel))
    assert sums.arrived.all()


@pytest.mark.parametrize("wiener", [None, 0.01])
def test_filters_and_periodic_scans(wiener, made):
    sums = live(made, periodic=True)
    feed(sums, made, 200)
    same(sums.image(wiener), batch(made, wiener=wiener, periodic=True))


def test_neither_buffer_nor_images_in_between_change_the_end(made):
    sums = live(made, buffer_bytes=4 * 90 * 210)
    for row in range(36):
        points = np.arange(row * 30, (row + 1) * 30)
        if row < 3:
            for p in points:
                sums.add(made.patterns[p : p + 1], np.array([p]))
        else:
            sums.add(made.patterns[points], points)
        if row % 12 == 5:
            sums.image()
    same(sums.image(), batch(made))


def test_memory_does_not_grow_with_the_patterns(made):
    sums = live(made, buffer_bytes=4 * 150 * 210)
    held = []
    for start in range(0, len(made.patterns), 60):
        points = np.arange(start, start + 60)
        sums.add(made.patterns[points], points)
        held.append(sum(values.nbytes for _, values in sums._pending))
    assert 0 < max(held) <= 4 * 150 * 210


def test_the_scale_of_the_reference_does_not_matter(made):
    sums = live(made, reference=made.patterns.mean(axis=0) * 1e-6)
    feed(sums, made, 500)
    same(sums.image(), batch(made))


def test_half_a_scan_is_right_where_it_has_been(made):
    sums = live(made)
    rows = 20
    points = np.arange(rows * 30)
    sums.add(made.patterns[points], points)
    assert sums.arrived[:rows].all()
    assert not sums.arrived[rows:].any()
    found, truth = sums.image(1e-2).phase, batch(made, wiener=1e-2).phase
    inner = (slice(4, rows - 6), slice(4, -4))
    assert correlation(found[inner], truth[inner]) > 0.98
    assert np.abs(found[rows + 8 :]).max() < 0.3 * np.abs(truth).max()


@pytest.mark.parametrize("workers", [[Backend, Backend, Backend], [GuardBackend, GuardBackend]])
def test_workers_and_devices(workers, made, monkeypatch):
    monkeypatch.setattr(scan_spectrum, "_CHUNK_BYTES", 1 << 15)
    for kernel in KERNELS:
        with ThreadExecutor([make() for make in workers]) as executor:
            sums = live(made, kernel=kernel, executor=executor)
            feed(sums, made, 400)
            got = sums.image()
        assert type(got.phase) is np.ndarray
        same(got, batch(made, kernel=kernel))


def test_one_thread_feeds_while_another_looks(made):
    sums = live(made, buffer_bytes=4 * 300 * 210)
    sums.add(made.patterns[:30], np.arange(30))
    feeder = threading.Thread(
        target=lambda: [
            sums.add(made.patterns[a : a + 30], np.arange(a, a + 30)) for a in range(30, 1080, 30)
        ]
    )
    feeder.start()
    while feeder.is_alive():
        assert np.isfinite(sums.image().phase).all()
    feeder.join()
    same(sums.image(), batch(made))


def test_what_cannot_be_added_is_refused_whole(made):
    sums = live(made)
    with pytest.raises(DataError, match="none yet"):
        sums.image()
    sums.add(made.patterns[:5], np.arange(5))
    before = sums.image().phase
    bad = made.patterns[:3].astype(np.float32)
    bad[1, 18, 20] = np.nan
    for patterns, points, match in (
        (made.patterns[5:7], np.array([5, 5]), "not been measured"),
        (made.patterns[5:7], np.array([4, 5]), "not been measured"),
        (made.patterns[5:7], np.array([5, 1080]), "numbers below 1080"),
        (made.patterns[5:7], np.array([-1, 5]), "numbers below 1080"),
        (made.patterns[5:7], np.array([5]), r"shape \(1, 36, 40\)"),
        (bad, np.array([7, 8, 9]), "finite counts"),
    ):
        with pytest.raises(DataError, match=match):
            sums.add(patterns, points)
    np.testing.assert_array_equal(sums.image().phase, before)
    assert sums.arrived.sum() == 5
    with pytest.raises(ParamError, match="kernel"):
        live(made, kernel="best")
    with pytest.raises(ParamError, match="wiener"):
        sums.image("auto")


def test_faulty_pixels_of_the_reference_are_left_out(made):
    reference = made.patterns.mean(axis=0)
    reference[18, 20] = np.nan
    sums = live(made, reference=reference)
    broken = made.patterns.astype(np.float32)
    broken[:, 18, 20] = np.nan
    sums.add(broken, np.arange(len(broken)))
    assert correlation(sums.image(None).phase, batch(made, wiener=None).phase) > 0.99


# ---- the face ----------------------------------------------------------------------------------


@pytest.fixture
def params():
    square = scene(shape=(36, 36), radius_px=8.0, c10=150, c12a=20, c12b=-12, seed=3)
    patterns = np.rint(square.patterns[:30] * 3e4).astype(np.uint16).reshape(-1, 36, 36)
    return {
        "dataset": patterns,
        "mean_pattern": patterns.mean(axis=0),
        "scan_size": (30, 36),
        "scan_step_A": square.step_A,
        "wavelength_A": WAVELENGTH_A,
        "conv_semiangle_mrad": 1e3 * SEMIANGLE,
        "rez_pixel_size_A": square.dk_A[0],
        "aberrations": np.array(OPTICS),
        "PLRotation_deg": 0.0,
        "devices": 1,
    }


@pytest.mark.parametrize("turned", [False, True])
def test_the_face_reads_patterns_as_the_file_does(params, turned):
    if turned:
        # Stored such that flipping, then transposing gives the patterns as they were.
        stored = params["dataset"].swapaxes(1, 2)[:, ::-1]
        params |= {"dataset": stored, "flip_ky": True, "transpose_patterns": True}
        assert not np.array_equal(stored[0], params["mean_pattern"])
    expected = pyptyx.direct_image(params)
    raw = params.pop("dataset")
    with pyptyx.live_image(params) as live:
        for row in reversed(range(28)):
            live.add_row(row, raw[row * 36 : (row + 1) * 36])
        live.add(raw[-72:-36], slice(28 * 36, 29 * 36))
        for point in range(29 * 36, 30 * 36):
            live.add(raw[point], point)
        image = live.image()
        assert live.arrived.all()
    np.testing.assert_allclose(
        image.phase, expected.phase, atol=1e-4 * np.abs(expected.phase).max()
    )
    assert image.info["method"] == "mf"
    assert image.pixel_A == expected.pixel_A
    assert image.maps.keys() == expected.maps.keys()
    given = pyptyx.live_image(
        {**params, "mean_pattern": None}, reference=raw.mean(axis=0), kernel="ssb", n_bin=2
    )
    with given as live:
        live.add(raw, range(len(raw)))
        assert live.image(None).info["method"] == "ssb"


def test_the_face_says_what_is_missing(params, monkeypatch):
    with pytest.raises(ParamError, match="reference="):
        pyptyx.live_image({**params, "mean_pattern": None})
    with pytest.raises(ParamError, match="scan_step_A"):
        pyptyx.live_image({**params, "scan_step_A": None})
    closed = []
    monkeypatch.setattr(setup.SerialExecutor, "close", lambda self: closed.append(self))
    with pytest.raises(ParamError, match="kernel"):
        pyptyx.live_image(params, "best")
    assert closed
    with pyptyx.live_image(params) as live:
        for patterns in (params["dataset"][0, 0], params["dataset"][:2] * 1j):
            with pytest.raises(ShapeError, match="patterns"):
                live.add(patterns, 0)
        with pytest.raises(DataError, match="none yet"):
            live.image()
    assert isinstance(live, direct_live.LiveImage)
