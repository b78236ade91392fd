"""`plan` and ``pyptyx plan``: sizes from parameters alone, nothing large allocated."""

import json
import logging
import tracemalloc

import h5py
import numpy as np
import pytest

import pyptyx
from pyptyx import cli
from pyptyx.data.prepare import Preparation
from pyptyx.data.source import open_source
from pyptyx.engine import feeding, setup
from pyptyx.engine import plan as planning
from pyptyx.engine.plan import plan
from pyptyx.engine.start import initial_object, initial_positions, object_shape
from pyptyx.errors import ParamError
from pyptyx.params import resolve
from tests.gpu.guard import GuardBackend


@pytest.fixture
def params(tmp_path):
    """A scan whose data and object would take gigabytes; the file is empty but for its head."""
    shape = (120 * 130, 96, 112)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("data", shape, np.uint16, chunks=(1, 96, 112))
    rows, columns = np.indices((120, 130))
    return {
        "data_path": tmp_path / "data.h5",
        "scan_size": (120, 130),
        "positions": 20.3 * np.stack([rows.ravel(), columns.ravel()], axis=1),
        "num_slices": 12,
        "slice_distances": np.array([10.0]),
        "pixel_size_x_A": 0.2,
        "pixel_size_y_A": 0.15,
        "acc_voltage": 300.0,
        "n_hermite_probe_modes": (1, 0),
        "hist_length": 10,
        "epoch_max": 40,
        "output_folder": tmp_path / "not" / "there",
        "save_checkpoints_every_epoch": 10,
    }


def test_nothing_large_is_allocated(params, tmp_path):
    plan(params)
    tracemalloc.start()
    try:
        found = plan(params)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.needs["host"] > 10 << 30
    assert peak < 100 << 20
    assert not (tmp_path / "not").exists()


def test_shapes_are_those_of_the_run(params):
    small = {**params, "positions": 2.3 * np.indices((3, 4)).reshape(2, -1).T, "scan_size": (3, 4)}
    del small["data_path"]
    y, x = np.mgrid[-8:8, -9:10]
    small |= {"dataset": np.tile(9 * np.exp(-(y**2) / 20 - x**2 / 20), (12, 1, 1)),
              "update_probe_pos": 1, "update_static_background": 1, "update_aberrations_array": 1,
              "output_folder": None}  # fmt: skip
    found = plan(small)
    with setup.build(small, need=setup.EVALUATION_NEEDS) as problem:
        assert found.work.object == problem.x["object"].nbytes
        assert found.work.variables == sum(a.nbytes for a in problem.x.values())
        names = {"object", "probe", "positions", "background", "aberrations"}
        assert problem.x.keys() == names
        assert found.work.refined == sum(problem.x[k].nbytes for k in names)
        assert found.work.batch == problem.batch_size
        assert found.work.sizes.shift == problem.spec.shift
        assert found.work.sizes.modes == problem.x["probe"].shape[1]
        assert found.work.sizes.wave_storage == problem.spec.wave_storage


@pytest.mark.parametrize("extra", [0, 5])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("obj", [None, (1, 1, 3, 2), (20, 23, 3, 2), (60, 70, 2, 3)])
def test_object_shape(params, obj, skip, extra):
    given = {k: v for k, v in params.items() if k != "data_path"} | {
        "dataset": np.ones((12, 8, 9)),
        "scan_size": (3, 4),
        "positions": 2.3 * np.indices((3, 4)).reshape(2, -1).T,
        "obj": None if obj is None else np.ones(obj, complex),
        "skip_preprocessing": skip,
        "extra_space_on_side_px": extra,
    }
    resolved = resolve(given, need=("data", "acc_voltage"))
    positions = initial_positions(resolved)
    window = (8, 9)
    made = initial_object(resolved, positions, window)
    assert object_shape(resolved, positions, window) == made.shape


def test_the_table_and_the_json_say_the_same(params):
    found = plan(params)
    content = json.loads(json.dumps(found.as_dict()))
    text = str(found)
    assert content["batch"] == found.work.batch
    assert content["needs"]["disk"] == found.needs["disk"] > 10 << 30
    assert content["fits"] == found.fits
    for item in content["items"]:
        assert item["name"] in text
    assert f"batch     {content['batch']} of 15600" in text
    assert "H200" in text
    assert content["evaluation_s"] > 0
    assert content["run_s"] > 40 * content["evaluation_s"]


def test_what_does_not_fit_gets_a_remedy(params, monkeypatch):
    monkeypatch.setattr(planning, "free_memory_bytes", lambda: 2 << 30)
    found = plan(params)
    assert not found.fits
    assert found.remedies()[0].startswith("host: ")
    assert "Lower hist_length." in found.remedies()[0]
    assert found.remedies()[0] in str(found)
    short = plan({**params, "positions": params["positions"] / 10, "hist_length": 0,
                  "num_slices": 1, "output_folder": None})  # fmt: skip
    assert short.fits
    assert str(short).endswith("It fits.")


def test_on_a_device(params, monkeypatch):
    class Device(GuardBackend):
        def free_bytes(self):
            return 24 << 30

    monkeypatch.setattr(setup, "make_backends", lambda *_, **__: [Device()])
    found = plan(params)
    assert found.device == "guard:0"
    assert set(found.offers) == {"host", "device", "disk"}
    assert found.needs["device"] > found.needs["host"] / 10
    assert "device" in str(found)


@pytest.mark.parametrize(
    ("free", "dtype", "storage"),
    [(4, np.uint16, "packed"), (0.7, np.uint16, "packed"), (0.2, np.uint16, "streamed"),
     (4, np.uint32, "memory"), (1.5, np.uint32, "packed"),
     (4, np.float64, "memory"), (1.5, np.float64, "streamed")],
)  # fmt: skip
def test_where_the_data_lie(monkeypatch, tmp_path, free, dtype, storage):
    """`free` in units of four times the data as floats: they may fill a quarter, packed a half."""
    stack = np.random.default_rng(0).integers(0, 9, (30, 16, 19)).astype(dtype)
    if dtype == np.float64:
        stack += np.random.default_rng(1).random(stack.shape)
    np.save(tmp_path / "a.npy", stack)
    floats = stack.size * 4
    monkeypatch.setattr("pyptyx.data.prepare.free_memory_bytes", lambda: int(free * floats))
    found = plan(
        {
            "data_path": tmp_path / "a.npy",
            "positions": 2.0 * np.indices((5, 6)).reshape(2, -1).T,
            "pixel_size_x_A": 0.2,
            "pixel_size_y_A": 0.15,
            "acc_voltage": 300.0,
        }
    )
    assert found.data.storage == storage


@pytest.mark.parametrize(("on_gpu", "free", "packed"), [(0, 4, 1), (1, 4, 0), (1, 1.5, 1)])
def test_a_gpu_keeps_floats_if_they_fit(monkeypatch, on_gpu, free, packed):
    stack = np.random.default_rng(0).integers(0, 9, (30, 16, 19)).astype(np.uint16)
    enough = int(free * stack.size * 4)
    monkeypatch.setattr("pyptyx.data.prepare.free_memory_bytes", lambda: enough)
    source = open_source(stack)
    resident, packing = feeding.storage(source, Preparation(), feeding.Share(), bool(on_gpu))
    assert resident
    assert (packing is not None) == bool(packed)


def test_problems_are_named(params):
    with pytest.raises(ParamError, match="acc_voltage"):
        plan({k: v for k, v in params.items() if k != "acc_voltage"})


FILE = """
[preset]
data_path = "{data}"
scan_size = [3, 4]
acc_voltage = 300.0
pixel_size_x_A = 0.2
pixel_size_y_A = 0.15
output_folder = "{folder}"
"""


def test_command(tmp_path, capsys, monkeypatch):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["data"] = np.ones((12, 8, 10), np.uint8)
    path = tmp_path / "run.toml"
    path.write_text(FILE.format(data=tmp_path / "data.h5", folder=tmp_path / "out"))
    positions = (2.0 * np.indices((3, 4)).reshape(2, -1).T).tolist()
    arguments = ["plan", str(path), "--set", f"positions={json.dumps(positions)}"]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.endswith("It fits.\n")
    assert cli.main([*arguments, "--json", "--set", "compute_batch=5"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["batch"] == 5
    assert "disk" in content["needs"]
    assert not (tmp_path / "out").exists()


def test_a_run_says_what_it_needs(caplog):
    rng = np.random.default_rng(0)
    params = {
        "dataset": rng.poisson(3, (12, 16, 19)),
        "positions": 2.0 * np.indices((3, 4)).reshape(2, -1).T,
        "pixel_size_x_A": 0.2,
        "pixel_size_y_A": 0.15,
        "acc_voltage": 300.0,
        "epoch_max": 1,
        "output_folder": None,
        "print_flag": 0,
    }
    with caplog.at_level(logging.INFO, "pyptyx"):
        pyptyx.run(params)
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("plan: ")]
    assert len(said) == 1
    assert "GiB of host memory; batches of " in said[0]
    assert "data: memory" in said[0]
