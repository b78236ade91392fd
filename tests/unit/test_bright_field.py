"""The pass over the patterns: images, centres of mass, the disc, faulty pixels, memory."""

import numpy as np
import pytest

from pyptyx.data import open_source
from pyptyx.errors import DataError, ShapeError
from pyptyx.methods.bright_field import BrightField, Reading, bright_field, plan
from pyptyx.methods.disc import find_disc

SCAN, DETECTOR, CENTRE, RADIUS, DK = (5, 7), (23, 28), (11.3, 13.8), 6.4, (0.05, 0.04)


def disc(centre=CENTRE, radius=RADIUS):
    """A soft disc; the radius is in units of 1/Å over the geometric mean of both pixels."""
    y, x = np.indices(DETECTOR)
    mean = np.sqrt(DK[0] * DK[1])
    r = np.hypot((y - centre[0]) * DK[0], (x - centre[1]) * DK[1]) / mean
    return np.clip(radius - r + 0.5, 0, 1)


def patterns(seed=0, counts=60.0):
    rng = np.random.default_rng(seed)
    return rng.poisson(disc() * counts + 0.5, size=(*SCAN, *DETECTOR)).astype(np.uint16)


def read(data, n_bin=1, **reading) -> BrightField:
    return bright_field(
        open_source(data),
        dk_A=DK,
        wavelength_A=0.03,
        step_A=0.7,
        scan_size=SCAN,
        n_bin=n_bin,
        reading=Reading(**reading),
    )


@pytest.mark.parametrize("centre", [CENTRE, (9.0, 15.5)])
def test_disc_is_found(centre):
    found = find_disc(disc(centre), DK)
    np.testing.assert_allclose(found.centre_px, centre, atol=0.05)
    assert found.radius_px == pytest.approx(RADIUS, abs=0.1)


def test_disc_survives_hot_and_dead_pixels():
    image = disc()
    image[2, 3], image[11, 12], image[12, 14] = 50.0, 0.0, np.nan
    found = find_disc(image, DK)
    np.testing.assert_allclose(found.centre_px, CENTRE, atol=0.15)


def test_images_are_the_pixels_of_the_disc():
    data = patterns()
    found = read(data)
    assert found.images.dtype == data.dtype
    assert found.images.shape == (found.mask.sum(), *SCAN)
    expected = np.moveaxis(data[:, :, found.mask], -1, 0)
    np.testing.assert_array_equal(found.images, expected)
    pixels = np.argwhere(found.mask)
    np.testing.assert_allclose(found.k_A, (pixels - found.centre_px) * DK)
    share = data[:, :, found.mask].mean(axis=(0, 1)) / data.sum(axis=(2, 3)).mean()
    np.testing.assert_allclose(found.mean_fraction, share, rtol=1e-5)
    np.testing.assert_allclose(found.counts, data.sum(axis=(2, 3)))


def test_centre_of_mass_and_its_variance():
    data = patterns()
    found = read(data)
    y, x = (i * d for i, d in zip(np.indices(DETECTOR), DK, strict=True))
    total = data.sum(axis=(2, 3))
    comy, comx = (data * y).sum(axis=(2, 3)) / total, (data * x).sum(axis=(2, 3)) / total
    np.testing.assert_allclose(found.comy, comy - found.centre_px[0] * DK[0], atol=1e-6)
    np.testing.assert_allclose(found.comx, comx - found.centre_px[1] * DK[1], atol=1e-6)
    many = np.stack([read(patterns(seed)).comx for seed in range(12)])
    assert many.var() == pytest.approx(found.com_variance.mean(), rel=0.4)


@pytest.mark.parametrize("n_bin", [2, 3])
def test_bins_are_sums_at_their_centroid(n_bin):
    data = patterns()
    single, binned = read(data), read(data, n_bin)
    assert binned.mask.sum() <= single.mask.sum()
    np.testing.assert_allclose(binned.images.sum(axis=0), data[:, :, binned.mask].sum(axis=-1))
    # Counts times coordinates add up.
    used = binned.mask[single.mask]
    expected = (single.mean_fraction[used, None] * single.k_A[used]).sum(axis=0)
    found = (binned.mean_fraction[:, None] * binned.k_A).sum(axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(binned.k_A) < 1.2 * single.mask.sum() / n_bin**2


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_scale_and_type_do_not_matter(dtype):
    data = patterns()
    reference = read(data)
    scale = 1 if dtype is np.uint8 else 1e-6
    found = read((data * scale).astype(dtype))
    np.testing.assert_allclose(found.comx, reference.comx, atol=1e-6)
    np.testing.assert_allclose(
        found.spectra(slice(3, 9)), reference.spectra(slice(3, 9)), atol=1e-4
    )


def test_scratch_file_gives_the_same(tmp_path):
    data = patterns()
    found = read(data, memory_bytes=10, scratch=tmp_path)
    assert isinstance(found.images, np.memmap)
    np.testing.assert_array_equal(found.images, read(data).images)
    assert not list(tmp_path.iterdir())


def test_plan_counts_bytes():
    made = plan(100, (30, 40), np.uint16, memory_bytes=10**6)
    assert made.bytes == 100 * 30 * 40 * 2
    assert made.in_memory == (made.bytes <= 10**6)
    assert plan(100, (30, 40), np.uint16, memory_bytes=made.bytes).in_memory


def test_faulty_pixels_are_left_out():
    data = patterns().astype(np.float32)
    y, x = 11, 12
    data[2, 3, y, x] = np.nan  # once
    data[:, :, 9, 15] = np.nan  # always
    data[:, :, 13, 14] = 0  # dead
    found = read(data)
    clean = read(patterns())
    assert not found.mask[y, x]
    assert not found.mask[9, 15]
    assert not found.mask[13, 14]
    assert found.mask.sum() == clean.mask.sum() - 3
    assert np.isfinite(found.images).all()
    np.testing.assert_array_equal(found.images, np.moveaxis(data[:, :, found.mask], -1, 0))


def test_empty_frames_get_the_mean():
    data = patterns()
    data[1, 4] = 0
    found = read(data)
    assert found.counts[1, 4] == 0
    others = np.ones(SCAN, dtype=bool)
    others[1, 4] = False
    assert found.comx[1, 4] == pytest.approx(found.comx[others].mean())
    assert np.isinf(found.com_variance[1, 4])


def test_spectra_are_normalised_tapered_and_padded():
    found = read(patterns())
    image = found.images[4].astype(float)
    expected = np.fft.rfft2(image / image.mean() - 1, s=(8, 10))
    got = found.spectra(slice(4, 6), shape=(8, 10), taper_px=0)
    assert got.shape == (2, 8, 6)
    np.testing.assert_allclose(got[0], expected, atol=1e-4)
    tapered = found.spectra(slice(4, 5), taper_px=2)[0]
    assert np.abs(tapered - np.fft.rfft2(image / image.mean() - 1)).max() > 1e-3


def test_exchanged_axes_are_those_of_exchanged_data():
    data = patterns()
    exchanged = bright_field(
        open_source(np.ascontiguousarray(data.swapaxes(2, 3))),
        dk_A=DK[::-1],
        wavelength_A=0.03,
        step_A=0.7,
        scan_size=SCAN,
    )
    found = read(data).transposed()
    order = np.lexsort(np.rint(found.k_A / DK[::-1]).T[::-1])
    np.testing.assert_allclose(found.k_A[order], exchanged.k_A, atol=1e-3)
    np.testing.assert_array_equal(found.images[order], exchanged.images)
    np.testing.assert_allclose(found.comx, exchanged.comx, atol=1e-4)


def test_complaints():
    with pytest.raises(DataError, match="disc"):
        read(np.zeros((*SCAN, *DETECTOR)))
    with pytest.raises(DataError, match="n_bin"):
        read(patterns(), n_bin=12)
    with pytest.raises(ShapeError, match="scan_size"):
        bright_field(
            open_source(patterns().reshape(-1, *DETECTOR)),
            dk_A=DK, wavelength_A=0.03, step_A=0.7, scan_size=(4, 7),
        )  # fmt: skip


def test_data_are_not_modified():
    data = patterns().astype(np.float32)
    data[0, 0, 3, 3] = np.nan
    before = data.copy()
    read(data).spectra(slice(0, 5))
    np.testing.assert_array_equal(data, before)
