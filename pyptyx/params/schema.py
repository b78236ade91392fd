"""The parameter tables: one row per key, from which defaults, checks, reference and help derive.

`RUN` holds the keys that have an effect in a run, `EXPERIMENT` those of an experiment dictionary.
A key of both has the same row in each, unless its default differs.  `ACCEPTED_IN_RUN` adds the
metadata that a run carries along without effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from types import MappingProxyType

from pyptyx.params import schema_experiment as experiment
from pyptyx.params import schema_run as run
from pyptyx.params import schema_terms as terms
from pyptyx.params.row import Row

Schema = Mapping[str, Row]


def _schema(*tables: tuple[Row, ...]) -> Schema:
    return MappingProxyType({row.name: row for row in chain(*tables)})


RUN: Schema = _schema(
    run.DATA,
    run.DATA_OF_RUN,
    run.FOLDER_OF_RESULTS,
    run.SAVING,
    run.EXPERIMENT_OF_BOTH,
    run.EXPERIMENT_OF_RUN,
    run.PROPAGATION,
    run.OPTIMISER,
    run.ILLUMINATIONS,
    run.MEMORY,
    terms.REGULARISERS,
    terms.CONSTRAINTS,
    terms.BEAM,
)
"""Keys with an effect in a run."""

EXPERIMENT: Schema = _schema(
    experiment.SAMPLE,
    run.DATA,
    run.FOLDER_OF_RESULTS,
    run.EXPERIMENT_OF_BOTH,
    experiment.CALIBRATION,
    experiment.SCAN,
    experiment.SPECIMEN,
)
"""Keys of an experiment dictionary."""

INFO: Schema = _schema(experiment.INFO)
"""Keys written by the package itself, without effect."""

ACCEPTED_IN_RUN: Schema = MappingProxyType({**EXPERIMENT, **INFO, **RUN})
"""Every key a run accepts; where a run and an experiment differ, the row of the run."""

_SPELLINGS = {
    "special_positions_A": "special_postions_A",
    "chemical_fomula": "chemical_formula",
    "probe_modes": "probe",
}
RUN_ALIASES: Mapping[str, str] = MappingProxyType({**_SPELLINGS, "defocus": "extra_probe_defocus"})
"""Other names of keys in a run dictionary."""

EXPERIMENT_ALIASES: Mapping[str, str] = MappingProxyType(
    {**_SPELLINGS, "extra_probe_defocus": "defocus"}
)
"""Other names of keys in an experiment dictionary."""
