"""create_pypty_data: every step against a plain calculation, flat memory, no silent reuse."""

import json
import logging
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

import pyptyx
from pyptyx.data import conversion
from pyptyx.data.convert import create_pypty_data
from pyptyx.data.source import open_source
from pyptyx.errors import DataError, ParamError

SY, SX, KY, KX = 3, 5, 12, 9


@pytest.fixture
def raw():
    return np.random.default_rng(0).integers(0, 40, (SY, SX, KY, KX)).astype(np.uint8)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.h5"


def converted(data, out, **options):
    options = {"comx": 0, "comy": 0, "exist_ok": False} | options
    create_pypty_data(data, out, **options)
    with open_source(out) as source:
        return source.read(slice(None))


def spot(ky, kx, y, x, shape=(2, 3)):
    """Patterns with all their counts in one pixel."""
    array = np.zeros((*shape, ky, kx), np.uint16)
    array[:, :, y, x] = 10
    return array


def test_no_step_keeps_counts_in_scan_order(raw, out):
    got = converted(raw, out)
    np.testing.assert_array_equal(got, raw.reshape(-1, KY, KX))
    assert got.dtype == np.float32


def test_flips_come_before_the_swap(raw, out):
    for flag, axis in (("flip_y", 0), ("flip_x", 1), ("flip_ky", 2), ("flip_kx", 3)):
        got = converted(raw, out, **{flag: 1})
        np.testing.assert_array_equal(got, np.flip(raw, axis).reshape(-1, KY, KX))
    got = converted(raw, out, flip_ky=True, flip_x=True, swap_axes=True)
    wanted = raw[:, ::-1, ::-1].swapaxes(2, 3).reshape(-1, KX, KY)
    np.testing.assert_array_equal(got, wanted)


def test_negative_counts_become_zero(raw, out):
    signed = raw.astype(np.int16) - 20
    np.testing.assert_array_equal(converted(signed, out), np.maximum(signed, 0).reshape(-1, KY, KX))


@pytest.mark.parametrize(("ky", "kx"), [(12, 9), (11, 16)])
@pytest.mark.parametrize("dy", [-3, 0, 1])
@pytest.mark.parametrize("dx", [-2, 0, 3])
def test_the_centre_of_mass_lands_on_half_n(ky, kx, dy, dx, out):
    got = converted(spot(ky, kx, ky // 2 + dy, kx // 2 + dx), out, comx=None, comy=None)
    assert (got[:, ky // 2, kx // 2] == 10).all()


@pytest.mark.parametrize(("com", "moved"), [(0.5, -1), (-0.5, 1), (1.5, -2), (2.4, -2), (-2.6, 3)])
def test_halves_round_away_from_zero(com, moved, out):
    got = converted(spot(KY, KX, 6, 4), out, comy=com)
    assert (got[:, 6 + moved, 4] == 10).all()


def test_what_leaves_the_frame_does_not_come_back(raw, out):
    got = converted(raw, out, comy=2, comx=-3)
    wanted = np.zeros((SY * SX, KY, KX))
    wanted[:, :-2, 3:] = raw.reshape(-1, KY, KX)[:, 2:, :-3]
    np.testing.assert_array_equal(got, wanted)


def test_a_shift_beyond_the_frame_leaves_nothing(raw, out):
    assert converted(raw, out, comy=KY).max() == 0
    assert converted(raw, out, comx=-KX - 3).max() == 0


def test_com_weighs_counts_and_survives_empty_patterns(out):
    data = np.zeros((2, 3, KY, KX), np.float32)
    data[0, 1, 9, 4] = 30  # 3 px below N//2
    data[1, 2, 6, 4] = 1
    assert converted(data, out, comx=None, comy=None)[1, 6, 4] == 30
    assert converted(np.zeros_like(data), out, comx=None, comy=None).max() == 0


def test_comcalc_len_counts_patterns_as_flipped(out):
    data = spot(KY, KX, 8, 4)
    data[:, -1] = 0
    data[:, -1, 3, 4] = 10
    got = converted(data, out, comx=None, comy=None, comcalc_len=1, flip_x=True)
    assert got[0, 6, 4] == 10
    got = converted(data, out, comx=None, comy=None, comcalc_len=1)
    assert got[0, 6, 4] == 10
    assert got[2, 1, 4] == 10


def test_subpixel_shift_keeps_counts_and_centre(out):
    data = spot(KY, KX, 6, 4)
    data[..., 7, 4] = 30
    got = converted(data, out, comx=None, comy=None, subpixel=True)[0]
    assert got.sum() == 40
    np.testing.assert_allclose(got.sum(1) @ np.arange(KY) / 40, KY // 2)
    shifted = converted(spot(KY, KX, 6, 4), out, comy=-0.25, comx=0.5, subpixel=True)[0]
    wanted = np.zeros((KY, KX))
    wanted[6:8, 3:5] = 10 * np.outer([0.75, 0.25], [0.5, 0.5])
    np.testing.assert_allclose(shifted, wanted)


def test_cutoff_is_round_half_n(out):
    data = np.ones((1, 2, KY, KX))
    y, x = np.mgrid[:KY, :KX]
    wanted = np.hypot(y - 6, x - 4) < 0.6 * KX / 2
    np.testing.assert_array_equal(converted(data, out, cutoff_ratio=0.6)[1], wanted)


def test_normalise_and_rescale_accept_integers(raw, out):
    flat = raw.reshape(-1, KY, KX)
    got = converted(raw, out, normalize=True, rescale=4, comcalc_len=6)
    np.testing.assert_allclose(got, flat / flat[:6].sum((1, 2)).mean() / 4, rtol=1e-6)
    np.testing.assert_allclose(converted(raw, out, rescale=4), flat / 4)
    with pytest.raises(DataError, match="zeros only"):
        converted(raw * 0, out, normalize=True)


def test_crop_bin_and_pad_each_axis_by_its_own_length(raw, out):
    got = converted(raw, out, crop_top=1, crop_left=2, crop_right=0, crop_bottom=0, bin=3, pad_k=2)
    flat = raw.reshape(-1, KY, KX).astype(float)[:, 1:, 2:][:, :9, :6]  # 11 x 7 px: remainder gone
    wanted = np.zeros((SY * SX, 3 + 4, 2 + 4))
    for i in range(3):
        for j in range(2):
            block = flat[:, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3]
            wanted[:, 2 + i, 2 + j] = block.sum((1, 2))
    np.testing.assert_array_equal(got, wanted)
    assert converted(raw, out, crop_bottom=4, crop_right=1).shape == (SY * SX, 8, 8)


def test_a_crop_that_moves_the_centre_is_announced(raw, out, caplog):
    converted(raw, out, crop_left=1, crop_right=1)
    assert not caplog.records
    converted(raw, out, crop_top=4)
    assert "zero frequency at index (2, 4)" in caplog.text


def test_dtypes(raw, out):
    assert converted(raw, out, data_dtype=None).dtype == np.uint8
    assert converted(raw, out, data_dtype=None, rescale=2).dtype == np.float32
    assert converted(raw, out, data_dtype=np.uint16, bin=3).max() > 255
    assert converted(np.full((2, 3, 5, 4), 2.6), out, data_dtype="uint8").max() == 3
    with pytest.raises(DataError, match="data_dtype"):
        converted(raw, out, data_dtype=None, bin=3)


@pytest.mark.parametrize("kind", ["npy", "h5", "h5_3d"])
def test_files_in(kind, raw, out, tmp_path):
    path = tmp_path / ("raw.npy" if kind == "npy" else "raw.hdf5")
    options = {}
    if kind == "npy":
        np.save(path, raw)
    else:
        options = {"h5_key": "some/where"}
        with h5py.File(path, "w") as file:
            file["some/where"] = raw if kind == "h5" else raw.reshape(-1, KY, KX)
            file["else"] = raw
    np.testing.assert_array_equal(converted(path, out, **options), raw.reshape(-1, KY, KX))


def test_attributes_tell_how_the_file_was_made(raw, out):
    create_pypty_data(raw, out, comx=1, comy=np.float32(2), bin=np.int64(2), data_dtype=np.uint16)
    with h5py.File(out) as file:
        assert file["data"].chunks is None
        notes = dict(file["data"].attrs)
    assert tuple(notes["scan_size"]) == (SY, SX)
    assert notes["axes"] == "N,ky,kx"
    assert notes["source"] == "dataset"
    assert notes["pyptyx_version"] == pyptyx.__version__
    log = json.loads(notes["log"])
    assert log["conversion"]["comy"] == 2
    assert log["conversion"]["data_dtype"] == "uint16"
    assert log["source"]["shape"] == [SY * SX, KY, KX]
    with open_source(out) as source:
        assert source.scan_size == (SY, SX)


# --- existing files ---------------------------------------------------------------------------


def test_an_equal_existing_file_is_kept(raw, out, caplog):
    create_pypty_data(raw, out)
    stamp = out.stat().st_mtime_ns
    create_pypty_data(raw, out)
    create_pypty_data(raw.copy(), out, exist_ok="match")
    assert out.stat().st_mtime_ns == stamp
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_different_existing_file_is_never_silently_reused(raw, out, caplog):
    create_pypty_data(raw, out)
    create_pypty_data(raw, out, bin=3)
    assert "bin (1, now 3)" in caplog.text
    with pytest.raises(DataError, match="rescale"):
        create_pypty_data(raw, out, rescale=2, exist_ok="match")
    with pytest.raises(DataError, match="crc32"):
        create_pypty_data(raw + 1, out, exist_ok="match")
    with open_source(out) as source:
        assert source.shape == (SY * SX, KY, KX)


def test_a_file_without_a_log_counts_as_different(raw, out, caplog):
    out.write_bytes(b"something else")
    create_pypty_data(raw, out)
    assert "no record" in caplog.text
    assert out.read_bytes() == b"something else"


def test_a_changed_input_file_is_noticed(raw, out, tmp_path):
    np.save(tmp_path / "raw.npy", raw)
    create_pypty_data(tmp_path / "raw.npy", out)
    np.save(tmp_path / "raw.npy", raw[:2])
    with pytest.raises(DataError, match="bytes"):
        create_pypty_data(tmp_path / "raw.npy", out, exist_ok="match")


def test_exist_ok_false_writes_anew(raw, tmp_path):
    out = tmp_path / "any_name"
    out.write_bytes(b"old")
    converted(raw, out)


def test_a_failure_leaves_neither_a_new_file_nor_a_broken_old_one(raw, out, tmp_path):
    out.write_bytes(b"old")
    with pytest.raises(DataError, match="data_dtype"):
        converted(raw, out, data_dtype=None, bin=3)
    assert out.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.h5"]


# --- wrong input ------------------------------------------------------------------------------


def keys_of(error):
    return [p.key for p in error.value.problems]


def test_settings_are_checked_all_at_once(raw, out):
    with pytest.raises(ParamError) as caught:
        create_pypty_data(
            raw, out, bin=0, crop_left=-1, pad_k=1.5, rescale=0, comcalc_len=0, comx=float("nan")
        )
    assert sorted(keys_of(caught)) == [
        "bin",
        "comcalc_len",
        "comx",
        "crop_left",
        "pad_k",
        "rescale",
    ]
    with pytest.raises(ParamError) as caught:
        create_pypty_data(raw, out, crop_top=6, crop_bottom=6, bin=10)
    assert keys_of(caught) == ["crop_top/crop_bottom/bin", "crop_left/crop_right/bin"]
    assert not out.exists()


def test_what_cannot_be_converted(raw, out, tmp_path):
    with pytest.raises(ParamError, match="flip_y"):
        create_pypty_data(raw[0], out, flip_y=True)
    with pytest.raises(ParamError, match="ky, kx"):
        create_pypty_data(np.zeros((4, 3)), out)
    with pytest.raises(DataError, match="nothing there"):
        create_pypty_data(tmp_path / "none.npy", out)
    with pytest.raises(DataError, match="finite"):
        create_pypty_data(np.full((2, 3, 5, 4), np.nan), out)
    assert not out.exists()


def test_paths_are_checked(raw, out, tmp_path):
    np.save(tmp_path / "raw.npy", raw)
    for target, options in (
        (tmp_path, {}),
        (tmp_path / "none" / "out.h5", {}),
        (tmp_path / "raw.npy", {"exist_ok": False}),
        (out, {"exist_ok": "maybe"}),
    ):
        with pytest.raises(ParamError):
            create_pypty_data(tmp_path / "raw.npy", target, **options)
    np.testing.assert_array_equal(np.load(tmp_path / "raw.npy"), raw)


# --- memory -----------------------------------------------------------------------------------


def test_memory_is_flat(tmp_path, out, monkeypatch):
    monkeypatch.setattr(conversion, "PIECE_BYTES", 1 << 18)
    shape = (40, 50, 64, 48)  # 6.1 MB stored, 24.6 MB in the working dtype
    array = np.lib.format.open_memmap(tmp_path / "raw.npy", "w+", np.uint8, shape)
    array[...] = 1
    array.flush()
    del array
    tracemalloc.start()
    create_pypty_data(tmp_path / "raw.npy", out, normalize=True, comcalc_len=None, pad_k=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6
    with open_source(out) as source:
        assert source.shape == (2000, 66, 50)


# --- the demo data ----------------------------------------------------------------------------


def test_the_demo_data_are_centred_and_calibrated():
    path = Path(__file__).parents[2] / "examples" / "data" / "cryo_rotavirus.h5"
    assert path.stat().st_size < 4.8e6
    with open_source(path) as source:
        assert source.scan_size == (64, 64)
        mean = source.mean(limit=640)
    y, x = (np.arange(n) - n // 2 for n in mean.shape)
    assert abs(mean.sum(1) @ y / mean.sum()) < 0.5
    assert abs(mean.sum(0) @ x / mean.sum()) < 0.5
    with h5py.File(path) as file:
        notes, positions = dict(file.attrs), file["positions"][()]
        angle = np.deg2rad(notes["PLRotation_deg"])
    iy, ix = np.mgrid[:64, :64]
    wanted = notes["scan_step_A"] * np.stack(
        [ix * np.sin(angle) + iy * np.cos(angle), ix * np.cos(angle) - iy * np.sin(angle)], axis=-1
    )
    wanted -= wanted.min((0, 1))
    np.testing.assert_allclose(positions, wanted, atol=1e-6)
