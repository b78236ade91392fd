"""Scripts as PyPty's documentation shows them; what counts is the specimen and beam they find."""

import h5py
import numpy as np
import pytest
from test_pypty_script import (
    C10_A,
    COUNTS,
    PIXEL_A,
    SCAN,
    WAVELENGTH_A,
    WINDOW,
    aperture,
    experiment,
    object_phase,
    overfocused_probe,
    scan_positions,
)

import pyptyx as pypty
from pyptyx.engine.callbacks import Callback

N = SCAN[0] * SCAN[1]
PHASE = object_phase()
BEAM_CENTRES = np.rint(scan_positions()).astype(int) + np.array(WINDOW) // 2


def simulated(**changes):
    """Patterns (7, 6, 22, 26) of the specimen; ``changes`` go into the model."""
    model = {
        "acc_voltage": 200,
        "pixel_size_y_A": PIXEL_A[0],
        "pixel_size_x_A": PIXEL_A[1],
        "positions": scan_positions(),
        "obj": np.exp(1j * PHASE)[..., None, None],
        "probe": overfocused_probe(),
        "skip_preprocessing": True,
        "backend": "cpu",
        "devices": 1,
    }
    return pypty.simulate(model | changes).reshape(*SCAN, *WINDOW).astype(np.float32)


def probe_at(defocus_A):
    """The beam of the experiment, focused elsewhere."""
    qy, qx = (np.fft.fftfreq(n, p) for n, p in zip(WINDOW, PIXEL_A, strict=True))
    chi = np.pi * WAVELENGTH_A * (defocus_A - C10_A) * (qy[:, None] ** 2 + qx**2)
    spectrum = np.fft.fft2(overfocused_probe(), axes=(0, 1)) * np.exp(-1j * chi)[..., None]
    return np.fft.ifft2(spectrum, axes=(0, 1))


@pytest.fixture(scope="module")
def patterns():
    return simulated()


@pytest.fixture
def calibrated(tmp_path):
    """What every script begins with: ``calibrated(patterns, **preset)``."""

    def make(data, **pypty_params):
        experimental_params = experiment(tmp_path / "results", dataset=data, aperture=aperture())
        pypty_params = {"epoch_max": 15, "backend": "cpu", "devices": 1, **pypty_params}
        return pypty.initialize.append_exp_params(experimental_params, pypty_params)

    return make


def agreement(phase, centres=BEAM_CENTRES, truth=PHASE):
    """Correlation of a phase with the truth where the beam has been."""
    (top, left), (bottom, right) = centres.min(axis=0), centres.max(axis=0) + 1
    scanned = (slice(top, bottom), slice(left, right))
    return np.corrcoef(phase[scanned].ravel(), truth[scanned].ravel())[0, 1]


def counts(probe):
    """Counts of a pattern in vacuum: patterns are the mean over the modes."""
    return (np.abs(probe) ** 2).sum() * WINDOW[0] * WINDOW[1] / probe.shape[2]


def start_probe(params):
    return pypty.run(params | {"epoch_max": 0, "output_folder": None}).probe


# ---- from the data to one file -----------------------------------------------------------------


def test_reconstruct_and_convert_to_nexus(patterns, tmp_path):
    pypty.initialize.create_pypty_data(patterns, str(tmp_path / "data.h5"))
    output_folder = str(tmp_path / "results") + "/"

    experimental_params = experiment(
        output_folder, data_path=str(tmp_path / "data.h5"), sample_name="atoms"
    )
    pypty_params = {"epoch_max": 25, "backend": "cpu", "devices": 1}
    pypty_params = pypty.initialize.append_exp_params(experimental_params, pypty_params)
    result = pypty.iterative.run(pypty_params)
    pypty.utils.convert_to_nxs(output_folder, str(tmp_path / "atoms.nxs"))

    assert agreement(result.phase) > 0.95
    with h5py.File(tmp_path / "atoms.nxs") as file:
        saved = file["entry/object/data"][()]
        positions = file["entry/instrument/scan/positions"][()]
        assert file["entry/sample/name"].asstr()[()] == "atoms"
    np.testing.assert_array_equal(saved.transpose(2, 3, 1, 0), result.object)
    np.testing.assert_allclose(positions, result.positions * PIXEL_A, rtol=1e-12)
    params = pypty.utils.load_nexus_params(str(tmp_path / "atoms.nxs"))
    again = pypty.run(params | {"output_folder": None})
    assert again.final_loss == pytest.approx(result.final_loss, rel=1e-6)


def test_a_preset_is_reused_for_another_experiment(patterns, tmp_path):
    preset = tmp_path / "first"
    first = pypty.append_exp_params(
        experiment(preset, dataset=patterns), {"epoch_max": 6, "backend": "cpu", "devices": 1}
    )
    pypty.run(first)
    second = pypty.append_exp_params(
        experiment(tmp_path / "second", dataset=2 * patterns, erase_probe=True),
        str(preset / "params.pkl"),
    )
    assert second["epoch_max"] == 6
    result = pypty.run(second)
    assert counts(result.probe) == pytest.approx(2 * COUNTS, rel=0.02)
    assert (tmp_path / "second" / "co.npy").exists()


# ---- start guesses -----------------------------------------------------------------------------


def test_a_start_guess_from_an_image_of_the_scan(patterns, calibrated):
    image = PHASE[tuple(BEAM_CENTRES.T)].reshape(SCAN)  # as a direct method would give it
    params = calibrated(patterns, epoch_max=4)
    flat = pypty.run(params | {"output_folder": None})
    params = pypty.initialize.get_ptycho_obj_from_scan(params, array_phase=image)
    guess = np.angle(params["obj"][..., 0, 0])
    inside = guess != 0
    assert np.corrcoef(guess[inside], PHASE[: len(guess), : guess.shape[1]][inside])[0, 1] > 0.9
    assert params["num_slices"] == 1
    result = pypty.run(params)
    assert result.losses[0].loss < 0.95 * flat.losses[0].loss
    assert agreement(result.phase) > agreement(flat.phase)


@pytest.mark.parametrize("probe", [None, "aperture"])
def test_the_start_probe_has_the_counts_of_the_data(patterns, calibrated, probe):
    params = calibrated(patterns, probe=probe)
    assert counts(start_probe(params)) == pytest.approx(patterns.sum() / N, rel=0.01)


@pytest.mark.parametrize(
    "modes",
    [
        {"defocus_spread_modes": np.array([-60.0, 0.0, 60.0])},
        {"mc_n_modes": 3, "focal_spread": 60.0},
    ],
)
def test_beams_of_several_defoci(calibrated, modes):
    """Half of the electrons were focused elsewhere: several modes explain it, one does not."""
    data = 0.5 * (simulated(probe=probe_at(C10_A + 60)) + simulated(probe=probe_at(C10_A - 60)))
    coherent = pypty.run(calibrated(data, epoch_max=20))
    params = calibrated(data, epoch_max=20, **modes)
    assert counts(start_probe(params)) == pytest.approx(data.sum() / N, rel=0.02)
    result = pypty.run(params)
    assert result.probe.shape == (*WINDOW, 3)
    assert result.final_loss < 0.5 * coherent.final_loss
    assert counts(result.probe) == pytest.approx(data.sum() / N, rel=0.1)


def test_hermite_modes_for_a_wide_source(calibrated):
    """The source is wide along x, and so must the modes be; orders are given as (y, x)."""
    data = sum(simulated(probe=np.roll(overfocused_probe(), s, axis=1)) for s in (-3, 0, 3)) / 3

    def fitted(**modes):
        params = calibrated(data, epoch_max=30, **modes)
        assert counts(start_probe(params)) == pytest.approx(data.sum() / N, rel=0.02)
        return pypty.run(params)

    coherent = fitted()
    along_x, along_y = (fitted(n_hermite_probe_modes=orders) for orders in ((0, 1), (1, 0)))
    assert along_x.probe.shape == (*WINDOW, 2)
    assert along_x.final_loss < 0.5 * coherent.final_loss
    assert along_x.final_loss < 0.9 * along_y.final_loss


# ---- parts of the scan -------------------------------------------------------------------------


def test_a_rectangle_of_the_scan(patterns, calibrated):
    params = calibrated(patterns, use_full_FOV=False, epoch_max=20)
    params = pypty.initialize.create_sub_sequence(params, left=2, top=1, width=4, height=5, sub=1)
    rows, columns = np.divmod(params["sequence"], SCAN[1])
    assert {*rows} == {1, 2, 3, 4, 5}
    assert {*columns} == {2, 3, 4, 5}
    result = pypty.run(params)
    used = scan_positions()[params["sequence"]]
    origin = np.rint(used.min(axis=0)).astype(int)
    assert result.object.shape[0] < PHASE.shape[0]
    centres = np.rint(used).astype(int) - origin + np.array(WINDOW) // 2
    assert agreement(result.phase, centres, PHASE[origin[0] :, origin[1] :]) > 0.9


def test_squares_around_points_of_the_scan(patterns, calibrated):
    params = calibrated(patterns, epoch_max=20)
    sequence = pypty.initialize.create_sequence_from_points(params, [3, 6], [3, 0], width_roi=5)
    # The second square is cut by two edges of the scan, and four points belong to both.
    assert len(sequence) == len({*sequence}) == 25 + 9 - 4
    params["sequence"] = sequence
    result = pypty.run(params)
    # A few pixels more than the scan needs, where that makes its transforms fast.
    assert np.all(np.subtract(result.object.shape[:2], PHASE.shape) >= 0)
    corners = [
        index for index in sequence if index // SCAN[1] in (2, 4) and index % SCAN[1] in (2, 4)
    ]
    assert agreement(result.phase, BEAM_CENTRES[corners]) > 0.9


def test_a_sequence_that_grows(patterns, calibrated):
    params = calibrated(patterns, epoch_max=25)
    params["sequence"] = lambda epoch: list(range(N // 2)) if epoch < 5 else list(range(N))
    result = pypty.run(params)
    assert result.losses[5].loss > 1.5 * result.losses[4].loss_after
    assert agreement(result.phase) > 0.9


# ---- more than one object, beam or focus -------------------------------------------------------


def test_static_background(calibrated):
    """A ring of light just outside the bright-field disc."""
    qy, qx = (np.arange(n) - n // 2 for n in WINDOW)
    glow = 4.0 * np.exp(-(((np.hypot(qy[:, None], qx) - 5.5) / 0.7) ** 2))
    data = simulated() + glow.astype(np.float32)
    plain = pypty.run(calibrated(data, epoch_max=40))
    params = calibrated(data, epoch_max=40, static_background=100.0, update_static_background=True)
    result = pypty.run(params)
    assert result.final_loss < 0.3 * plain.final_loss
    ring = glow > 1  # elsewhere nothing tells it from the beam
    assert (result.static_background**2)[ring].sum() == pytest.approx(glow[ring].sum(), rel=0.1)
    assert agreement(result.phase) > 0.9


def test_a_background_that_nobody_gave_is_found(calibrated):
    params = calibrated(simulated() + np.float32(0.5), epoch_max=20, update_static_background=True)
    result = pypty.run(params)
    plain = pypty.run(params | {"update_static_background": False})
    assert (result.static_background**2).sum() == pytest.approx(0.5 * np.prod(WINDOW), rel=0.05)
    assert result.final_loss < plain.final_loss


def test_two_object_modes(tmp_path):
    """A specimen that is in either of two states half of the time."""
    rng = np.random.default_rng(8)
    shape = PHASE.shape
    states = [
        PHASE * (1 + 0.6 * np.sin(rng.uniform(3, 6) * np.indices(shape)[a] / 9)) for a in (0, 1)
    ]
    data = 0.5 * sum(simulated(obj=np.exp(1j * s)[..., None, None]) for s in states)

    def fitted(modes):
        experimental_params = experiment(
            None, dataset=data, aperture=aperture(), num_obj_modes=modes, obj_phase_sigma=0.1
        )
        preset = {"epoch_max": 30, "probe": "aperture", "backend": "cpu", "devices": 1}
        return pypty.run(pypty.append_exp_params(experimental_params, preset))

    one, two = fitted(1), fitted(2)
    assert two.object.shape[2:] == (1, 2)
    assert two.final_loss < 0.6 * one.final_loss
    mean = np.angle(two.object[..., 0, :]).mean(axis=-1)
    assert agreement(mean, truth=np.mean(states, axis=0)) > 0.9


def test_aberrations_of_tiles(calibrated):
    """Two tiles of the scan were recorded at different focus."""
    params = calibrated(np.ones((*SCAN, *WINDOW), np.float32))
    params = pypty.initialize.create_aberrations_chunks(params, chop_size=4, n_abs=3)
    marker = params["aberration_marker"]
    assert marker.reshape(SCAN)[0].tolist() == [0, 0, 0, 0, 1, 1]
    assert params["aberrations_array"].shape == (4, 3)
    focus = np.array([[12.0, 0, 0], [-12.0, 0, 0], [4.0, 0, 0], [-4.0, 0, 0]])
    data = simulated(aberration_marker=marker, aberrations_array=focus)
    start = calibrated(
        data, obj=np.exp(1j * PHASE)[..., None, None], probe=overfocused_probe(), update_obj=False,
        update_probe=False, update_aberrations_array=True, apply_aberrations_to_probe=False,
        epoch_max=25,
    )  # fmt: skip
    start |= {key: params[key] for key in ("aberration_marker", "aberrations_array")}
    result = pypty.run(start)
    np.testing.assert_allclose(result.aberrations_array, focus, atol=0.5)
    np.testing.assert_array_equal(
        np.load(start["output_folder"] + "/ca.npy"), result.aberrations_array
    )


def test_a_wrong_focus_is_found_with_the_object(patterns, calibrated):
    start = calibrated(
        patterns, probe=probe_at(C10_A - 30), apply_aberrations_to_probe=False, update_probe=False,
        update_aberrations_array=True, epoch_max=30,
    )  # fmt: skip
    result = pypty.run(start)
    plain = pypty.run(start | {"update_aberrations_array": False})
    np.testing.assert_allclose(result.aberrations_array, [[30.0]], atol=0.3)
    assert result.final_loss < 0.02 * plain.final_loss
    assert agreement(result.phase) > 0.99


def test_probes_of_tiles(patterns, calibrated):
    params = pypty.initialize.create_probe_marker_chunks(calibrated(patterns, epoch_max=8), 4)
    assert params["probe_marker"].max() == 3
    result = pypty.run(params)
    assert result.probe.shape == (*WINDOW, 1, 4)
    found = [counts(result.probe[..., scenario]) for scenario in range(4)]
    np.testing.assert_allclose(found, COUNTS, rtol=0.05)
    assert result.final_loss < 0.2 * result.losses[0].loss


def test_the_conjugate_beam_is_that_of_the_other_focus(calibrated, patterns):
    params = calibrated(patterns, probe=overfocused_probe())
    params["aberrations"] = [C10_A, 0.0, 0.0]
    params = pypty.initialize.conjugate_beam(params)
    assert list(params["aberrations"]) == [-C10_A, 0.0, 0.0]
    np.testing.assert_allclose(params["probe"], probe_at(-C10_A), atol=1e-9)


# ---- a job in several parts --------------------------------------------------------------------


def test_restart(patterns, calibrated, tmp_path):
    params = calibrated(patterns, epoch_max=8, probe="aperture")
    params |= {"strip_dataset_from_params": False}
    first = pypty.run(params)
    restarted = pypty.initialize.prepare_restart(str(tmp_path / "results"), str(tmp_path / "more"))
    restarted["epoch_max"] = 16
    second = pypty.run(restarted)
    assert second.losses[0].epoch == 8
    assert second.losses[0].loss == pytest.approx(first.final_loss, rel=1e-4)
    assert second.final_loss < 0.5 * first.final_loss


def test_parameters_changed_while_the_job_runs(patterns, calibrated, tmp_path):
    params_path = str(tmp_path / "results" / "params.pkl")
    refined = []

    class Colleague(Callback):
        def epoch(self, state):
            refined.append(state.active)
            if state.epoch == 3:
                pypty.utils.change_params(params_path, "update_probe", 0)

    pypty.run(calibrated(patterns, epoch_max=6), [Colleague()])
    assert refined == [("object", "probe")] * 4 + [("object",)] * 2
