"""PyPty's `se` against formulas of their own, on arrays with unequal axes."""

import h5py
import numpy as np
import pytest

import pyptyx
from pyptyx import se
from pyptyx.engine import twist
from pyptyx.errors import DataError, ParamError, ShapeError

SY, SX, KY, KX = 4, 5, 8, 12


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def data(rng):
    return rng.integers(0, 20, (SY, SX, KY, KX)).astype(np.uint16)


def sources(data, folder):
    """The same data in all the ways a dictionary can name them."""
    flat = data.reshape(-1, KY, KX)
    np.save(folder / "four.npy", data)
    with h5py.File(folder / "three.h5", "w") as file:
        file["data"] = flat
    size = {"scan_size": (SY, SX)}
    return [
        {"dataset": data},
        {"dataset": flat} | size,
        {"data_path": str(folder / "four.npy")},
        {"data_path": str(folder / "three.h5")} | size,
    ]


# --- virtual detectors -------------------------------------------------------------------------


@pytest.mark.parametrize("which", range(4))
def test_haadf_is_what_left_the_detector(data, tmp_path, which):
    params = sources(data, tmp_path)[which] | {"output_folder": str(tmp_path / "out")}
    image = se.getvirtualhaadf(params)
    np.testing.assert_allclose(image, -data.sum(axis=(2, 3), dtype=float))
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "virtual_haadf.npy"), image)


@pytest.mark.parametrize("which", range(4))
def test_annular_detector(data, tmp_path, which):
    params = sources(data, tmp_path)[which] | {"output_folder": str(tmp_path), "plot": True}
    image = se.get_virtual_annular_detector(params, 0.25, 0.8, save=True, offset_x=0.2)
    y, x = np.mgrid[-4:4, -6:6]
    r = np.hypot(y / 4, x / 6 - 0.2)
    mask = (r >= 0.25) & (r <= 0.8)
    np.testing.assert_allclose(image, data[..., mask].sum(axis=-1, dtype=float))
    assert (tmp_path / "virtual_signal_i_0.25_o_0.80.npy").is_file()
    assert (tmp_path / "virtual_signal_i_0.25_o_0.80.png").stat().st_size > 1000


def test_files_of_detectors_are_optional(data, tmp_path):
    params = {"dataset": data, "output_folder": str(tmp_path), "save_preprocessing_files": False}
    se.get_virtual_annular_detector(params, 0, 1, save=True)
    se.getvirtualhaadf(params, save=False)
    assert not list(tmp_path.iterdir())


def test_detectors_say_what_is_missing(data):
    with pytest.raises(ParamError, match="scan_size"):
        se.getvirtualhaadf({"dataset": data.reshape(-1, KY, KX)})
    with pytest.raises(ParamError, match="scan_size"):
        se.getvirtualhaadf({"dataset": data.reshape(-1, KY, KX), "scan_size": (3, 5)})
    with pytest.raises(ParamError, match="inner_rad"):
        se.get_virtual_annular_detector({"dataset": data}, 2.5, 3)


@pytest.mark.parametrize("flip", [False, True])
def test_aperture_is_thresholded_upsampled_and_padded(data, flip):
    disc = np.zeros((KY, KX))
    disc[1:5, 4:9] = 100
    disc[2, 3] = 30
    params = {"dataset": data * 0 + disc, "upsample_pattern": 2, "data_pad": 3, "flip_ky": flip}
    assert se.get_aperture(params) is params
    expected = (disc[::-1] if flip else disc) > 40
    expected = np.pad(expected.repeat(2, 0).repeat(2, 1), 3)
    np.testing.assert_array_equal(params["aperture_mask"], expected)
    assert params["aperture_mask"].dtype == bool
    assert se.get_aperture(params | {"bright_threshold": 0.2})["aperture_mask"].sum() == 4 * 21


# --- whole data sets ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_binned_data_set(data, tmp_path, dtype):
    old, new = tmp_path / "old.h5", tmp_path / "new.h5"
    with h5py.File(old, "w") as file:
        file["data"] = (data.reshape(-1, KY, KX) + 230).astype(dtype)
    se.create_binned_dataset(old, new, 3)
    with h5py.File(new) as file:
        out = file["data"][...]
    blocks = (data.reshape(-1, KY, KX)[:, :6] + 230).reshape(20, 2, 3, 4, 3)
    np.testing.assert_array_equal(out, blocks.sum(axis=(2, 4)))
    se.create_binned_dataset(old, new, 3)
    with pytest.raises(DataError, match="bin"):
        se.create_binned_dataset(old, new, 2)


def test_drift_is_compensated_in_place(rng):
    aperture = np.zeros((16, 22))
    aperture[6:11, 8:15] = 1
    patterns = np.stack(
        [np.roll(aperture, s, (0, 1)) for s in [(0, 0), (3, -2), (-4, 5), (1, 9), (-6, 0), (2, 2)]]
    ).reshape(2, 3, 16, 22)
    patterns += 0.01 * rng.random(patterns.shape)
    sums = patterns.sum(axis=(2, 3))
    assert se.compensate_pattern_drift(aperture, patterns) is patterns
    np.testing.assert_allclose(patterns, np.broadcast_to(aperture, patterns.shape), atol=0.011)
    np.testing.assert_allclose(patterns.sum(axis=(2, 3)), sums)


def test_hot_pixels_at_the_edges_too():
    clean = np.add.outer(np.arange(6.0), 10 * np.arange(9.0)) + 100
    data = np.broadcast_to(clean, (2, 3, 6, 9)).copy()
    hot = {(0, 0): (0, 0), (0, 1): (5, 8), (0, 2): (0, 4), (1, 0): (3, 0), (1, 1): (2, 5)}
    for scan, pixel in hot.items():
        data[scan][pixel] = 1e6
    assert se.remove_hot_pixels(data, percentile=98.2) is data
    np.testing.assert_allclose(data[1, 1], clean)
    assert data[0, 0, 0, 0] == pytest.approx((clean[0, 1] + clean[1, 0]) / 2)
    assert data[0, 1, 5, 8] == pytest.approx((clean[5, 7] + clean[4, 8]) / 2)
    assert data[0, 2, 0, 4] == pytest.approx((clean[0, 3] + clean[0, 5] + clean[1, 4]) / 3)
    assert data[1, 0, 3, 0] == pytest.approx((clean[2, 0] + clean[4, 0] + clean[3, 1]) / 3)


def test_neighbouring_hot_pixels_do_not_count_for_each_other():
    data = np.full((1, 1, 7, 9), 4, np.uint16)
    data[0, 0, 3, 4:6] = 60000
    se.remove_hot_pixels(data, percentile=96)
    np.testing.assert_array_equal(data, 4)


# --- polynomial distortions --------------------------------------------------------------------

ROWS = {0: 3, 1: 6, 2: 10}


def cubic(x, y, c):
    terms = [1, x, y, x * y, x**2, y**2, x**2 * y, x * y**2, x**3, y**3]
    return sum(a * t for a, t in zip(c, terms, strict=False))


def coefficients(rng, flag):
    degree = np.array([0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
    return (rng.normal(size=(10, 2)) / 30.0 ** degree[:, None])[: ROWS[flag]]


@pytest.mark.parametrize("flag", [0, 1, 2])
def test_find_ab_gives_the_map_back(rng, flag):
    ab = coefficients(rng, flag)
    x, y = rng.uniform(-40, 60, 25), rng.uniform(-20, 30, 25)
    u, v = cubic(x, y, ab[:, 0]), cubic(x, y, ab[:, 1])
    mapped = se.coordinate_transformation_2d(np.stack([x, y], axis=1), ab)
    np.testing.assert_allclose(mapped, np.stack([u, v], axis=1))
    found = se.find_ab(x, y, u, v, flag)
    assert found.shape == (ROWS[flag], 2)
    np.testing.assert_allclose(found, ab, rtol=1e-7, atol=1e-12)


def test_area_magnification_is_the_jacobian(rng):
    ab = coefficients(rng, 2)
    xy, h = rng.uniform(-20, 20, (7, 2)), 1e-5
    columns = [
        (se.coordinate_transformation_2d(xy + s, ab) - se.coordinate_transformation_2d(xy - s, ab))
        / (2 * h)
        for s in ([h, 0], [0, h])
    ]
    expected = np.abs(np.linalg.det(np.stack(columns, axis=-1)))
    found = se.coordinate_transformation_2d_areamag(xy, ab)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_maps_that_make_no_sense_are_refused():
    xy = np.zeros((30, 2))
    with pytest.raises(ParamError, match="trafo_flag"):
        se.find_ab(*np.zeros((4, 30)), trafo_flag=3)
    with pytest.raises(ShapeError, match="at least 10"):
        se.find_ab(*np.zeros((4, 9)))
    with pytest.raises(ShapeError, match="ab"):
        se.coordinate_transformation_2d(xy, np.zeros((5, 2)))


def test_unwarping_with_the_identity_changes_nothing(rng):
    image = rng.random((9, 14)) * 50
    identity = np.array([[0, 0], [1, 0], [0, 1.0]])
    np.testing.assert_allclose(se.unwarp_im(image, identity), image, rtol=1e-12, atol=1e-12)
    with pytest.raises(ParamError, match="method"):
        se.unwarp_im(image, identity, method="cubicle")


def test_unwarping_moves_columns_with_x_and_keeps_counts():
    rows, columns = np.indices((40, 60))
    image = np.exp(-((rows - 18) ** 2) / 30 - (columns - 26) ** 2 / 60)
    # x' = 5 + 0.7 x, y' = 1.1 y - 2: the blob comes from (y', x') = (18, 26).
    out = se.unwarp_im(image, np.array([[5, -2], [0.7, 0], [0, 1.1]]))
    assert out.sum() == pytest.approx(image.sum(), rel=1e-2)
    assert (out * rows).sum() / out.sum() == pytest.approx(20 / 1.1, abs=0.02)
    assert (out * columns).sum() / out.sum() == pytest.approx(21 / 0.7, abs=0.02)


# --- displacement fields -----------------------------------------------------------------------


def test_vector_field_of_an_affine_map(rng):
    x, y = rng.uniform(0, 30, 12), rng.uniform(0, 20, 12)
    u, v = 3 + 1.1 * x - 0.05 * y, -1 + 0.02 * x + 0.9 * y
    yi, xi = np.indices((21, 31))
    along_rows, along_columns = se.fit_vector_field(x, y, u, v, xi, yi)
    np.testing.assert_allclose(along_rows, -1 + 0.02 * xi - 0.1 * yi, atol=1e-8)
    np.testing.assert_allclose(along_columns, 3 + 0.1 * xi - 0.05 * yi, atol=1e-8)


def test_warping_takes_rows_first_and_fills_with_zero(rng):
    image = rng.random((12, 17))
    field = (np.full((12, 17), 3.0), np.full((12, 17), -2.0))
    out = se.warp_image(image, field)
    np.testing.assert_allclose(out[:9, 2:], image[3:, :15])
    assert not out[9:].any()
    assert not out[:, :2].any()
    with pytest.raises(ShapeError, match="vector_field"):
        se.warp_image(image, (field[0].T, field[1].T))


def test_extra_rotation_is_counter_clockwise_on_screen():
    image = np.zeros((21, 27))
    image[10, 20] = 1.0  # to the right of the centre (10, 13)
    none = (np.zeros((21, 27)),) * 2
    out = se.warp_image(image, none, extra_angle_rotation_compensation=90)
    assert np.unravel_index(out.argmax(), out.shape) == (3, 13)
    batch = np.stack([image, image[::-1], 2 * image])
    several = se.warp_images_batch(batch, none, order=1, extra_angle_rotation_compensation=90)
    np.testing.assert_allclose(several[2], 2 * out)


def test_composed_fields_equal_two_warps():
    rows, columns = np.indices((30, 40))
    image = np.sin(rows / 5.0) + np.cos(columns / 7.0)
    f1 = (0.8 + 0.02 * columns, -0.5 + 0.01 * rows)
    f2 = (-0.6 + 0.01 * rows, 0.9 - 0.015 * columns)
    twice = se.warp_image(se.warp_image(image, f1, order=3), f2, order=3)
    once = se.warp_image(image, se.compose_fields(f1, f2), order=3)
    np.testing.assert_allclose(once[8:-8, 8:-8], twice[8:-8, 8:-8], atol=5e-4)


@pytest.mark.parametrize("which", range(4))
def test_whole_data_set_from_array_or_file_to_file(data, tmp_path, which):
    """20 patterns in batches of 7."""
    named = sources(data, tmp_path)[which]
    old = named.get("data_path", named.get("dataset"))
    kept = data.copy()
    field = (np.full((KY, KX), 1.0), np.full((KY, KX), -2.0))
    target = tmp_path / "new.npy"
    out = se.unwarp_4dstem_batch(old, target, field, batch_size=7, order=1, return_data=True)
    expected = np.zeros(data.shape)
    expected[..., :-1, 2:] = data[..., 1:, :-2]
    np.testing.assert_allclose(out.reshape(data.shape), expected, atol=1e-5)
    np.testing.assert_array_equal(np.load(target), out)
    np.testing.assert_array_equal(data, kept)
    assert se.unwarp_4dstem_batch(old, target, field, order=1) is None


def test_splines_leave_no_negative_counts_and_failures_leave_no_file(rng, tmp_path):
    data = (rng.random((6, KY, KX)) > 0.9) * 100.0
    field = (np.full((KY, KX), 0.4), np.zeros((KY, KX)))
    assert se.unwarp_4dstem_batch(data, None, field, return_data=True).min() == 0
    with pytest.raises(ParamError, match="path_numpy_new"):
        se.unwarp_4dstem_batch(data, None, field)
    with pytest.raises(ShapeError, match="vector_field"):
        se.unwarp_4dstem_batch(data, tmp_path / "new.npy", (field[0].T, field[1].T))
    assert not list(tmp_path.iterdir())


# --- scan rotation -----------------------------------------------------------------------------


def scan_params(rng):
    positions = np.stack(np.meshgrid(np.arange(4.0), np.arange(5.0), indexing="ij"), -1)
    probe = np.zeros((10, 12, 1), complex)
    probe[3:7, 4:8] = 1
    return {
        "positions": positions.reshape(-1, 2) * 3, "scan_size": (4, 5), "scan_step_A": 1.5,
        "PLRotation_deg": 0.0, "pixel_size_y_A": 0.5, "pixel_size_x_A": 0.5, "acc_voltage": 80,
        "probe": probe, "dataset": rng.random((20, 10, 12)) + 1, "data_pad": 0, "epoch_max": 1,
        "output_folder": "never_written", "update_probe": False, "print_flag": 0,
    }  # fmt: skip


def test_contrast_of_one_rotation_is_that_of_its_reconstruction(rng, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = scan_params(rng)
    kept = params["positions"].copy()
    value = se.get_neg_contrast_ptycho([7.0], params)
    turned = pyptyx.rotate_scan_grid(params | {"output_folder": None}, new_pl_rot=7.0)
    result = pyptyx.run(turned)
    region = pyptyx.crop_ptycho_object_to_stem_roi(
        result.object, turned | {"positions": result.positions}
    )
    phase = np.angle(region).mean(axis=(2, 3))
    assert value == pytest.approx(-((phase - phase.mean()) ** 2).sum())
    assert value < 0
    np.testing.assert_array_equal(params["positions"], kept)
    assert params["PLRotation_deg"] == 0
    assert not list(tmp_path.iterdir())


def test_rotation_of_highest_contrast_is_found(rng, monkeypatch):
    tried = []

    def contrast(angle, params):
        tried.append(angle)
        return -np.exp(-((angle - 37.5) ** 2) / 800)

    monkeypatch.setattr(twist, "negative_contrast", contrast)
    found = se.find_twist_angle_ptycho_from_contrast({}, x0=20, bounds=[(0, 90)])
    assert found == pytest.approx(37.5, abs=0.1)
    assert min(tried) >= 0
    assert max(tried) <= 90
