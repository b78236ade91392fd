"""Figures: what is drawn follows from the arrays, axis by axis."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from pyptyx.errors import ShapeError
from pyptyx.output import plots

Y, X, NZ, MO = 23, 31, 3, 2


@pytest.fixture
def obj():
    rng = np.random.default_rng(7)
    phase = rng.uniform(-0.4, 0.4, (Y, X, NZ, MO))
    return rng.uniform(0.6, 1.0, (Y, X, NZ, MO)) * np.exp(1j * phase)


def image_of(figure, axis=0):
    return np.asarray(figure.axes[axis].get_images()[0].get_array())


def bar_of(ax):
    return next(p for p in ax.patches if isinstance(p, Rectangle))


def test_ramp_that_wraps_many_times_is_removed():
    rng = np.random.default_rng(3)
    y, x = np.indices((Y, X))
    true = rng.uniform(-0.5, 0.5, (Y, X))
    plane = np.stack([np.ones((Y, X)), y, x], axis=-1).reshape(-1, 3)
    fit = np.linalg.lstsq(plane, true.ravel(), rcond=None)[0]
    true -= (plane @ fit).reshape(Y, X)
    wrapped = np.angle(np.exp(1j * (true + 2.5 + 0.9 * y - 1.7 * x)))
    np.testing.assert_allclose(plots.remove_ramp(wrapped), true, atol=1e-12)


def test_ramp_is_measured_inside_the_mask_only():
    y, x = np.indices((Y, X))
    phase = 0.02 * y - 0.03 * x
    mask = np.zeros((Y, X), bool)
    mask[4:15, 6:20] = True
    spoilt = phase.copy()
    spoilt[18:, :] += 1.0
    flat = plots.remove_ramp(spoilt, mask)
    np.testing.assert_allclose(flat[mask], 0, atol=1e-12)
    np.testing.assert_allclose(flat[18:], 1.0, atol=1e-12)


def test_remove_ramp_refuses_shapes_that_do_not_fit():
    with pytest.raises(ShapeError, match="mask"):
        plots.remove_ramp(np.zeros((4, 5)), np.ones((5, 4), bool))
    with pytest.raises(ShapeError, match="three pixels"):
        plots.remove_ramp(np.zeros((4, 5)), np.zeros((4, 5), bool))


def test_phase_of_one_slice_and_mode(obj):
    figure = plots.plot_phase(obj, 0.5, slice_index=2, object_mode=1, flatten=False)
    np.testing.assert_allclose(image_of(figure), np.angle(obj[:, :, 2, 1]))


def test_phase_of_all_slices_is_their_sum_over_the_field(obj):
    field = (slice(3, 14), slice(5, 25))
    figure = plots.plot_phase(obj, 0.5, field=field, flatten=False)
    np.testing.assert_allclose(image_of(figure), np.angle(obj[3:14, 5:25, :, 0]).sum(-1))


def test_amplitude_of_all_slices_is_their_product(obj):
    figure = plots.plot_amplitude(obj, 0.5)
    np.testing.assert_allclose(image_of(figure), np.abs(obj[..., 0]).prod(-1))


def test_a_plain_image_is_accepted(obj):
    figure = plots.plot_phase(obj[:, :, 0, 0], 0.5, flatten=False)
    np.testing.assert_allclose(image_of(figure), np.angle(obj[:, :, 0, 0]))


@pytest.mark.parametrize("kwargs", [{"slice_index": NZ}, {"object_mode": MO}])
def test_missing_slice_or_mode_is_named(obj, kwargs):
    with pytest.raises(ShapeError, match=next(iter(kwargs))):
        plots.plot_phase(obj, 0.5, **kwargs)


def test_pixels_of_unequal_size_are_drawn_in_proportion(obj):
    figure = plots.plot_phase(obj, (0.9, 0.3))
    ax = figure.axes[0]
    assert ax.get_aspect() == pytest.approx(3.0)
    # Width 31 * 0.3 = 9.3 Å, a quarter is 2.3 Å: the bar is 2 Å along x.
    assert bar_of(ax).get_width() == pytest.approx(2 / 0.3)
    assert ax.texts[0].get_text() == "2 Å"


@pytest.mark.parametrize(
    ("target", "length"), [(1.0, 1.0), (0.0999, 0.05), (2.3, 2.0), (499.0, 200.0), (1000.0, 1000.0)]
)
def test_scale_bar_has_a_round_length(target, length):
    assert plots._round_length(target) == pytest.approx(length)


@pytest.mark.parametrize(("length_A", "text"), [(5, "5 Å"), (50, "5 nm"), (20000, "2 µm")])
def test_scale_bar_label(length_A, text):
    assert plots._length_label(length_A) == text


def test_probe_modes_in_both_spaces():
    rng = np.random.default_rng(1)
    shape = (12, 17, 3, 2)
    probe = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    figure = plots.plot_probe(probe, (0.4, 0.2), scenario=1)
    assert len(figure.axes) == 6
    np.testing.assert_allclose(image_of(figure, 2), np.abs(probe[..., 2, 1]))
    # The aperture plane has zero frequency at (6, 8), where the plain sum of the wave appears.
    spectrum = image_of(figure, 5)
    assert spectrum[6, 8] * np.sqrt(12 * 17) == pytest.approx(abs(probe[..., 2, 1].sum()))
    power = np.sum(np.abs(probe[..., 1]) ** 2, axis=(0, 1))
    assert f"{100 * power[0] / power.sum():.1f} %" in figure.axes[0].get_title()


def test_probe_with_too_many_axes_is_refused():
    with pytest.raises(ShapeError, match="probe"):
        plots.plot_probe(np.ones((2, 3, 4, 5, 6)), 1.0)


def test_loss_of_dicts_and_of_objects():
    class Row:
        def __init__(self, epoch, loss):
            self.epoch, self.loss = epoch, loss

    figures = [
        plots.plot_loss([{"epoch": 2, "loss": 8.0}, {"epoch": 3, "loss": 5.0}]),
        plots.plot_loss([Row(2, 8.0), Row(3, 5.0)]),
    ]
    for figure in figures:
        ax = figure.axes[0]
        np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[2, 8], [3, 5]])
        assert ax.get_yscale() == "log"


def test_loss_of_zero_stays_on_a_linear_axis():
    assert plots.plot_loss([{"epoch": 0, "loss": 0.0}]).axes[0].get_yscale() == "linear"


def test_scanned_field_spans_the_beam_centres():
    positions = np.array([[0.2, 4.4], [9.6, 1.0], [3.0, 20.7]])
    assert plots.scanned_field(positions, (7, 12)) == (slice(3, 14), slice(7, 28))


def test_scanned_mask_is_the_hull_of_the_beam_centres():
    # A diamond with its corners at rows 2 and 12, columns 3 and 23, seen from the window's corner.
    positions = np.array([[0, 10], [5, 0], [10, 10], [5, 20]], float)
    mask = plots.scanned_mask(positions, (5, 7), (Y, X))
    assert mask.shape == (Y, X)
    assert mask[7, 13]
    assert mask[2, 13]
    assert mask[7, 23]
    assert not mask[3, 5]
    assert not mask[12, 23]
    # Half the rectangle, and a rim of half a pixel.
    assert 100 < mask.sum() < 100 + 45


def test_scanned_mask_of_a_line_is_its_rectangle():
    mask = plots.scanned_mask(np.array([[3.0, 1], [3, 9], [3, 5]]), (5, 7), (Y, X))
    assert mask.sum() == 9
    assert mask[5, 4:13].all()


def test_what_is_masked_has_no_part_in_the_picture(obj):
    spoilt = obj.copy()
    spoilt[15:] *= np.exp(2j)
    mask = np.zeros((Y, X), bool)
    mask[2:14, 4:28] = True
    field = (slice(1, 20), slice(2, 30))
    figures = [plots.plot_phase(o, 0.5, field=field, mask=mask) for o in (obj, spoilt)]
    clean, other = (f.axes[0].get_images()[0] for f in figures)
    assert clean.get_clim() == pytest.approx(other.get_clim())
    np.testing.assert_array_equal(clean.get_array().mask, ~mask[field])
    np.testing.assert_allclose(clean.get_array().compressed(), other.get_array().compressed())


def test_figures_can_be_saved(obj, tmp_path):
    path = tmp_path / "phase.png"
    plots.plot_phase(obj, 0.5).savefig(path)
    assert path.stat().st_size > 1000
