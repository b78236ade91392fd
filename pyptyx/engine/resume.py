"""Continuing a run: exactly where its whole state was saved, otherwise from its arrays.

An exact continuation builds the problem from the parameters the run was started with, as the run
itself did, and then puts the saved state in place of the start values.  So nothing is applied
twice to the probe, and everything that follows from the start values is as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.engine.problem import Reconstruction
from pyptyx.engine.state import Evaluation, Snapshot
from pyptyx.engine.variables import PUBLIC_NAMES, to_public
from pyptyx.errors import DataError, ParamError, Problem
from pyptyx.executors import Communicator
from pyptyx.files import make_folder
from pyptyx.optim.lbfgs import gathered, shared_out
from pyptyx.output import checkpoints, store
from pyptyx.output.losslog import EpochRecord, LossLog
from pyptyx.params import load_params
from pyptyx.params.kinds import Mismatch
from pyptyx.params.schema import RUN, RUN_ALIASES

logger = logging.getLogger(__name__)

Tree = dict[str, Any]
Content = Mapping[str, Any]

_START_ONLY = {
    "aberrations": None,
    "extra_probe_defocus": 0.0,
    "beam_ctf": None,
    "n_hermite_probe_modes": None,
    "defocus_spread_modes": None,
    "mc_n_modes": None,
    "extra_space_on_side_px": 0,
    "skip_preprocessing": True,
    "probe_is_aberrated": True,
    "apply_aberrations_to_probe": None,
}
"""What makes start values, and must not act again on values that have been refined."""

_OPTIONAL = ("tilts", "static_background", "beam_current", "aberrations_array")
"""Variables that are part of the model only if they are given."""

_ELSEWHERE = {"resume_from", "output_folder", "dataset", "data_path", "h5_key",
              "phase_plate_in_h5", "print_flag"}  # fmt: skip
"""Keys that may change without the run becoming another one."""

_CONTROL = {"epoch_max", "convergence_tol", "convergence_patience", "max_count", "reduce_factor",
            "optimism", "min_step"}  # fmt: skip
"""Keys that change how a run goes on, not what it refines."""

_FREE_GROUPS = ("Memory", "Saving, printing, simulation")


@dataclass(frozen=True)
class Start:
    """What a run starts from.

    Attributes
    ----------
    params : mapping
        The parameters to build the problem from.
    content : mapping or None
        The saved state to put in place of the start values.
    in_place : bool
        The run goes on in the folder it comes from.
    """

    params: Mapping[str, Any]
    content: Content | None = None
    in_place: bool = False


def save(folder: Path, snapshot: Snapshot, problem: Reconstruction) -> None:
    """Write a snapshot to a folder; every process has to take part, rank 0 writes.

    Raises
    ------
    OutputError
        If it cannot be written; the last one stays readable.
    """
    content = {f.name: getattr(snapshot, f.name) for f in fields(snapshot)}
    if snapshot.evaluation is not None:
        content["evaluation"] = vars(snapshot.evaluation)
    communicator = problem.communicator
    content["records"] = [vars(record) for record in snapshot.records]
    content["batch_size"] = problem.batch_size
    content["workers"] = _workers(problem)
    with problem.backend.context():
        if snapshot.optimizer is not None:
            content["optimizer"] = gathered(snapshot.optimizer, communicator)
        communicator.on_main(lambda: store.save(folder, _on_host(content, problem.backend)))


def restore(problem: Reconstruction, content: Content) -> None:
    """Put a saved state in place of the start values of a problem built for it."""
    place = _Place(problem)
    known = {f.name: content[f.name] for f in fields(Snapshot)}
    evaluation, optimizer = known["evaluation"], known["optimizer"]
    if evaluation is not None:
        known["evaluation"] = Evaluation(**{**evaluation, "g": place(evaluation["g"])})
    if optimizer is not None:
        known["optimizer"] = _placed_history(optimizer, place, problem.communicator)
    known["x"] = problem.x | place(known["x"])
    known["records"] = tuple(EpochRecord(**record) for record in known["records"])
    automatic = problem.params["compute_batch"] == "auto"
    if automatic and content["workers"] == _workers(problem):
        problem.batch_size = content["batch_size"]  # sums in the same order, hence the same bits
    problem.resumed = Snapshot(**known)
    problem.go_to(problem.resumed)


def prepare_restart(
    output_folder: str | PathLike[str], new_folder: str | PathLike[str] | None = None
) -> dict[str, Any]:
    """Parameters that continue a run.

    They hold the newest arrays of the folder, and switch off whatever acts on start values only
    (aberrations, defocus, mode generators, the margin).  If the folder holds the state of the
    optimiser too, ``resume_from`` names it: `run` then continues exactly, unless parameters are
    changed that make the run another one; then it starts from the arrays with an empty history.

    Parameters
    ----------
    output_folder : path
        Folder of a run of pyptyx or PyPty, complete or killed at any moment.
    new_folder : path, optional
        Folder of the continued run, which is created with an empty loss log; by default the run
        continues in its own.

    Returns
    -------
    dict
        For `run`.  Data that were in memory and were not saved have to be added as ``dataset``.

    Raises
    ------
    DataError
        If there is nothing to restart from.
    OutputError
        If `new_folder` cannot be written.
    """
    folder = Path(output_folder)
    content = store.load(folder)
    params = _restarted(folder, saved_params(folder), content)
    if new_folder is not None:
        target = Path(new_folder)
        make_folder(target)
        params["output_folder"] = str(target)
        if params.get("save_loss_log", 1):
            LossLog(target / "loss.csv", params.get("save_loss_log") == 2)
    return params


def start_of(given: Mapping[str, Any]) -> Start:
    """What a run starts from: the parameters themselves, or what ``resume_from`` names.

    Keys that are missing, or are as the run was started, take the values of the saved run.

    Raises
    ------
    DataError
        If there is nothing to continue, or its data were in memory and are not given.
    """
    source = given.get("resume_from") if isinstance(given, Mapping) else None
    if not source:
        return Start(given)
    folder = Path(source)
    original, content = saved_params(folder), store.load(folder)
    expected = _restarted(folder, original, content)
    merged = dict(expected)
    for name, value in given.items():
        key = RUN_ALIASES.get(name, name)
        if not _same(key, value, original.get(key)):
            merged[key] = value
    merged["resume_from"] = None
    _require_data(merged)
    target = merged["output_folder"]
    in_place = bool(target) and Path(target).resolve() == folder.resolve()
    changed = {k for k in RUN if k in merged and not _same(k, merged[k], expected.get(k))}
    other_run = sorted(changed - _free())
    if content is None or other_run:
        if content is not None:
            logger.warning(
                "continued without the history of the optimiser: %s changed", ", ".join(other_run)
            )
        return Start(merged)
    kept = {k: merged[k] for k in (*changed, *_OPTIONAL, "output_folder") if k in merged}
    if changed - _ELSEWHERE:
        content = {**content, "stop_reason": ""}
    if not in_place:
        content = {**content, "records": []}  # another folder has a log of its own
    return Start({**original, **kept, "resume_from": None}, content, in_place)


def saved_params(folder: Path) -> dict[str, Any]:
    """The parameters of a folder, from the pickle if a kill left JSON and arrays of two saves.

    Raises
    ------
    DataError
        If there are none.
    """
    try:
        return load_params(folder)
    except DataError:
        pickled = folder / "params.pkl"
        if not pickled.is_file():
            raise
        logger.warning("%s does not fit its arrays; %s is read", "params.json", pickled.name)
        return load_params(pickled)


def _restarted(
    folder: Path, original: Mapping[str, Any], content: Content | None
) -> dict[str, Any]:
    """The parameters of a saved run with its newest arrays."""
    params = {**original, "output_folder": str(folder), "resume_from": None}
    if content is not None:
        host = Backend()
        epoch = content["epoch"]
        arrays = {PUBLIC_NAMES[k]: to_public(k, a, host) for k, a in content["x"].items()}
        params["resume_from"] = str(folder)
    else:
        first, last = (int(original.get(k, RUN[k].default)) for k in ("epoch_prev", "epoch_max"))
        every = int(original.get("save_inter_checkpoints", 1))
        found = checkpoints.newest(folder, every, (first, last))
        if found is None:
            logger.warning("%s holds no arrays yet: the run starts from its beginning", folder)
            return params
        epoch, arrays = found
        logger.info("%s holds no state of the optimiser: its history starts anew", folder)
    return started_from(params, arrays, epoch)


def started_from(params: Content, arrays: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    """Parameters that take arrays as they are, from an epoch on."""
    return {**params, **_START_ONLY, **arrays, "epoch_prev": epoch}


def _free() -> set[str]:
    """Keys that may change while everything saved stays valid."""
    keys = {r.name for r in RUN.values() if r.schedulable or r.group in _FREE_GROUPS}
    return (keys | _ELSEWHERE | _CONTROL) - {"epoch_prev", "default_dtype"}


def _require_data(params: Mapping[str, Any]) -> None:
    if params.get("dataset") is None and not params.get("data_path"):
        expected = "the data of the run, which were in memory and have not been saved"
        remedy = "Add them to the parameters; strip_dataset_from_params=False lets runs save them"
        raise DataError(Problem("dataset", expected, "nothing", remedy))


def _same(key: str, a: Any, b: Any) -> bool:
    """Whether two values of a key are equal in their normal form."""
    if a is b:
        return True
    row = RUN.get(key)
    if row is not None:
        try:
            a, b = row.convert(a), row.convert(b)
        except (Mismatch, ParamError):  # `run` will say what is wrong
            return False
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return type(a) is type(b) and np.array_equal(a, b)
    return bool(type(a) is type(b) and a == b)


def _workers(problem: Reconstruction) -> list[str]:
    return [b.name for b in problem.executor.backends] * problem.communicator.size


def _on_host(value: Any, backend: Backend) -> Any:
    """A nested state with its device arrays on the host."""
    if isinstance(value, dict):
        return {k: _on_host(v, backend) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_host(v, backend) for v in value)
    on_host = type(value) is np.ndarray or isinstance(value, np.generic)
    return value if on_host or not hasattr(value, "dtype") else backend.to_host(value)


class _Place:
    """Puts the blocks of a tree where the variables of a problem lie."""

    def __init__(self, problem: Reconstruction) -> None:
        self._backend = problem.backend
        self._on_device = {k for k, v in problem.x.items() if type(v) is not np.ndarray}

    def __call__(self, tree: Tree) -> Tree:
        with self._backend.context():
            return {
                k: self._backend.asarray(v) if k in self._on_device else v for k, v in tree.items()
            }


def _placed_history(state: Content, place: _Place, communicator: Communicator) -> dict[str, Any]:
    """The state of an optimiser with its trees in place, as this process keeps it."""
    state = shared_out(state, communicator)
    scaling = dict(state["scaling"])
    if "operator" in scaling:
        operator = scaling["operator"]
        scaling["operator"] = {**operator, "diagonal": place(operator["diagonal"])}
    pairs = [(place(s), place(y), rho) for s, y, rho in state["pairs"]]
    return {**state, "pairs": pairs, "scaling": scaling}
