"""Preparation against naive loops, checks of counts, feeds."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from pyptyx.backend import free_memory_bytes
from pyptyx.data import prepare
from pyptyx.data.prepare import (
    Preparation,
    check_counts,
    fits_in_memory,
)
from pyptyx.data.source import open_source
from pyptyx.data.stream import PatternFeed
from pyptyx.errors import ParamError, ShapeError


def naive(batch, shift, b, multiplier, pad):
    """Pixel by pixel: the meaning of a preparation."""
    count, ky, kx = batch.shape
    ny, nx = ky // b + 2 * pad[0], kx // b + 2 * pad[1]
    centred = np.zeros((count, ny, nx))
    for n in range(count):
        for y in range(ky):
            for x in range(kx):
                to_y, to_x = y + shift[0], x + shift[1]
                if 0 <= to_y < ky and 0 <= to_x < kx:
                    centred[n, to_y // b + pad[0], to_x // b + pad[1]] += (
                        float(batch[n, y, x]) * multiplier
                    )
    return np.fft.ifftshift(centred, axes=(1, 2))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
@pytest.mark.parametrize(
    ("shape", "shift", "b", "multiplier", "pad"),
    [
        ((3, 6, 8), (0, 0), 1, 1.0, (0, 0)),
        ((3, 5, 9), (0, 0), 1, 1.0, (0, 0)),
        ((2, 7, 4), (2, -1), 1, 1.0, (0, 0)),
        ((2, 7, 4), (-3, 3), 1, 0.5, (0, 0)),
        ((2, 6, 12), (0, 0), 3, 1.0, (0, 0)),
        ((2, 5, 8), (0, 0), 1, 1.0, (2, 1)),
        ((2, 6, 9), (1, -2), 3, 2.5, (1, 2)),
        ((4, 10, 6), (-1, 2), 2, 3.0, (3, 0)),
    ],
)
def test_preparation_against_the_loop(shape, shift, b, multiplier, pad, dtype):
    batch = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    before = batch.copy()
    preparation = Preparation(shift=shift, bin=b, multiplier=multiplier, pad=pad, dtype=np.float64)
    got = preparation(batch)
    np.testing.assert_array_equal(got, naive(batch, shift, b, multiplier, pad))
    assert got.shape[1:] == preparation.output_shape(*shape[1:])
    np.testing.assert_array_equal(batch, before)


def test_default_is_cast_and_corner_order():
    batch = np.arange(2 * 5 * 4, dtype=np.uint16).reshape(2, 5, 4)
    got = Preparation()(batch)
    assert got.dtype == np.float32
    assert got[1, 0, 0] == batch[1, 2, 2]
    np.testing.assert_array_equal(got, np.fft.ifftshift(batch, axes=(1, 2)))


def test_sums_do_not_overflow_the_stored_dtype():
    assert Preparation(bin=2)(np.full((1, 4, 6), 255, np.uint8)).max() == 1020


def test_a_prepared_batch_is_never_the_stored_one():
    batch = np.ones((2, 4, 5), np.float32)
    Preparation()(batch)[...] = 7
    assert batch.max() == 1
    compressed = np.ones((2, 3), np.float32)
    Preparation(multiplier=2)(compressed)[...] *= 7
    assert compressed.max() == 1


def test_compressed_data_are_cast_and_multiplied_only():
    batch = np.arange(12, dtype=np.int16).reshape(4, 3)
    got = Preparation(shift=(1, 0), bin=2, pad=(1, 1), multiplier=0.5)(batch)
    np.testing.assert_array_equal(got, batch / 2)
    assert got.dtype == np.float32


class Namespace:
    """A stand-in array namespace that notes which functions are asked of it."""

    def __init__(self):
        self.used = []

    def __getattr__(self, name):
        self.used.append(name)
        return getattr(np, name)


def test_arrays_come_from_the_namespace_passed_in():
    xp = Namespace()
    Preparation(shift=(1, 1), bin=2, pad=(1, 0))(np.ones((1, 4, 6), np.uint8), xp=xp)
    assert set(xp.used) == {"zeros"}


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"shift": (0.5, 0)}, "data_shift_vector"),
        ({"shift": (1, 2, 3)}, "data_shift_vector"),
        ({"bin": 0}, "data_bin"),
        ({"bin": 1.5}, "data_bin"),
        ({"multiplier": float("nan")}, "data_multiplier"),
        ({"pad": (-1, 0)}, "data_pad"),
        ({"dtype": np.int16}, "dtype"),
    ],
)
def test_settings_are_checked(settings, key):
    with pytest.raises(ParamError) as caught:
        Preparation(**settings)
    assert [p.key for p in caught.value.problems] == [key]


def test_all_settings_are_reported_at_once():
    with pytest.raises(ParamError) as caught:
        Preparation(bin=-1, pad=(0, -1), dtype=complex)
    assert [p.key for p in caught.value.problems] == ["data_bin", "data_pad", "dtype"]


def test_what_does_not_fit_the_patterns():
    with pytest.raises(ShapeError) as caught:
        Preparation(bin=4, shift=(0, 9))(np.zeros((1, 8, 9)))
    assert [p.key for p in caught.value.problems] == ["data_bin", "data_shift_vector"]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((3, 4, 5)), []),
        (np.ones((3, 4, 5), np.uint8), []),
        (np.array([[[1.0, np.nan], [np.inf, -np.inf]]]), ["3 NaN or infinite", "1 negative"]),
        (np.array([[[1, -2, -3]]]), ["2 negative"]),
        (np.zeros((3, 4, 5)), ["zeros only"]),
    ],
)
def test_check_counts(array, words):
    assert [p.got for p in check_counts(array)] == words
    assert [p.got for p in check_counts(open_source(array))] == words


def test_one_empty_piece_is_no_empty_stack(monkeypatch):
    stack = np.zeros((6, 4, 5))
    stack[4] = 1
    source = open_source(stack)
    monkeypatch.setattr(source, "iter_chunks", lambda: ((None, p[None]) for p in stack))
    assert check_counts(source) == []


@pytest.fixture
def source(tmp_path):
    counts = np.random.default_rng(2).integers(0, 90, (11, 6, 8)).astype(np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = counts
    with open_source(tmp_path / "a.h5") as opened:
        yield opened


@pytest.mark.parametrize("resident", [True, False])
def test_feed_hands_out_prepared_batches(source, resident):
    preparation = Preparation(shift=(1, 0), bin=2, multiplier=2, pad=(1, 2))
    feed = PatternFeed(source, preparation, resident)
    wanted = preparation(source.read(slice(None)))
    assert feed.shape == wanted.shape
    for indices in (np.array([7, 0, 7]), [3, 10], slice(2, 9)):
        got = feed(indices)
        np.testing.assert_array_equal(got, wanted[indices])
        assert got.dtype == np.float32


def test_resident_feed_prepares_once_and_keeps(source):
    feed = PatternFeed(source, Preparation(), resident=True)
    source.close()
    assert feed([5]).shape == (1, 6, 8)
    with pytest.raises(ValueError, match="read-only"):
        feed(slice(0, 2))[...] = 0


def test_what_travels_has_the_stored_dtype(source):
    feed = PatternFeed(source, Preparation(), resident=False)
    raw = feed.raw([1, 2])
    assert raw.dtype == np.uint8
    np.testing.assert_array_equal(feed.unpack(raw, np), feed([1, 2]))


def test_feed_checks_shapes_at_once(source):
    with pytest.raises(ShapeError, match="data_bin"):
        PatternFeed(source, Preparation(bin=4), resident=False)


def test_fits_in_memory_counts_prepared_bytes(source, monkeypatch):
    size = 11 * (3 + 2) * (4 + 4) * 8
    preparation = Preparation(bin=2, pad=(1, 2), dtype=np.float64)
    monkeypatch.setattr(prepare, "free_memory_bytes", lambda: 4 * size)
    assert fits_in_memory(source, preparation)
    monkeypatch.setattr(prepare, "free_memory_bytes", lambda: 4 * size - 4)
    assert not fits_in_memory(source, preparation)
    assert fits_in_memory(source, preparation, fraction=0.5)


def test_free_memory_with_and_without_the_system_telling(monkeypatch):
    def refuse(*_, **__):
        raise OSError

    assert free_memory_bytes() > 1 << 20
    monkeypatch.setattr(Path, "read_text", refuse)
    assert free_memory_bytes() > 0
    monkeypatch.setattr(os, "sysconf_names", {})
    assert free_memory_bytes() == 0
