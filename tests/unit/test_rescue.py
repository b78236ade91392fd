"""Rejected steps, NaN and explosions: what is held, what is tried again, when a run gives up."""

import numpy as np
import pytest

import pyptyx
from pyptyx.engine import loop
from pyptyx.engine.constraints import Constraint
from pyptyx.engine.rescue import FREEZE_AFTER, FROZEN_EPOCHS, Rescue, has_exploded
from pyptyx.engine.resize import relocated
from pyptyx.errors import NumericalError
from tests.known.restart_scene import equal, outcome, parameters

EVERYTHING = ("object", "probe", "positions", "tilts", "background", "aberrations", "current")


def fail(rescue, epoch, wanted=EVERYTHING, fresh=True):
    """One rejected epoch; the variables that were held in it."""
    frozen, _ = rescue.frozen(epoch, wanted)
    rescue.observe(epoch, [n for n in wanted if n not in frozen], accepted=False, fresh=fresh)
    return frozen


def test_one_more_variable_is_held_after_every_rejection():
    rescue = Rescue()
    order = ["positions", "tilts", "background", "aberrations", "probe"]
    for epoch in range(7):
        held = fail(rescue, epoch)
        assert set(held) == set(order[: max(epoch - 1, 0)])
    assert list(FREEZE_AFTER.values()) == [2, 3, 4, 5, 6]


def test_a_variable_is_held_for_ten_epochs_from_the_last_rejection():
    rescue = Rescue()
    for epoch in range(2):
        fail(rescue, epoch)
    held = []
    for epoch in range(2, 16):
        frozen, messages = rescue.frozen(epoch, EVERYTHING)
        assert bool(messages) == (epoch == 2)
        held.append("positions" in frozen)
        active = [n for n in EVERYTHING if n not in frozen]
        rescue.observe(epoch, active, accepted=True, fresh=False)
    assert held == [True] * FROZEN_EPOCHS + [False] * 4


def test_the_time_starts_again_while_rejections_go_on():
    rescue = Rescue()
    for epoch in range(4):
        fail(rescue, epoch, fresh=False)
    assert "positions" in rescue.frozen(11 + 1, EVERYTHING)[0]  # re-armed at epoch 3


def test_thresholds_without_a_variable_are_skipped():
    rescue = Rescue()
    held = [fail(rescue, epoch, ("object", "probe"), fresh=epoch > 0) for epoch in range(4)]
    assert held == [(), (), (), ("probe",)]
    assert rescue.is_stalled(3, ("object",))


@pytest.mark.parametrize("name", ["probe", "positions"])
def test_the_only_variable_is_never_held(name):
    rescue = Rescue()
    for epoch in range(9):
        assert fail(rescue, epoch, (name,)) == ()
    assert rescue.is_stalled(9, (name,))


def test_a_run_is_not_stalled_while_something_can_be_held():
    rescue = Rescue()
    stalled = []
    for epoch in range(8):
        frozen = fail(rescue, epoch)
        stalled.append(rescue.is_stalled(epoch, [n for n in EVERYTHING if n not in frozen]))
    assert stalled == [False] * 6 + [True] * 2


def test_a_success_clears_the_count():
    rescue = Rescue()
    fail(rescue, 0)
    rescue.observe(1, EVERYTHING, accepted=True, fresh=False)
    fail(rescue, 2)
    assert rescue.frozen(3, EVERYTHING)[0] == ()


def test_the_state_is_complete():
    first, second = Rescue(), Rescue()
    for epoch in range(4):
        fail(first, epoch)
    second.restore(first.state())
    for epoch in range(4, 20):
        assert fail(first, epoch) == fail(second, epoch)
    assert first.state() == second.state()
    second.restore({})
    assert second.state() == Rescue().state()


@pytest.mark.parametrize(
    ("value", "best", "expected"),
    [(999.0, 1.0, False), (1001.0, 1.0, True), (1.0, -10.0, False), (1e5, -10.0, True),
     (5.0, 0.0, False), (5.0, np.inf, False)],
)  # fmt: skip
def test_what_an_explosion_is(value, best, expected):
    assert has_exploded(value, best) == expected


# ---- in a run ----------------------------------------------------------------------------------

REJECTING = {
    "update_probe_pos": True,
    "epoch_max": 16,
    "wolfe_c1_constant": "lambda e: 0.999998 if 2 <= e < 4 else 0.1",
    "wolfe_c2_constant": "lambda e: 0.999999 if 2 <= e < 4 else 0.9",
}


def test_positions_are_held_after_two_rejections_and_come_back():
    result, active = run_recording(parameters(output_folder=None, **REJECTING))
    rejected = [r.epoch for r in result.losses if "step rejected" in r.warnings]
    assert rejected[:2] == [rejected[0], rejected[0] + 1]
    first = rejected[0] + 2
    without = [epoch for epoch, names in enumerate(active) if "positions" not in names]
    assert without[0] == first
    assert len(without) == FROZEN_EPOCHS
    assert "positions held for 10 epochs" in result.losses[first].warnings
    assert "positions" in active[-1]
    assert result.final_loss < result.losses[first].loss


def run_recording(params):
    active = []

    class Record(pyptyx.engine.callbacks.Callback):
        def epoch(self, state):
            active.append(state.active)

    return pyptyx.run(params, [Record()]), active


@pytest.fixture
def spoil(monkeypatch):
    """Constraints after the update that ruin the object at an epoch, a given number of times."""

    def install(factor, epoch, times):
        left = [times]

        def constraints(problem, values, active):
            def apply(x):
                if values["mixed_variance_sigma"] == 1 and left[0]:
                    left[0] -= 1
                    return {**x, "object": x["object"] * factor}
                return None

            return [Constraint("spoil", apply, resets_history=False)]

        monkeypatch.setattr(loop, "after_update", constraints)
        # A schedule that has no other effect tells the constraint which epoch it is.
        return parameters(
            output_folder=None,
            epoch_max=6,
            mixed_variance_sigma=f"lambda e: 1 if e == {epoch} else 0.5",
        )

    return install


@pytest.mark.parametrize(("factor", "word"), [(np.nan, "became nan"), (1e4, "exploded")])
def test_a_spoilt_epoch_starts_again_with_a_shorter_step(factor, word, spoil):
    result = pyptyx.run(spoil(factor, 3, times=2))
    assert [r.epoch for r in result.losses] == list(range(6))
    assert [r.initial_step for r in result.losses] == pytest.approx([1, 1, 1, 0.01, 1, 1])
    assert word in result.losses[3].warnings
    assert "'data'" in result.losses[3].warnings
    assert result.losses[3].loss == pytest.approx(result.losses[2].loss_after, rel=1e-9)
    assert result.final_loss < result.losses[3].loss


@pytest.mark.parametrize("factor", [np.nan, 1e4])
def test_a_run_that_cannot_be_rescued_gives_up_and_keeps_its_state(factor, spoil, tmp_path):
    params = spoil(factor, 3, times=100) | {"output_folder": str(tmp_path)}
    with pytest.raises(NumericalError, match="epoch 3: the term 'data'"):
        pyptyx.run(params)
    assert np.isfinite(np.load(tmp_path / "co.npy")).all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "after_update", lambda *_: [])
        whole = pyptyx.run(params | {"output_folder": str(tmp_path / "whole")})
        assert equal(outcome(pyptyx.run({"resume_from": tmp_path})), outcome(whole))


def test_the_loss_after_an_epoch_includes_its_constraints(spoil):
    result = pyptyx.run(spoil(1.1, 3, times=1))
    losses = result.losses
    assert losses[3].loss_after > losses[2].loss_after
    assert losses[4].loss == losses[3].loss_after


def test_the_beginning_is_not_rescued(monkeypatch):
    """NaN in the start values: there is no good state to go back to."""
    params = parameters(output_folder=None)
    params["probe"] = params["probe"] * 1e200
    with pytest.raises(NumericalError, match="epoch 0: the term 'data'"), np.errstate(all="ignore"):
        pyptyx.run(params)


def test_a_failed_epoch_leaves_the_last_good_variables(monkeypatch):
    problem = pyptyx.engine.run.build(parameters(output_folder=None))
    with problem:
        states = loop.iterate(problem)
        good = next(states).snapshot
        grow = Constraint("grow", lambda x: relocated(problem, x, x["positions"] - (4, 5)))
        fail = Constraint("fail", lambda x: 1 / 0)
        monkeypatch.setattr(loop, "after_update", lambda *_: [grow, fail])
        with pytest.raises(ZeroDivisionError):
            next(states)
        assert good.epoch == 1
        assert problem.x.keys() == good.x.keys()
        for name, array in good.x.items():
            np.testing.assert_array_equal(problem.x[name], array)
        np.testing.assert_array_equal(problem.scan.corners, good.corners)
        np.testing.assert_array_equal(problem.start_positions, good.start_positions)
