"""Direct methods on a fake device and on several workers: the same numbers, no hidden transfers."""

import numpy as np
import pytest

import pyptyx.direct
import pyptyx.tcbf
from pyptyx.backend import Backend
from pyptyx.data import open_source
from pyptyx.engine import setup
from pyptyx.engine.calibrate import calibrate
from pyptyx.engine.geometry import scan_positions_A
from pyptyx.executors import SerialExecutor, ThreadExecutor
from pyptyx.methods import scan_spectrum, unalias, varpro, wdd
from pyptyx.methods.aberration_fit import FitOptions, fit_aberrations
from pyptyx.methods.bright_field import bright_field
from pyptyx.methods.disc import Disc
from pyptyx.methods.joint import joint_image
from pyptyx.methods.linear import KERNELS, depth_sections, linear_image
from pyptyx.methods.optics_search import Optics
from pyptyx.methods.shift_fit import measure_shifts
from pyptyx.methods.tcbf import aligned_image, scan_shifts_A
from tests.gpu.guard import GuardArray, GuardBackend
from tests.known.direct_scenes import SEMIANGLE, WAVELENGTH_A, scene

OPTICS, ROTATION = (150.0, 20.0, -12.0), 0.2


@pytest.fixture(scope="module")
def made():
    """More scan rows than columns and more columns than rows of the detector."""
    whole = scene(shape=(36, 40), radius_px=8.0, c10=150, c12a=20, c12b=-12, seed=3)
    whole.patterns = np.rint(whole.patterns[:, :30] * 3e4).astype(np.uint16)
    return whole


@pytest.fixture(scope="module")
def bright(made):
    with open_source(made.patterns) as source:
        return bright_field(
            source,
            dk_A=made.dk_A,
            wavelength_A=WAVELENGTH_A,
            step_A=made.step_A,
            semiangle_rad=SEMIANGLE,
        )


@pytest.fixture(scope="module")
def box(made):
    disc = Disc((18, 20), SEMIANGLE / WAVELENGTH_A, made.dk_A)
    with open_source(made.patterns) as source:
        return wdd.read_box(source, disc, made.patterns.shape[:2])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Several chunks for every worker of every method."""
    monkeypatch.setattr(scan_spectrum, "_CHUNK_BYTES", 1 << 15)
    monkeypatch.setattr(wdd, "_CHUNK_BYTES", 1 << 15)
    monkeypatch.setattr(unalias, "_SYSTEMS", 6)


@pytest.fixture
def small_blocks(monkeypatch):
    """Several blocks of frequencies of the profile likelihood."""
    monkeypatch.setattr(varpro, "_BLOCK_VALUES", 1 << 9)


def _linear(kernel):
    def run(bright, box, executor):
        image = linear_image(bright, OPTICS, ROTATION, kernel=kernel, executor=executor)
        return image.phase, image.ssnr, image.transfer, image.frc, image.noise_rad

    return run


def _sections(bright, box, executor):
    planes = depth_sections(bright, OPTICS, (-40.0, 25.0), ROTATION, executor=executor)
    return [plane.phase for plane in planes]


def _unaliased(upsample):
    def run(bright, box, executor):
        image = unalias.unaliased_image(
            bright, OPTICS, ROTATION, upsample=upsample, damping=1e-2, executor=executor
        )
        return image.phase, image.condition

    return run


def _aligned(**options):
    def run(bright, box, executor):
        return [aligned_image(bright, OPTICS, ROTATION, executor=executor, **options)]

    return run


def _shifts(**options):
    def run(bright, box, executor):
        start = scan_shifts_A(bright, scan_spectrum.pupil_of(bright, OPTICS), ROTATION)
        return measure_shifts(bright, start, executor=executor, **options)

    return run


def _deconvolved(**options):
    def run(bright, box, executor):
        pupil = scan_spectrum.pupil_of(bright, OPTICS)
        return [wdd.wdd(box, pupil, bright.step_A, ROTATION, executor=executor, **options)]

    return run


def _profile(bright, box, executor):
    samples = varpro.sample(bright, (0.05, 0.6), 150)
    profile = varpro.Profile(samples, 3, executor)
    gain = profile.gain(OPTICS, ROTATION)
    found, power = profile.phases(OPTICS, ROTATION)
    return (
        profile.value(OPTICS, ROTATION), gain.value, gain.by_coefficient, gain.by_rotation,
        found, power, *profile.information(OPTICS, ROTATION),
    )  # fmt: skip


METHODS = {
    **{kernel: _linear(kernel) for kernel in KERNELS},
    "depth": _sections,
    "joint": lambda bright, box, executor: joint_image(
        bright, OPTICS, ROTATION, damping=1e-2, executor=executor
    ),
    "un-aliased 2": _unaliased(2),
    "un-aliased 1.5": _unaliased(1.5),
    "tcbf 2": _aligned(upsample=2, pad=1),
    "tcbf 1.5 flipped": _aligned(upsample=1.5, flip=True),
    "tcbf whole": _aligned(whole_pixels=True),
    "shifts": _shifts(),
    "shifts of phases": _shifts(phase_only=True, reference="zero"),
    "wdd": _deconvolved(),
    "wdd threshold": _deconvolved(regularisation=wdd.Regularisation(threshold=0.05), periodic=True),
    "profile": _profile,
}


def compare(got, expected, relative):
    for one, other in zip(got, expected, strict=True):
        assert not isinstance(one, GuardArray)
        scale = np.abs(other).max()
        assert scale > 0
        np.testing.assert_allclose(one, other, rtol=relative, atol=relative * scale)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("devices", [1, 2])
def test_a_device_gives_the_numbers_of_the_host(method, devices, bright, box):
    run = METHODS[method]
    expected = run(bright, box, None)
    with ThreadExecutor([GuardBackend() for _ in range(devices)]) as executor:
        compare(run(bright, box, executor), expected, 1e-4)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("method", METHODS)
def test_workers_agree_and_repeat_bit_for_bit(method, bright, box):
    run = METHODS[method]
    expected = run(bright, box, None)
    for workers in (1, 2, 3):
        with ThreadExecutor([Backend() for _ in range(workers)]) as executor:
            first, again = (run(bright, box, executor) for _ in range(2))
        compare(first, expected, 1e-4)
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, other)
        if workers == 1:
            for one, other in zip(first, expected, strict=True):
                np.testing.assert_array_equal(one, other)


def test_more_workers_than_chunks(bright, box, monkeypatch):
    monkeypatch.setattr(scan_spectrum, "_CHUNK_BYTES", 1 << 30)
    with ThreadExecutor([GuardBackend() for _ in range(3)]) as executor:
        compare(METHODS["mf"](bright, box, executor), METHODS["mf"](bright, box, None), 1e-4)


def test_the_fit_of_aberrations(bright):
    options, start = FitOptions(num=3, frequencies=100), Optics(np.array(OPTICS), 0.05, False)
    expected = fit_aberrations(bright, options, start=start)
    got = fit_aberrations(bright, options, start=start, executor=SerialExecutor(GuardBackend()))
    tolerance = 0.1 * expected.sigma_A
    assert (np.abs(got.best.coefficients_A - expected.best.coefficients_A) < tolerance).all()
    np.testing.assert_allclose(got.sigma_A, expected.sigma_A, rtol=1e-2)


# ---- faces -------------------------------------------------------------------------------------


@pytest.fixture
def params():
    square = scene(shape=(36, 36), radius_px=8.0, c10=150, c12a=20, c12b=-12, seed=3)
    dk = square.dk_A[0]
    return {
        "dataset": np.rint(square.patterns[:30] * 3e4).astype(np.uint16).reshape(-1, 36, 36),
        "scan_size": (30, 36),
        "scan_step_A": square.step_A,
        "wavelength_A": WAVELENGTH_A,
        "acc_voltage": 60,
        "conv_semiangle_mrad": 1e3 * SEMIANGLE,
        "rez_pixel_size_A": dk,
        "pixel_size_y_A": 1 / (36 * dk),
        "pixel_size_x_A": 1 / (36 * dk),
        "aberrations": np.array(OPTICS),
        "PLRotation_deg": 0.0,
        "positions": scan_positions_A((30, 36), square.step_A) * 36 * dk,
        "devices": 2,
    }


QUICK = FitOptions(num=3, transposed=False, largest_defocus_A=200.0, frequencies=100)

FACES = {
    "mf": lambda p: [pyptyx.direct.direct_image(p).phase],
    "joint": lambda p: [pyptyx.direct.direct_image(p, "joint").amplitude],
    "upsampled": lambda p: [pyptyx.direct.direct_image(p, upsample=2, wiener=0.01).phase],
    "depth": lambda p: [pyptyx.direct.depth_sections(p, [10.0])],
    "wdd": lambda p: [pyptyx.direct.wdd(p)],
    "tcbf": lambda p: [pyptyx.tcbf.upsampled_tcbf(p, upsample=2.5, pad=2)[0]],
    "alignment": lambda p: [
        pyptyx.tcbf.run_tcbf_alignment(
            p, [2], aberrations=OPTICS, n_aberrations_to_fit=3, method="xcorr"
        )["aberrations"]
    ],
    "calibration": lambda p: [calibrate(p, QUICK, most_bins=40).fit.sigma_A],
}


@pytest.mark.parametrize("face", FACES)
def test_faces_work_where_the_parameters_say(face, params, monkeypatch):
    expected = FACES[face](params | {"devices": 1, "backend": "cpu"})
    asked = []

    def make(devices, prefer, kernels):
        asked.append((devices, prefer, kernels))
        return [GuardBackend() for _ in range(devices)]

    monkeypatch.setattr(setup, "make_backends", make)
    compare(FACES[face](params), expected, 1e-2 if face == "calibration" else 1e-4)
    assert asked
    assert set(asked) == {(2, "gpu", "reference")}
