"""Every rule of the report: it speaks where it should, is silent where it should, and unknown."""

import math
from dataclasses import replace

import pytest

from pyptyx.engine.findings import RULES, Facts, findings

# Rule -> facts that make it speak, and the nearest ones that do not.
CASES = {
    "not_a_number": ({"loss": math.inf}, {"loss": 3.0}),
    "not_converged": (
        {"finished": True, "decrease": 0.011},
        {"finished": True, "decrease": 0.009},
    ),
    "tiny_steps": ({"last_step": 0.009}, {"last_step": 0.02}),
    "log_warnings": ({"log_warnings": 1}, {"log_warnings": 0}),
    "underfitted": ({"chi2": 2.1}, {"chi2": 1.9}),
    "not_electrons": ({"noise": 1.9, "explained": 0.9}, {"noise": 1.0, "explained": 0.9}),
    "below_noise": ({"chi2": 0.8}, {"chi2": 0.9}),
    "held_out_worse": (
        {"chi2": 1.0, "chi2_error": 0.01, "chi2_held_out": 1.15, "chi2_held_out_error": 0.01},
        {"chi2": 1.0, "chi2_error": 0.01, "chi2_held_out": 1.15, "chi2_held_out_error": 0.04},
    ),
    "counts_differ": ({"counts_ratio": 0.95}, {"counts_ratio": 0.98}),
    "amplitude_bias": (
        {"counts_per_pixel": 0.5, "algorithm": "lsq_sqrt"},
        {"counts_per_pixel": 0.5, "algorithm": "ml"},
    ),
    "outliers": ({"outliers": 0.02}, {"outliers": 0.005}),
    "probe_edge": ({"probe_edge": 0.06}, {"probe_edge": 0.04}),
    "weak_modes": ({"mode_shares": (0.996, 0.004)}, {"mode_shares": (0.994, 0.006)}),
    "object_border": ({"border_light": 0.06}, {"border_light": 0.04}),
    "empty_slices": ({"slice_contrast": (1.0, 0.09)}, {"slice_contrast": (1.0, 0.11)}),
    "phase_wraps": ({"phase_span_rad": 5.6}, {"phase_span_rad": 5.4}),
    "low_overlap": ({"overlap": 0.45}, {"overlap": 0.55}),
    "lost_positions": (
        {"displacement_px": 1.1, "step_px": 2.0},
        {"displacement_px": 0.9, "step_px": 2.0},
    ),
    "drift": ({"drift_px": 0.6, "drift_share": 0.6}, {"drift_px": 0.6, "drift_share": 0.4}),
    "saturated": ({"saturated": 1e-4}, {"saturated": 1e-6}),
    "band_limit": ({"beyond_band": 0.03}, {"beyond_band": 0.01}),
    "sampling_limit": (
        {"resolution_A": 1.5, "resolution_limited": True},
        {"resolution_A": 1.5, "resolution_limited": False},
    ),
}


def rules_seen(**known):
    return [finding.rule for finding in findings(Facts(**known))]


def test_every_rule_has_a_case():
    assert list(CASES) == [rule.name for rule in RULES]


@pytest.mark.parametrize("name", CASES)
def test_a_rule_speaks_and_is_silent(name):
    fires, quiet = CASES[name]
    assert rules_seen(**fires) == [name]
    assert rules_seen(**quiet) == []


def test_nothing_is_said_about_what_is_not_known():
    assert findings(Facts()) == []


def test_a_finding_says_what_was_seen_and_what_to_do():
    (finding,) = findings(Facts(beyond_band=0.234))
    assert "23.4%" in finding.observation
    assert "damping_cutoff_multislice" in finding.remedy


def test_second_conditions_of_rules():
    assert rules_seen(decrease=0.5) == []  # it goes on
    assert rules_seen(rejected=2) == ["tiny_steps"]
    assert rules_seen(counts_ratio=1.05) == ["counts_differ"]
    assert rules_seen(drift_px=0.4, drift_share=0.9) == []
    assert rules_seen(loss=math.nan) == ["not_a_number"]


def test_findings_come_in_the_order_of_the_table():
    facts = replace(Facts(), saturated=0.1, chi2=3.0)
    assert [f.rule for f in findings(facts)] == ["underfitted", "saturated"]


@pytest.mark.parametrize(
    ("facts", "seen"),
    [
        ({"explained": 0.6, "explained_error": 0.05, "chi2": 1.03}, True),
        ({"explained": 0.6, "explained_error": 0.15, "chi2": 1.03}, False),
        ({"explained": None, "explained_error": None, "chi2": 1.03}, False),
        ({"explained": 0.9, "explained_error": 0.01, "chi2": 3.0, "noise": 1.6}, False),
        ({"explained": 0.9, "explained_error": 0.01, "chi2": 1.9, "noise": 0.8}, False),
    ],
)
def test_a_model_that_explains_no_changes_is_underfitted_whatever_chi2_says(facts, seen):
    assert ("underfitted" in rules_seen(**facts)) is seen
