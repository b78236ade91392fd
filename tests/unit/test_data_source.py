"""Opening patterns: every layout, lazy reading, threads, every error."""

import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from pyptyx.data import hdf5
from pyptyx.data.source import open_source
from pyptyx.errors import DataError

SY, SX, KY, KX, NMASK = 5, 7, 6, 4, 3
N = SY * SX


@pytest.fixture
def stack():
    """Counts (sy, sx, ky, kx), all different."""
    return np.arange(SY * SX * KY * KX, dtype=np.uint16).reshape(SY, SX, KY, KX)


def write_h5(path, array, key="data", **options):
    with h5py.File(path, "w") as file:
        file.create_dataset(key, data=array, **options)
    return path


LAYOUTS = {
    "array4": lambda a, p: a,
    "array3": lambda a, p: a.reshape(N, KY, KX),
    "npy4": lambda a, p: saved(p / "a.npy", a),
    "npy3": lambda a, p: saved(p / "a.npy", a.reshape(N, KY, KX)),
    "npy4_fortran": lambda a, p: saved(p / "a.npy", np.asfortranarray(a)),
    "npy3_fortran": lambda a, p: saved(p / "a.npy", np.asfortranarray(a.reshape(N, KY, KX))),
    "h5_4": lambda a, p: write_h5(p / "a.h5", a),
    "h5_3": lambda a, p: write_h5(p / "a.hdf5", a.reshape(N, KY, KX)),
    "h5_4_chunked": lambda a, p: write_h5(p / "a.nxs", a, chunks=(2, 3, 4, 3)),
    "h5_4_row_chunks": lambda a, p: write_h5(p / "a.emd", a, chunks=(1, SX, KY, KX)),
    "h5_3_chunked": lambda a, p: write_h5(
        p / "a.cxi", a.reshape(N, KY, KX), chunks=(4, 5, 2), compression="gzip"
    ),
    "h5_other_name": lambda a, p: write_h5(p / "a.raw", a),
}


def saved(path, array):
    np.save(path, array)
    return path


REQUESTS = {
    "slice": slice(3, 20),
    "stepped": slice(30, 2, -3),
    "empty": slice(4, 4),
    "scattered": np.array([33, 2, 2, 9, 0, 34, 10, 11, 2]),
    "list": [8, 7],
    "int32": np.array([6, 34], dtype=np.int32),
    "none": [],
}


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_reads_the_same_patterns(layout, request_name, stack, tmp_path):
    indices = REQUESTS[request_name]
    wanted = stack.reshape(N, KY, KX)[
        np.asarray(indices, int) if not isinstance(indices, slice) else indices
    ]
    with open_source(LAYOUTS[layout](stack, tmp_path)) as source:
        got = source.read(indices)
        assert source.shape == (N, KY, KX)
        assert len(source) == N
        assert source.dtype == got.dtype == np.uint16
        assert source.scan_size == ((SY, SX) if "4" in layout or "name" in layout else None)
    np.testing.assert_array_equal(got, wanted)
    assert got.flags.c_contiguous
    assert got.flags.writeable


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flip_comes_before_transpose(layout, stack, tmp_path):
    data = LAYOUTS[layout](stack, tmp_path)
    flat = stack.reshape(N, KY, KX)
    with open_source(data, flip_ky=True) as source:
        np.testing.assert_array_equal(source.read([4, 1]), flat[[4, 1], ::-1])
    with open_source(data, transpose=True) as source:
        assert source.shape == (N, KX, KY)
        np.testing.assert_array_equal(source.read([4]), flat[[4]].transpose(0, 2, 1))
    with open_source(data, flip_ky=True, transpose=True) as source:
        np.testing.assert_array_equal(source.read([4]), flat[[4], ::-1].transpose(0, 2, 1))
        np.testing.assert_array_equal(source.mean(), flat[:, ::-1].mean(0).T)


def test_reading_an_array_never_hands_out_its_memory(stack):
    before = stack.copy()
    open_source(stack).read(slice(0, 4))[...] = 0
    np.testing.assert_array_equal(stack, before)


@pytest.mark.parametrize("kind", ["h5", "npy", "array"])
def test_compressed_data(kind, tmp_path):
    array = np.arange(N * NMASK, dtype=float).reshape(N, NMASK)
    data = {
        "array": lambda: array,
        "npy": lambda: saved(tmp_path / "c.npy", array),
        "h5": lambda: write_h5(tmp_path / "c.h5", array, chunks=(4, 2)),
    }[kind]()
    with open_source(data, scan_size=(SY, SX)) as source:
        assert source.shape == (N, NMASK)
        assert source.scan_size == (SY, SX)
        np.testing.assert_array_equal(source.read([30, 2]), array[[30, 2]])
        np.testing.assert_allclose(source.sums(), array.sum(1))


def test_compressed_scan_is_recognised_by_its_scan_size():
    array = np.arange(N * NMASK).reshape(SY, SX, NMASK)
    source = open_source(array, scan_size=(SY, SX))
    assert source.shape == (N, NMASK)
    np.testing.assert_array_equal(source.read([SX + 2])[0], array[1, 2])


def test_mean_sums_and_chunks_stream_in_float64(tmp_path):
    counts = np.random.default_rng(1).integers(200, 256, (N, KY, KX)).astype(np.uint8)
    with open_source(write_h5(tmp_path / "a.h5", counts, chunks=(4, 3, 2))) as source:
        np.testing.assert_allclose(source.mean(), counts.mean(0, dtype=float), rtol=1e-14)
        np.testing.assert_allclose(source.mean(limit=9), counts[:9].mean(0, dtype=float))
        np.testing.assert_array_equal(source.sums(), counts.sum((1, 2), dtype=float))
        pieces = list(source.iter_chunks(max_bytes=11 * KY * KX))
        with pytest.raises(ValueError, match="limit"):
            source.mean(limit=0)
    assert [w.start for w, _ in pieces] == list(range(0, N, 8))  # whole storage chunks of 4
    np.testing.assert_array_equal(np.concatenate([p for _, p in pieces]), counts)
    assert all(p.nbytes <= 11 * KY * KX for _, p in pieces)


def test_a_piece_holds_at_least_one_pattern(stack):
    assert [len(p) for _, p in open_source(stack).iter_chunks(max_bytes=1)] == [1] * N


class Spy:
    """A data set that notes the boxes read from it."""

    def __init__(self, dataset):
        self.dataset = dataset
        self.boxes = []

    def __getitem__(self, box):
        self.boxes.append(tuple((s.start, s.stop) for s in box))
        return self.dataset[box]


def spied(source, monkeypatch):
    spy = Spy(source._dataset)
    monkeypatch.setattr(source, "_dataset", spy)
    return spy


def test_scattered_reads_are_contiguous_runs(stack, tmp_path, monkeypatch):
    path = write_h5(tmp_path / "a.h5", stack.reshape(N, KY, KX))
    with open_source(path) as source:
        spy = spied(source, monkeypatch)
        source.read([20, 3, 4, 5, 21, 4, 30])
    assert sorted(spy.boxes) == [((3, 6),), ((20, 22),), ((30, 31),)]


def test_no_chunk_is_read_twice_in_one_call(stack, tmp_path, monkeypatch):
    path = write_h5(tmp_path / "a.h5", stack, chunks=(2, 3, KY, KX))
    with open_source(path) as source:
        spy = spied(source, monkeypatch)
        # (0, 0), (1, 2): one chunk; (0, 6): another; (4, 1): a third.
        got = source.read([4 * SX + 1, SX + 2, 6, 0])
    assert sorted(spy.boxes) == [((0, 1), (6, 7)), ((0, 2), (0, 3)), ((4, 5), (1, 2))]
    np.testing.assert_array_equal(got, stack[[4, 1, 0, 0], [1, 2, 6, 0]])


def test_blocks_are_bounded(stack, tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "_BLOCK_BYTES", 4 * KY * KX * 2)
    with open_source(write_h5(tmp_path / "a.h5", stack.reshape(N, KY, KX))) as source:
        spy = spied(source, monkeypatch)
        got = source.read(slice(None))
    assert max(b[0][1] - b[0][0] for b in spy.boxes) == 4
    np.testing.assert_array_equal(got, stack.reshape(N, KY, KX))


@pytest.mark.parametrize("suffix", [".npy", ".h5"])
def test_nothing_reads_the_whole_file(suffix, tmp_path):
    path = tmp_path / f"big{suffix}"
    shape = (3000, 64, 48)  # 9.2 MB
    if suffix == ".npy":
        array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        array[::100] = 3
        array.flush()
        del array
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("data", shape, "u1")[::100] = 3
    tracemalloc.start()
    with open_source(path) as source:
        source.read(np.arange(0, 3000, 100))
        for _ in source.iter_chunks(max_bytes=1 << 19):
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6


@pytest.mark.parametrize("layout", ["h5_4_chunked", "npy3", "array4"])
def test_threads_read_right_patterns(layout, stack, tmp_path):
    rng = np.random.default_rng(3)
    requests = [rng.integers(0, N, 9) for _ in range(60)]
    with (
        open_source(LAYOUTS[layout](stack, tmp_path)) as source,
        ThreadPoolExecutor(4) as pool,
    ):
        for indices, got in zip(requests, pool.map(source.read, requests), strict=True):
            np.testing.assert_array_equal(got, stack.reshape(N, KY, KX)[indices])


@pytest.mark.parametrize("bad", [[-1], [N], [0.5], [[1, 2]], [True]])
def test_indices_are_checked(bad, stack):
    with pytest.raises(IndexError):
        open_source(stack).read(bad)


@pytest.mark.parametrize("layout", ["h5_3", "npy3", "array3"])
def test_a_closed_source_says_so(layout, stack, tmp_path):
    source = open_source(LAYOUTS[layout](stack, tmp_path))
    source.close()
    source.close()
    with pytest.raises(DataError, match="closed"):
        source.read([0])


# --- HDF5: which data set --------------------------------------------------------------------


def test_default_key_wins_over_other_data_sets(stack, tmp_path):
    path = write_h5(tmp_path / "a.h5", stack)
    with h5py.File(path, "a") as file:
        file["other"] = stack[:2]
    assert open_source(path).scan_size == (SY, SX)


def test_the_only_candidate_is_found_through_links(stack, tmp_path):
    path = write_h5(tmp_path / "a.nxs", stack, key="entry/detector/frames")
    with h5py.File(path, "a") as file:
        file["entry/data/data"] = h5py.SoftLink("/entry/detector/frames")
        file["entry/gone"] = h5py.SoftLink("/nowhere")
        file["entry/far"] = h5py.ExternalLink("missing.h5", "/x")
        file["entry/positions"] = np.zeros((N, 2))
        file["entry/wave"] = np.zeros((3, KY, KX), complex)
        file["entry/loop"] = file["entry"]
    with open_source(path) as source:
        np.testing.assert_array_equal(source.read([8])[0], stack[1, 1])
    with open_source(path, h5_key="entry/data/data") as source:
        assert source.shape == (N, KY, KX)


def test_external_links_are_followed(stack, tmp_path):
    write_h5(tmp_path / "frames.h5", stack, key="frames")
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["entry/data_1"] = h5py.ExternalLink("frames.h5", "/frames")
    with open_source(tmp_path / "master.h5") as source:
        assert source.scan_size == (SY, SX)


def test_several_candidates_are_listed_with_shapes(stack, tmp_path):
    path = write_h5(tmp_path / "a.h5", stack, key="first")
    with h5py.File(path, "a") as file:
        file["group/second"] = stack[0]
    with pytest.raises(DataError, match=r"/first \(5, 7, 6, 4\) uint16, /group/second \(7, 6, 4\)"):
        open_source(path)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("entry/dta", "Did you mean /entry/data?"),
        ("entry", r"'entry', which is a group. Did you mean /entry/data\?"),
        ("zzzz", r"Data sets: /entry/data \(5, 7, 6, 4\) uint16"),
    ],
)
def test_missing_key(key, message, stack, tmp_path):
    path = write_h5(tmp_path / "a.h5", stack, key="entry/data")
    with pytest.raises(DataError, match=message) as caught:
        open_source(path, h5_key=key)
    assert caught.value.problems[0].key == "h5_key"


def test_hdf5_without_patterns(tmp_path):
    with pytest.raises(DataError, match=r"/x \(4,\) float64"):
        open_source(write_h5(tmp_path / "a.h5", np.zeros(4), key="x"))
    h5py.File(tmp_path / "empty.h5", "w").close()
    with pytest.raises(DataError, match="no data sets"):
        open_source(tmp_path / "empty.h5")


def test_scan_size_noted_in_the_file_is_used_if_it_fits(stack, tmp_path):
    path = write_h5(tmp_path / "a.h5", stack.reshape(N, KY, KX))
    for noted, wanted in (((SY, SX), (SY, SX)), ((SY, SX + 1), None), ("text", None)):
        with h5py.File(path, "a") as file:
            file["data"].attrs["scan_size"] = noted
        with open_source(path) as source:
            assert source.scan_size == wanted
    with open_source(path, scan_size=(1, N)) as source:
        assert source.scan_size == (1, N)


# --- errors ----------------------------------------------------------------------------------


def problems_of(data, **options):
    with pytest.raises(DataError) as caught:
        open_source(data, **options)
    return caught.value.problems


WRONG_ARRAYS = [
    (np.zeros(7), "an array"),
    (np.zeros((2, 3, 4, 5, 6)), "an array"),
    (np.zeros((3, 0, 4)), "at least one element"),
    (np.zeros((3, 5, 4), complex), "real numbers"),
    (np.full((3, 5, 4), "text"), "real numbers"),
    (np.zeros((3, 5, 4), "datetime64[s]"), "real numbers"),
    (np.zeros((3, 5, 4), object), "real numbers"),
]


@pytest.mark.parametrize(
    ("kind", "array", "expected"),
    [("array", *case) for case in WRONG_ARRAYS]
    + [("npy", *case) for case in WRONG_ARRAYS[:-1]]  # objects are a pickle, tested below
    + [("h5", *case) for case in WRONG_ARRAYS[:-3]],  # HDF5 stores text in another way
)
def test_wrong_arrays(kind, array, expected, tmp_path):
    data = {
        "array": lambda: array,
        "npy": lambda: saved(tmp_path / "a.npy", array),
        "h5": lambda: write_h5(tmp_path / "a.h5", array),
    }[kind]()
    (problem,) = problems_of(data)
    assert problem.expected.startswith(expected)


def test_text_in_hdf5_is_refused(tmp_path):
    path = write_h5(tmp_path / "a.h5", np.array([["a", "b"]], dtype=h5py.string_dtype()))
    assert "dtype object" in problems_of(path)[0].got


def test_all_problems_come_at_once():
    got = problems_of(np.zeros((3, 0), complex))
    assert len(got) == 2


@pytest.mark.parametrize("layout", ["array4", "array3", "npy3", "h5_4"])
@pytest.mark.parametrize("scan_size", [(SY, SX + 1), (0, 4), (N,), (3, 4, 5)])
def test_scan_size_is_checked(layout, scan_size, stack, tmp_path):
    (problem,) = problems_of(LAYOUTS[layout](stack, tmp_path), scan_size=scan_size)
    assert problem.key == "scan_size"


def test_a_transposed_scan_size_is_refused_where_it_shows(stack):
    assert problems_of(stack, scan_size=(SX, SY))[0].key == "scan_size"
    assert open_source(stack.reshape(N, 1, KY, KX), scan_size=(SX, SY)).scan_size == (SX, SY)


def test_compressed_data_have_no_axes_to_turn():
    assert problems_of(np.zeros((N, NMASK)), flip_ky=True)[0].key == "flip_ky/transpose"


def test_files_that_are_not_there(tmp_path):
    (problem,) = problems_of(tmp_path / "none.h5")
    assert problem.key == str(tmp_path / "none.h5")
    assert problem.got == "nothing there"
    assert problems_of(tmp_path)[0].got == "a folder"
    assert problems_of(None)[0].got == "NoneType"


@pytest.mark.parametrize("name", ["a.h5", "a.npy", "a.mat", "a.bin"])
@pytest.mark.parametrize("content", [b"", b"no patterns here", b"PK\x03\x04 half an archive"])
def test_unreadable_files(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    (problem,) = problems_of(tmp_path / name)
    assert problem.key == str(tmp_path / name)


@pytest.mark.parametrize("name", ["a.h5", "a.npy"])
def test_truncated_files(name, tmp_path):
    path = tmp_path / name
    array = np.ones((40, 50, 60))
    if name.endswith("npy"):
        saved(path, array)
    else:
        write_h5(path, array)
    os.truncate(path, path.stat().st_size // 2)
    assert "complete" in problems_of(path)[0].expected


def test_a_pickle_is_never_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object))
    assert "complete .npy file of numbers" in problems_of(tmp_path / "a.npy")[0].expected


def test_an_npz_archive_is_refused(tmp_path):
    with open(tmp_path / "a.npy", "wb") as file:
        np.savez(file, a=np.zeros((2, 3, 4)))
    assert "another format" in problems_of(tmp_path / "a.npy")[0].got


def test_a_chunk_that_cannot_be_decompressed_is_a_data_error(tmp_path):
    path = write_h5(tmp_path / "a.h5", np.ones((6, 40, 50)), chunks=(6, 40, 50), compression="gzip")
    with h5py.File(path) as file:
        where = file["data"].id.get_chunk_info(0).byte_offset
    with open(path, "r+b") as raw:
        raw.seek(where)
        raw.write(b"\xff" * 8)
    with open_source(path) as source, pytest.raises(DataError, match="damaged"):
        source.read([0])
