"""Several processes: the same result as one, data shared out, failures that end them all."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pyptyx
from pyptyx.output import store
from tests.known import mpi_jobs
from tests.known.restart_scene import outcome, parameters

REPOSITORY = Path(__file__).parents[2]
JOBS = REPOSITORY / "tests" / "known" / "mpi_jobs.py"
LAUNCHER = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
pytest.importorskip("mpi4py", reason="mpi4py is not installed")
pytestmark = pytest.mark.skipif(LAUNCHER is None, reason="no mpiexec")


def launch(ranks, *command):
    """Run python with a command on so many ranks."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONWARNINGS": "error",
        # Open MPI refuses more ranks than cores, and root.
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
    return subprocess.run(
        [LAUNCHER, "-n", str(ranks), sys.executable, *map(str, command)],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def job(ranks, name, folder):
    return launch(ranks, JOBS, name, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the patterns."""
    path = tmp_path_factory.mktemp("mpi")
    np.save(path / "patterns.npy", parameters()["dataset"])
    return path


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request, folder):
    """A number of ranks that have done the job `compare`."""
    done = job(request.param, "compare", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return request.param


def arrays(folder, name):
    with np.load(folder / f"{name}.npz") as archive:
        return [archive[key] for key in archive.files]


def alone(folder, devices=1, **changes):
    """The outcome of the run in this process."""
    return outcome(pyptyx.run(mpi_jobs.scene(folder, devices=devices, **changes)))


def test_as_one_process(ranks, folder):
    for got in (arrays(folder, f"double{ranks}"), arrays(folder, f"streamed{ranks}")):
        for a, b in zip(got, alone(folder, epoch_max=6), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.abs(b).max())


def test_ranks_are_as_threads(ranks, folder):
    """The sums are formed in the same order, so even the bits agree."""
    threads = alone(folder, devices=ranks, epoch_max=6)
    for a, b in zip(arrays(folder, f"double{ranks}"), threads, strict=True):
        np.testing.assert_array_equal(a, b)


def test_deterministic_single_precision_has_the_same_bits(ranks, folder):
    expected = arrays(folder, f"exact{ranks}")
    for devices in (1, ranks):
        for a, b in zip(expected, alone(folder, devices=devices, **mpi_jobs.EXACT), strict=True):
            np.testing.assert_array_equal(a, b)


def test_every_rank_reads_its_share(folder):
    done = job(2, "kept", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((folder / "kept.json").read_text()) == [10, 10]  # of twenty, each once


def test_a_killed_rank_ends_all_and_the_run_goes_on_with_more(folder):
    done = job(2, "killed", folder)
    assert done.returncode != 0
    assert 3 <= store.load(folder / "killed")["epoch"] <= 5
    resumed = launch(3, "-m", "pyptyx", "resume", folder / "killed")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert resumed.stdout.count("epochs    10") == 1
    whole = alone(folder)
    for array, name in zip(whole, ("co", "cp", "cg"), strict=False):
        np.testing.assert_allclose(
            np.load(folder / "killed" / f"{name}.npy"), array, rtol=1e-9, atol=1e-9
        )


def test_an_interrupted_rank_ends_all_after_the_epoch(folder):
    done = job(2, "interrupted", folder)
    assert done.returncode != 0
    assert done.stderr.count("KeyboardInterrupt") >= 2
    assert "failed, the job is ended" not in done.stderr
    assert 5 <= store.load(folder / "interrupted")["epoch"] <= 6


def test_a_failing_worker_is_named_once_and_the_state_is_saved(folder):
    done = job(2, "failing", folder)
    assert done.returncode != 0
    assert "rank 1 of 2" in done.stderr
    assert "ZeroDivisionError: no light" in done.stderr
    assert "measurements" in done.stderr
    assert store.load(folder / "failing")["epoch"] > 0


def test_a_rank_that_fails_alone_ends_the_job(folder):
    done = job(2, "deserted", folder)
    assert done.returncode != 0
    assert "rank 1 of 2" in done.stderr
    assert "MemoryError: no room" in done.stderr


def test_wrong_input_is_reported_by_all_and_printed_once(folder):
    (folder / "wrong.toml").write_text(
        f'data_path = "{folder / "patterns.npy"}"\noutput_folder = "{folder / "wrong"}"\n'
        'epoch_max = "many"\n'
    )
    done = launch(2, "-m", "pyptyx", "run", folder / "wrong.toml")
    assert done.returncode == 1
    assert done.stderr.count("epoch_max: expected") == 1
    assert not (folder / "wrong").exists()
