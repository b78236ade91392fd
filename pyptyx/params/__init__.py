"""Parameters: one schema, one merge, one check, safe schedules."""

from pyptyx.params.files import change_params, delete_dataset_from_params
from pyptyx.params.presets import load_params, load_preset, load_run_file, save_params
from pyptyx.params.resolve import evaluate, resolve, resolve_experiment

__all__ = [
    "change_params",
    "delete_dataset_from_params",
    "evaluate",
    "load_params",
    "load_preset",
    "load_run_file",
    "resolve",
    "resolve_experiment",
    "save_params",
]
