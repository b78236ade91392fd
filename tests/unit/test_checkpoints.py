"""What a run leaves on disk: the state in one file, and the arrays for users."""

import json

import numpy as np
import pytest

from pyptyx.errors import DataError
from pyptyx.files import remove_unfinished, replacing
from pyptyx.initialize import prepare_restart
from pyptyx.output import checkpoints, store
from pyptyx.params import save_params

CONTENT = {
    "epoch": 3,
    "value": 0.1 + 0.2,
    "best": float("-inf"),
    "nothing": None,
    "names": ("object", "probe"),
    "x": {
        "object": np.arange(24, dtype=np.complex64).reshape(1, 2, 3, 4) / 7,
        "positions": np.asfortranarray(np.arange(10.0).reshape(5, 2)),
        "diagonal": np.asarray(2.5, np.float32),
        "empty": np.empty((0, 2)),
    },
    "pairs": [({"a": np.ones(3)}, {"a": np.zeros(3)}, np.float64(0.3))],
}


def test_a_state_comes_back_bit_by_bit(tmp_path):
    store.save(tmp_path, CONTENT)
    got = store.load(tmp_path)
    assert list(got) == list(CONTENT)
    for key in ("epoch", "value", "best", "nothing", "names"):
        assert got[key] == CONTENT[key]
        assert type(got[key]) is type(CONTENT[key])
    for name, array in CONTENT["x"].items():
        assert got["x"][name].dtype == array.dtype
        assert got["x"][name].flags.f_contiguous == array.flags.f_contiguous
        np.testing.assert_array_equal(got["x"][name], array)
    ((s, y, rho),) = got["pairs"]
    assert (s["a"].tolist(), y["a"].tolist(), rho) == ([1, 1, 1], [0, 0, 0], 0.3)


def test_nothing_is_pickled(tmp_path):
    store.save(tmp_path, CONTENT)
    with np.load(tmp_path / store.CURRENT, allow_pickle=False) as archive:
        kinds = {archive[name].dtype.kind for name in archive.files}
    assert kinds <= set("fcu")


def test_one_generation_is_kept(tmp_path):
    for epoch in range(3):
        store.save(tmp_path, {"epoch": epoch})
    assert store.load(tmp_path) == {"epoch": 2}
    (tmp_path / store.CURRENT).unlink()
    assert store.load(tmp_path) == {"epoch": 1}
    store.discard(tmp_path)
    assert store.load(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_checksum_is_noticed(tmp_path, caplog):
    """The archive itself may be intact."""
    store.save(tmp_path, CONTENT)
    path = tmp_path / store.CURRENT
    with np.load(path) as archive:
        members = dict(archive)
    members["a0"] = members["a0"] + 1
    np.savez(path, **members)
    assert store.load(tmp_path) is None
    assert "checksum" in caplog.text


def test_another_version_is_passed_over(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(store, "VERSION", store.VERSION + 1)
    store.save(tmp_path, CONTENT)
    monkeypatch.undo()
    assert store.load(tmp_path) is None
    assert "version" in caplog.text


def test_leftovers_of_a_killed_process_go(tmp_path):
    class Killed(BaseException):
        pass

    def write(survives):
        with replacing(tmp_path / "co.npy") as temporary:
            temporary.write_bytes(b"half")
            if not survives:
                temporary.with_name(temporary.name).rename(tmp_path / "kept")
                raise Killed

    with pytest.raises(Killed):
        write(survives=False)
    (tmp_path / "kept").rename(tmp_path / ".co.01234567.part.npy")
    (tmp_path / ".hidden.npy").touch()
    remove_unfinished(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".hidden.npy"]


# ---- folders of PyPty, and folders without a state ---------------------------------------------


def arrays(tag):
    return {
        "obj": np.full((6, 5, 2, 1), tag + 0j),
        "probe": np.full((4, 3, 2), tag + 1j),
        "positions": np.full((7, 2), float(tag)),
    }


@pytest.fixture
def pypty_folder(tmp_path):
    """A run of PyPty with 10 epochs planned: parameters as a pickle, arrays, a log."""

    def make(last_epoch, **params):
        defaults = {"epoch_max": 10, "aberrations": np.ones(3), "extra_probe_defocus": 40.0}
        save_params(tmp_path, {**defaults, **params})
        for name in ("params.json", "params.npz"):
            (tmp_path / name).unlink()
        for key, array in arrays(1).items():
            np.save(tmp_path / checkpoints.CURRENT[key], array)
        rows = "".join(f"{epoch},0.1,5\n" for epoch in range(last_epoch + 1))
        (tmp_path / "loss.csv").write_text("epoch,time / s,loss\n" + rows)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("last", "every", "expected"), [(6, 1, 7), (6, 4, 5), (9, 4, 10), (6, 0, 0), (-1, 1, 0)]
)
def test_the_epoch_of_the_current_files_follows_from_the_log(pypty_folder, last, every, expected):
    folder = pypty_folder(last, save_inter_checkpoints=every)
    assert prepare_restart(folder)["epoch_prev"] == expected


def test_nothing_acts_twice(pypty_folder):
    """BUG-15: C10 of the beam is not doubled."""
    params = prepare_restart(f"{pypty_folder(4)}/")
    for key, array in arrays(1).items():
        np.testing.assert_array_equal(params[key], array)
    assert params["skip_preprocessing"] is True
    assert params["extra_space_on_side_px"] == 0
    assert params["extra_probe_defocus"] == 0
    for key in ("aberrations", "beam_ctf", "n_hermite_probe_modes", "mc_n_modes"):
        assert params[key] is None
    assert params["resume_from"] is None


def test_numbered_copies_win_if_they_are_newer(pypty_folder):
    folder = pypty_folder(8, save_inter_checkpoints=5)
    for key, n in (("obj", 3), ("obj", 7), ("probe", 3), ("obj", 9)):
        np.save(folder / checkpoints.NUMBERED[key].format(n), arrays(n)[key])
    params = prepare_restart(folder)
    assert params["epoch_prev"] == 8  # 9 is not in the log: a file of another run
    assert params["obj"][0, 0, 0, 0] == 7
    assert params["probe"][0, 0, 0] == 3 + 1j
    assert params["positions"][0, 0] == 1


def test_a_half_written_array_is_passed_over(pypty_folder, caplog):
    folder = pypty_folder(8)
    np.save(folder / checkpoints.NUMBERED["obj"].format(5), arrays(5)["obj"])
    (folder / "cp.npy").write_bytes((folder / "cp.npy").read_bytes()[:-9])
    np.save(folder / checkpoints.NUMBERED["probe"].format(5), arrays(5)["probe"])
    assert prepare_restart(folder)["epoch_prev"] == 6
    assert "cp.npy" in caplog.text


def test_arrays_of_another_run_are_not_taken(pypty_folder, caplog):
    """A run was started anew in the folder and killed before it wrote any array."""
    folder = pypty_folder(-1)
    np.save(folder / checkpoints.NUMBERED["obj"].format(5), arrays(5)["obj"])
    save_params(folder, {"epoch_max": 10})
    params = prepare_restart(folder)
    assert "obj" not in params
    assert "starts from its beginning" in caplog.text


@pytest.mark.parametrize("exists", [False, True])
def test_nothing_to_restart_from(tmp_path, exists):
    folder = tmp_path / "results"
    if exists:
        folder.mkdir()
    with pytest.raises(DataError, match="results"):
        prepare_restart(folder)


def test_parameters_of_two_saves_are_read_from_the_pickle(tmp_path):
    save_params(tmp_path, {"epoch_max": 10, "obj": np.ones((3, 4, 2, 1))})
    saved = (tmp_path / "params.json").read_text()
    save_params(tmp_path, {"epoch_max": 20, "obj": np.ones((3, 4, 2, 1))})
    (tmp_path / "params.json").write_text(saved)
    assert prepare_restart(tmp_path)["epoch_max"] == 20


def test_the_sidecar_is_valid_json_before_the_first_loss(tmp_path):
    checkpoints.save_current(tmp_path, arrays(1), 0, float("nan"))
    record = json.loads((tmp_path / "checkpoint.json").read_text(), parse_constant=pytest.fail)
    assert (record["epoch"], record["loss"]) == (0, None)
