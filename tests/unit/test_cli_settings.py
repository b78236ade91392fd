"""``--set KEY=VALUE``: which table it changes, and how its text is read."""

import pytest

from pyptyx.cli.settings import change
from pyptyx.errors import ParamError


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("epoch_max=50", "epoch_max", 50),
        ("hist_length=2.5e1", "hist_length", 25.0),
        ("scan_size=[3, 4]", "scan_size", [3, 4]),
        ("scan_size=3,4", "scan_size", [3, 4]),
        ("slice_distances=[[1, 2]]", None, None),
        ("aberrations=-200", "aberrations", -200),
        ("tilts=[[1,2,3,4,5,6]]", "tilts", [[1, 2, 3, 4, 5, 6]]),
        ("plot=True", "plot", True),
        ("flip_ky=true", "flip_ky", True),
        ("flip_ky=1", "flip_ky", 1),
        ("probe=None", "probe", None),
        ("probe=none", "probe", None),
        ("h5_key=7", "h5_key", "7"),
        ("sample_name=None", "sample_name", "None"),
        ("sample_name=[1, 2]", "sample_name", "[1, 2]"),
        ("update_probe=lambda epoch: epoch >= 3", "update_probe", "lambda epoch: epoch >= 3"),
        ("data_path=a/b=c.h5", "data_path", "a/b=c.h5"),
        (" epoch_max = 9 ", "epoch_max", 9),
    ],
)
def test_the_schema_decides_how_a_text_is_read(text, key, value):
    preset = {}
    if key is None:
        with pytest.raises(ParamError, match="slice_distances"):
            change([text], {}, preset)
        return
    change([text], {}, preset)
    assert preset == {key: value}
    assert type(preset[key]) is type(value)


@pytest.mark.parametrize(
    ("text", "experiment", "preset"),
    [
        ("epoch_max=9", {"scan_step_A": 2}, {"epoch_max": 9}),
        ("preset.epoch_max=9", {"scan_step_A": 2}, {"epoch_max": 9}),
        ("acc_voltage=80", {"scan_step_A": 2, "acc_voltage": 80}, {"epoch_max": 5}),
        ("defocus=-3", {"scan_step_A": 2, "defocus": -3}, {"epoch_max": 5}),
        ("experiment.scan_step_A=3", {"scan_step_A": 3}, {"epoch_max": 5}),
        ("preset.defocus=3", {"scan_step_A": 2}, {"epoch_max": 5, "extra_probe_defocus": 3}),
    ],
)
def test_the_table(text, experiment, preset):
    """What the experiment takes goes there, as it would win over the preset anyway."""
    tables = {"scan_step_A": 2}, {"epoch_max": 5}
    change([text], *tables)
    assert tables == (experiment, preset)


def test_without_an_experiment_everything_is_a_parameter_of_the_run():
    experiment, preset = {}, {"output_folder": "there"}
    change(["output_folder=here", "defocus=7"], experiment, preset)
    assert experiment == {}
    assert preset == {"output_folder": "here", "extra_probe_defocus": 7}


def test_a_run_has_left_its_experiment_behind():
    params = {"epoch_max": 5}
    with pytest.raises(ParamError, match=r"KEY=VALUE or preset.KEY=VALUE, got 'experiment.seed=3'"):
        change(["experiment.seed=3"], None, params)
    change(["seed=3", "preset.defocus=7"], None, params)
    assert params == {"epoch_max": 5, "seed": 3, "extra_probe_defocus": 7}


def test_another_name_of_a_key_is_replaced():
    experiment = {"extra_probe_defocus": 5.0, "scan_step_A": 2}
    change(["defocus=7"], experiment, {})
    assert experiment == {"scan_step_A": 2, "defocus": 7}


def test_the_last_of_several_wins():
    preset = {}
    change(["epoch_max=3", "epoch_max=4"], {}, preset)
    assert preset == {"epoch_max": 4}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch_max", "expected KEY=VALUE"),
        ("=3", "For instance --set epoch_max=50"),
        ("detector.size=3", "experiment.KEY=VALUE"),
        ("epoch_mx=3", "Did you mean 'epoch_max'"),
        ("colour=red", "pyptyx keys"),
        ("experiment.epoch_max=3", "--set epoch_max: expected a known key"),
        ("epoch_max=many", "epoch_max: expected an integer"),
        ("epoch_max=-3", "≥ 0"),
        ("scan_size=3,4,5", r"scan_size: expected .*\(Ny, Nx\)"),
        ("update_probe=lambda e: import os", "update_probe"),
        ("algorithm=lsq_sqr", "Did you mean 'lsq_sqrt'"),
        ("scan_step_A=0.8 nm", "Write the number alone, in Å"),
        ("scan_step_A=-1", r"Meaning: Scan step; .* Unit: Å"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_changed(text, words):
    experiment, preset = {"scan_step_A": 2}, {"epoch_max": 5}
    with pytest.raises(ParamError, match=words):
        change([text], experiment, preset)
    assert (experiment, preset) == ({"scan_step_A": 2}, {"epoch_max": 5})


def test_everything_wrong_is_said_at_once():
    with pytest.raises(ParamError) as info:
        change(["epoch_max=many", "colour=red", "seed=3"], {}, {})
    assert [p.key for p in info.value.problems] == ["--set epoch_max", "--set colour"]
