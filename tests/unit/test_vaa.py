"""PyPty's `vaa` against formulas of their own; every figure is drawn once."""

import csv

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pyptyx import vaa
from pyptyx.constants import wavelength_A
from pyptyx.engine.geometry import scan_positions_A
from pyptyx.errors import DataError, ParamError, ShapeError
from pyptyx.output.canvas import new_figure
from pyptyx.output.losslog import columns
from pyptyx.utils import get_ctf

KV = 60
TRUE = np.array([180, -60, 90, 5000, -2000, 3000, -2500, 4e5, 3e5, -2e5, 1.5e5, 2.5e5], float)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def image_of(ax):
    return np.asarray(ax.get_images()[0].get_array())


def drawn(figure, path):
    """Save a figure: what cannot be drawn shows only then."""
    figure.savefig(path / "figure.png", dpi=40)
    assert (path / "figure.png").stat().st_size > 1000


# --- fits --------------------------------------------------------------------------------------


def aberrated(shape, pixel, coefficients, shift=(0.0, 0.0), max_rad=0.03):
    """A wave with a hard aperture, built in angles."""
    lam = wavelength_A(KV)
    qy, qx = (np.fft.fftfreq(n, p) for n, p in zip(shape, pixel, strict=True))
    kx, ky = np.meshgrid(lam * qx, lam * qy)
    chi = get_ctf(coefficients, kx, ky, lam)
    chi += 2 * np.pi * (qy[:, None] * shift[0] + qx[None, :] * shift[1])
    spectrum = (np.hypot(kx, ky) < max_rad) * np.exp(-1j * (chi + 0.9))
    return np.fft.fftshift(np.fft.ifft2(spectrum))


@pytest.mark.parametrize("shift", [(0.0, 0.0), (1.3, -2.1)])
def test_twelve_aberrations_come_back(shift):
    shape, pixel = (150, 168), (0.5, 0.42)
    wave = aberrated(shape, pixel, TRUE, shift)
    found = vaa.fit_aberrations_to_wave(wave, pixel, KV)
    np.testing.assert_allclose(found, TRUE, atol=0.5)
    limited = vaa.fit_aberrations_to_wave(wave, pixel, KV, thresh=0.2, max_mrad=25, plot=False)
    np.testing.assert_allclose(limited, TRUE, atol=0.5)


def test_a_guess_decides_how_many_are_fitted_and_noise_does_little_harm(rng):
    shape, pixel = (90, 112), (0.5, 0.42)
    true = np.array([150.0, -40, 60, 4000, -2500, 1000, 500])
    wave = aberrated(shape, pixel, true)
    noise = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    wave = wave + 1e-3 * np.abs(wave).max() * noise
    for loss in ("linear", "soft_l1"):
        found = vaa.fit_aberrations_to_wave(
            wave, pixel, KV, aberrations_guess=[100.0] + [0.0] * 6, loss=loss, max_mrad=29
        )
        np.testing.assert_allclose(found[:3], true[:3], atol=3)
        np.testing.assert_allclose(found[3:], true[3:], atol=150)


def test_a_wave_without_enough_frequencies_is_refused():
    with pytest.raises(DataError, match="thresh"):
        vaa.fit_aberrations_to_wave(np.ones((20, 26)), 0.5, KV)


@pytest.mark.parametrize("angle", [20.0, -35.0, 170.0])
def test_step_and_rotation_of_a_scan(rng, angle):
    positions = scan_positions_A((7, 9), 1.7, angle) + np.array([3.0, 11.0])
    step, found = vaa.get_step_angle_scan_grid(positions, (7, 9), print_flag=0)
    assert step == pytest.approx(1.7)
    assert found == pytest.approx(angle)
    x, y = np.meshgrid(np.arange(9.0), np.arange(7.0))
    model_x, model_y = vaa.mesh_model_positions(1.7, np.deg2rad(angle), x.ravel(), y.ravel())
    apart = np.stack([model_y, model_x], axis=1) - positions
    np.testing.assert_allclose(apart, np.broadcast_to(apart[0], apart.shape))
    args = (x.ravel(), y.ravel(), model_x + 2, model_y)
    best = vaa.mesh_objective_positions([1.7, np.deg2rad(angle)], *args)
    assert best == pytest.approx(4 * 63)


def test_affine_matrix_of_a_scan():
    matrix = np.array([[2.0, 0.3], [-0.1, 1.5]])
    index = np.indices((4, 6)).reshape(2, -1)
    positions = (matrix @ index).T / 0.4 + [5, 1]
    np.testing.assert_allclose(vaa.get_affine_tranform(positions, (4, 6), 0.4), matrix)
    phi = np.deg2rad(25)
    turned = scan_positions_A((4, 6), 1.3, 25.0) / 0.4
    expected = 1.3 * np.array([[np.cos(phi), np.sin(phi)], [-np.sin(phi), np.cos(phi)]])
    np.testing.assert_allclose(vaa.get_affine_tranform(turned, (4, 6), 0.4), expected)
    with pytest.raises(ShapeError, match="positions"):
        vaa.get_affine_tranform(turned, (4, 5), 0.4)


def test_region_of_the_scan_is_turned_back_and_aligned():
    """An object drawn in the frame of the scan comes back in that frame, wherever the scan lies."""
    step, pixel, scan, phi = 1.0, np.array([0.4, 0.25]), (12, 18), 25.0
    positions = scan_positions_A(scan, step, phi) / pixel + [4, 9]
    window = np.array([14, 20])
    centre = (positions.mean(axis=0) + window // 2) * pixel
    y, x = np.meshgrid(np.arange(90) * pixel[0], np.arange(120) * pixel[1], indexing="ij")
    dy, dx = y - centre[0], x - centre[1]
    c, s = np.cos(np.deg2rad(phi)), np.sin(np.deg2rad(phi))
    along_x, along_y = dx * c + dy * s, -dx * s + dy * c  # in the frame of the scan
    phase = np.exp(-((along_x - 3) ** 2) / 2 - (along_y + 2) ** 2 / 4)
    obj = np.exp(1j * phase)[..., None, None] * np.ones((2, 3))
    params = {
        "scan_size": scan, "scan_step_A": step, "PLRotation_deg": phi, "positions": positions,
        "pixel_size_y_A": 0.4, "pixel_size_x_A": 0.25, "probe": np.ones((14, 20, 1)),
    }  # fmt: skip
    out = vaa.crop_ptycho_object_to_stem_roi(obj, params)
    assert out.shape == (30, 72, 2, 3)
    rows, columns = np.indices((30, 72))
    at_y, at_x = (rows - 14.5) * 0.4, (columns - 35.5) * 0.25
    expected = np.exp(-((at_x - 3) ** 2) / 2 - (at_y + 2) ** 2 / 4)
    np.testing.assert_allclose(np.angle(out[..., 1, 2]), expected, atol=0.01)
    image = vaa.crop_ptycho_object_to_stem_roi(phase, {**params, "positions": None})
    assert image.shape == (30, 72)
    with pytest.raises(ShapeError, match="scan_step_A"):
        vaa.crop_ptycho_object_to_stem_roi(phase, params | {"scan_step_A": 0.0})


def test_principal_components_of_complex_observations(rng):
    images = rng.normal(size=(6, 8, 2)) + 1j * rng.normal(size=(6, 8, 2))
    mixing = np.array([[3, 2j, 1, 0.5], [0.1, 0.2, -0.3j, 0.1]])
    data = images @ mixing + np.array([1, 2, 3, 4j])
    out = vaa.complex_pca(data, 3)
    assert out.shape == (6, 8, 3)
    flat = data.reshape(48, 4) - data.reshape(48, 4).mean(axis=0)
    values = np.sort(np.linalg.eigvalsh(flat.conj().T @ flat))[::-1]
    scores = out.reshape(48, 3)
    np.testing.assert_allclose(scores.conj().T @ scores, np.diag(values[:3]), atol=1e-9)
    with pytest.raises(ParamError, match="n_components"):
        vaa.complex_pca(data, 5)


# --- radial average ----------------------------------------------------------------------------


def test_radial_average_gives_values_with_and_without_a_figure(tmp_path):
    f_y, f_x = (np.fft.fftshift(np.fft.fftfreq(n)) for n in (60, 90))
    q = np.hypot(f_y[:, None], f_x[None, :]) / 0.2
    ff = np.exp(-3 * q)
    frequency, mean, figure = vaa.radial_average(ff, 1.0, 0.45, 0.1, 0.2)
    assert frequency[0] == pytest.approx(6.5 / 60 / 0.2)
    assert len(frequency) == len(mean) == 27 - 6 + 1
    np.testing.assert_allclose(mean, np.exp(-3 * frequency), rtol=0.04)
    ring = np.floor(q * 0.2 * 60 + 1e-9) == 10
    assert mean[4] == pytest.approx(ff[ring].mean())
    drawn(figure, tmp_path)
    assert vaa.radial_average(ff, 1.0, 0.45, 0.1, 0.2, plot=False)[2] is None


# --- colours -----------------------------------------------------------------------------------


def test_hue_is_the_phase_and_brightness_the_modulus():
    numbers = np.array([[2, 1, 0], [2 * np.exp(2j * np.pi / 3), -1j, 4]])
    rgb = vaa.complex_array_to_rgb(numbers, rmax=2)
    assert rgb.shape == (2, 3, 3)
    np.testing.assert_allclose(rgb[0], [[1, 0, 0], [0.5, 0, 0], [0, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(rgb[1, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(rgb[1, 1], [0.25, 0, 0.5], atol=1e-12)
    np.testing.assert_allclose(rgb[1, 2], [1, 0, 0], atol=1e-12)


def test_light_theme_is_white_at_zero_and_not_black():
    numbers = np.array([[2, 1, 0], [2 * np.exp(2j * np.pi / 3), -2, 0.5]])
    rgb = vaa.complex_array_to_rgb(numbers, theme="light")
    np.testing.assert_allclose(rgb[0], [[1, 0, 0], [1, 0.5, 0.5], [1, 1, 1]], atol=1e-12)
    np.testing.assert_allclose(rgb[1, 1], [0, 1, 1], atol=1e-12)
    with pytest.raises(ParamError, match="theme"):
        vaa.complex_array_to_rgb(numbers, theme="dim")


def test_modes_in_colour_are_sorted_and_turned(rng, tmp_path):
    modes = rng.normal(size=(10, 14, 5)) + 1j * rng.normal(size=(10, 14, 5))
    modes *= [1, 3, 0.5, 2, 0.1]
    figure = vaa.plot_complex_modes(modes, 4, 2)
    axes = figure.axes
    assert len(axes) == 4
    np.testing.assert_allclose(
        image_of(axes[1]), vaa.complex_array_to_rgb(modes[::-1, ::-1, 3]), atol=1e-6
    )
    power = (np.abs(modes) ** 2).sum(axis=(0, 1))
    assert axes[0].texts[0].get_text() == f"{100 * power[1] / power.sum():.1f} %"
    drawn(figure, tmp_path)
    with pytest.raises(ShapeError, match="6 modes"):
        vaa.plot_complex_modes(modes, 6, 2)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_colour_wheel(tmp_path, theme):
    figure = Figure()
    ax = figure.subplots()
    vaa.plot_complex_colorwheel(ax, theme, N=61, rmax=2.5, background=1)
    wheel = image_of(ax)
    assert wheel.shape == (61, 61, 3)
    np.testing.assert_allclose(wheel[0, 0], 1)
    centre = 0.0 if theme == "dark" else 1.0
    np.testing.assert_allclose(wheel[30, 30], centre, atol=1e-12)
    assert "2.5" in [t.get_text() for t in ax.texts]
    # Towards +y (up, larger row of the lower origin) the phase is a quarter turn.
    expected = vaa.complex_array_to_rgb(np.array([1j * 20 / 24]), theme, rmax=1)[0]
    np.testing.assert_allclose(wheel[50, 30], expected, atol=1e-6)
    drawn(figure, tmp_path)


# --- other figures -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(10, 14), (10, 14, 3), (10, 14, 3, 2)])
def test_one_figure_per_mode_and_scenario(rng, tmp_path, shape):
    probe = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    figures = vaa.plot_modes(probe)
    full = probe.reshape(shape + (1,) * (4 - len(shape)))
    assert len(figures) == full.shape[2] * full.shape[3]
    last = full[..., -1, -1]
    panels = [ax for ax in figures[-1].axes if ax.get_title()]
    titles = ["R-Space mag", "R-Space phase", "Q-Space mag", "Q-Space phase"]
    assert [ax.get_title() for ax in panels] == titles
    np.testing.assert_allclose(image_of(panels[0]), np.abs(last))
    np.testing.assert_allclose(image_of(panels[1]), np.angle(last))
    assert image_of(panels[2])[5, 7] == pytest.approx(abs(last.sum()))
    assert panels[0].get_images()[0].get_clim() == (0, pytest.approx(np.abs(probe).max()))
    if len(shape) == 4:
        drawn(figures[0], tmp_path)
    with pytest.raises(ShapeError, match="probe"):
        vaa.plot_modes(probe[0, 0, ..., None, None, None, None, None])


def write_log(path, epochs=6):
    names = columns(detailed=False)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for epoch in range(epochs):
            row = dict.fromkeys(names, 1.5)
            row |= {"epoch": epoch, "time / s": 1800 * epoch**2, "loss": 100 / (1 + epoch)}
            writer.writerow(row | {"Warnings": "two\nlines" if epoch == 2 else ""})


def test_one_figure_per_column_of_the_log(tmp_path):
    path = tmp_path / "loss.csv"
    write_log(path)
    figures = vaa.outputlog_plots(str(path), skip_first=1)
    labels = [f.axes[0].get_ylabel() for f in figures]
    names = columns(detailed=False)
    assert labels == [n for n in names[names.index("loss") :] if n != "Warnings"]
    expected = [[e, 100 / (1 + e)] for e in range(1, 6)]
    np.testing.assert_allclose(figures[0].axes[0].lines[0].get_xydata(), expected)
    top = figures[0].axes[1]
    assert top.get_xlabel() == "time / h"
    assert [t.get_text() for t in top.get_xticklabels()] == ["0.5", "2", "4.5", "8", "12.5"]
    np.testing.assert_allclose(top.get_xticks(), [1, 2, 3, 4, 5])
    drawn(figures[0], tmp_path)
    assert len(vaa.outputlog_plots(path, plot_time=False)[0].axes) == 1


def test_a_log_without_epochs_or_header_is_refused(tmp_path):
    path = tmp_path / "loss.csv"
    with pytest.raises(DataError, match="no such file"):
        vaa.outputlog_plots(path)
    write_log(path, epochs=3)
    with pytest.raises(DataError, match="skip_first"):
        vaa.outputlog_plots(path, skip_first=3)
    path.write_text("0,1,2\n1,2,3\n")
    with pytest.raises(DataError, match="header"):
        vaa.outputlog_plots(path)


def test_scale_bar_is_as_long_as_it_says(tmp_path):
    figure = Figure()
    ax = figure.subplots()
    ax.imshow(np.zeros((40, 70)))
    vaa.add_scalebar_ax(ax, 5, 33, 20, 2, 6, 31, 0.8, "nm", fontsize=12)
    bar = next(p for p in ax.patches if isinstance(p, Rectangle))
    assert bar.get_width() == pytest.approx(25)
    assert (bar.get_x(), bar.get_y(), bar.get_height()) == (5, 33, 2)
    assert ax.texts[0].get_text() == "20 nm"
    assert ax.texts[0].get_position() == (6, 31)
    drawn(figure, tmp_path)


def test_figures_stay_out_of_pyplot_unless_asked():
    from matplotlib import pyplot

    pyplot.switch_backend("Agg")
    before = pyplot.get_fignums()
    vaa.plot_modes(np.ones((10, 14, 2), complex))
    assert pyplot.get_fignums() == before
    figure = new_figure(True, figsize=(2, 1))
    assert figure.number in pyplot.get_fignums()
    pyplot.close(figure)
