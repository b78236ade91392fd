"""What is suspicious about a reconstruction, and what to do about it: a table of rules.

A rule reads `Facts` and says what it has seen, or nothing.  A fact that is not known is None, and
rules about it are silent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_EXPLAINED = 0.8
"""Part of what differs from pattern to pattern that a good model explains at least."""

_RIGHT = 0.5
"""Part that a wrong geometry rarely reaches."""


@dataclass(frozen=True)
class Facts:
    """Numbers about a reconstruction; None where they are not known.

    Attributes
    ----------
    algorithm : str
        The loss.
    epochs : int
        Epochs done.
    finished : bool
        Whether the run has ended.
    loss : float or None
        Last one.
    decrease : float or None
        Mean relative decrease of the loss in each of the last epochs.
    last_step : float or None
        Longest of the last steps over the median of all that were taken.
    rejected : int
        Epochs at the end without a step.
    log_warnings : int
        Epochs with a warning in the log, notes about a warm start left out.
    probe_edge : float or None
        Mean intensity of the probe in the frame of its window over that in the whole window.
    mode_shares : tuple of float
        Parts of the probe's power, mode by mode.
    border_light : float or None
        Mean illumination along the border of the object over that inside the scan.
    slice_contrast : tuple of float
        Standard deviation of the phase in rad inside the scan, slice by slice.
    phase_span_rad : float or None
        Largest range of the phase within one slice.
    overlap : float or None
        ``1 - step / beam diameter``.
    step_px : float or None
        Mean scan step.
    displacement_px : float or None
        Root mean square displacement of the positions from where they started, without their mean.
    drift_px, drift_share : float or None
        Displacement from the first to the last position that is linear in time, and its part of
        the squared displacements.
    counts_per_pattern, counts_per_pixel, dose_per_A2 : float or None
        Mean counts, and counts per area of the scan.
    counts_ratio : float or None
        Counts of the model over those of the data.
    chi2, chi2_error : float or None
        χ² of fitted patterns (1 for a perfect model and Poisson noise) and its scatter.
    explained, explained_error : float or None
        Part of what differs from pattern to pattern, beyond noise, that the model explains.
    noise : float
        Variance per count of the noise; 1 for electrons.
    held_out : int
        Patterns that were kept out of the fit and compared.
    chi2_held_out, chi2_held_out_error : float or None
        χ² of these.
    outliers : float or None
        Part of the patterns whose χ² is more than three times the median.
    beyond_band : float or None
        Part of the counts beyond the band limit of the model.
    saturated : float or None
        Part of the pixels at the limit of the detector.
    resolution_A : float or None
        Period at which the correlation of half data falls below 1/7.
    resolution_limited : bool
        It never does.
    """

    algorithm: str = "lsq_sqrt"
    epochs: int = 0
    finished: bool = False
    loss: float | None = None
    decrease: float | None = None
    last_step: float | None = None
    rejected: int = 0
    log_warnings: int = 0
    probe_edge: float | None = None
    mode_shares: tuple[float, ...] = ()
    border_light: float | None = None
    slice_contrast: tuple[float, ...] = ()
    phase_span_rad: float | None = None
    overlap: float | None = None
    step_px: float | None = None
    displacement_px: float | None = None
    drift_px: float | None = None
    drift_share: float | None = None
    counts_per_pattern: float | None = None
    counts_per_pixel: float | None = None
    dose_per_A2: float | None = None
    counts_ratio: float | None = None
    chi2: float | None = None
    chi2_error: float | None = None
    explained: float | None = None
    explained_error: float | None = None
    noise: float = 1.0
    held_out: int = 0
    chi2_held_out: float | None = None
    chi2_held_out_error: float | None = None
    outliers: float | None = None
    beyond_band: float | None = None
    saturated: float | None = None
    resolution_A: float | None = None
    resolution_limited: bool = False


@dataclass(frozen=True)
class Finding:
    """Something suspicious.

    Attributes
    ----------
    rule : str
        Name of the rule.
    title, observation, remedy : str
        What it is, what was seen, and what to do.
    """

    rule: str
    title: str
    observation: str
    remedy: str


@dataclass(frozen=True)
class Rule:
    """One row of the table; `seen` returns the observation, empty if all is well."""

    name: str
    title: str
    seen: Callable[[Facts], str]
    remedy: str


def findings(facts: Facts) -> list[Finding]:
    """What the rules see, in the order of the table."""
    seen = ((rule, rule.seen(facts)) for rule in RULES)
    return [Finding(r.name, r.title, text, r.remedy) for r, text in seen if text]


def _exceeds(value: float | None, limit: float, text: str) -> str:
    """The text, with the value at ``{}``, if the value is known and above the limit."""
    return text.format(value) if value is not None and value > limit else ""


def _not_a_number(f: Facts) -> str:
    return "" if f.loss is None or abs(f.loss) < float("inf") else f"The last loss is {f.loss}."


def _not_converged(f: Facts) -> str:
    if not f.finished:
        return ""
    text = "The loss still fell by {:.2%} of itself in each of the last epochs."
    return _exceeds(f.decrease, 0.01, text)


def _tiny_steps(f: Facts) -> str:
    if f.rejected >= 2:
        return f"No step was taken in the last {f.rejected} epochs."
    if f.last_step is None or f.last_step > 0.01:
        return ""
    return f"The last steps were at most {f.last_step:.1e} of the median one."


def _weak_modes(f: Facts) -> str:
    weak = [i for i, share in enumerate(f.mode_shares) if share < 0.005]
    names = ", ".join(map(str, weak))
    return f"Probe mode {names} carries less than 0.5 % of the power." if weak else ""


def _empty_slices(f: Facts) -> str:
    largest = max(f.slice_contrast, default=0.0)
    empty = [str(z) for z, s in enumerate(f.slice_contrast) if s < 0.1 * largest]
    if not empty:
        return ""
    return f"The phase of slice {', '.join(empty)} varies by less than a tenth of the strongest."


def _low_overlap(f: Facts) -> str:
    if f.overlap is None or f.overlap >= 0.5:
        return ""
    return f"Neighbouring beams overlap by {f.overlap:.0%} of their diameter."


def _lost_positions(f: Facts) -> str:
    if f.displacement_px is None or f.step_px is None or f.displacement_px <= 0.5 * f.step_px:
        return ""
    moved = f"Positions moved by {f.displacement_px:.2f} px on average"
    return f"{moved}; a step is {f.step_px:.2f} px."


def _drift(f: Facts) -> str:
    if f.drift_px is None or f.drift_share is None or f.drift_px < 0.5 or f.drift_share < 0.5:
        return ""
    return (
        f"From the first to the last position the scan moved steadily by {f.drift_px:.2f} px; "
        f"that is {f.drift_share:.0%} of all squared displacements."
    )


def _counts_differ(f: Facts) -> str:
    if f.counts_ratio is None or abs(f.counts_ratio - 1) <= 0.03:
        return ""
    return f"The model predicts {f.counts_ratio:.3f} times the counts that were measured."


def _underfitted(f: Facts) -> str:
    error = f.explained_error or 0.0
    if f.explained is not None and f.explained + 2 * error < _EXPLAINED:
        return (
            f"It explains {f.explained:.0%} ± {error:.1%} of what differs from pattern "
            "to pattern beyond noise."
        )
    noise = max(f.noise, 1.0)
    text = f"χ² of the fitted patterns is {{:.2f}}; noise alone gives {noise:.3g}."
    return _exceeds(f.chi2, 2.0 * noise, text)


def _not_electrons(f: Facts) -> str:
    if f.noise <= 1 or f.explained is None or f.explained < _RIGHT:
        return ""
    return f"Their noise has {f.noise:.2f} times the variance of counted electrons."


def _below_noise(f: Facts) -> str:
    if f.chi2 is None or f.chi2 >= 0.85:
        return ""
    return f"χ² of the fitted patterns is {f.chi2:.2f}, less than counting noise."


def _held_out_worse(f: Facts) -> str:
    if f.chi2 is None or f.chi2_held_out is None:
        return ""
    scatter = 4 * ((f.chi2_error or 0.0) ** 2 + (f.chi2_held_out_error or 0.0) ** 2) ** 0.5
    if f.chi2_held_out <= 1.05 * f.chi2 + scatter:
        return ""
    return f"χ² is {f.chi2_held_out:.3f} on patterns held out, {f.chi2:.3f} on fitted ones."


def _amplitude_bias(f: Facts) -> str:
    if f.counts_per_pixel is None or f.counts_per_pixel >= 1 or f.algorithm != "lsq_sqrt":
        return ""
    return f"The mean count per pixel is {f.counts_per_pixel:.2f}, and algorithm is 'lsq_sqrt'."


def _sampling_limit(f: Facts) -> str:
    if not f.resolution_limited or f.resolution_A is None:
        return ""
    return f"The half sets agree up to the last ring, {f.resolution_A:.2f} Å."


RULES = (
    Rule("not_a_number", "The loss is not a number", _not_a_number,
         "Lower update_step_bfgs and look for bad pixels in the data."),
    Rule("not_converged", "The run ended before it converged", _not_converged,
         "Continue it: pyptyx resume FOLDER --set epoch_max=N. At low dose an early end may be "
         "right: compare the half-data correlation."),
    Rule("tiny_steps", "The steps have become very small", _tiny_steps,
         "Continue with reset_history_flag=True for one epoch, freeze positions or probe for a "
         "while, or accept the result."),
    Rule("log_warnings", "The log holds warnings",
         lambda f: f"{f.log_warnings} epochs had one." if f.log_warnings else "",
         "Read the column Warnings of loss.csv."),
    Rule("underfitted", "The model does not explain the data", _underfitted,
         "Check rotation, transposition, scan step and the sign of the defocus (pyptyx calibrate); "
         "then try more probe modes, positions (update_probe_pos), or more slices. If counts are "
         "not electrons, data_multiplier brings χ² to scale."),
    Rule("not_electrons", "Counts are not electrons", _not_electrons,
         "Divide data_multiplier by this number: the Poisson likelihood then weighs patterns and "
         "regularisers rightly, and χ² is to scale."),
    Rule("below_noise", "The fit is better than counting noise allows", _below_noise,
         "Either noise is being fitted (stop earlier, or regularise), or neighbouring pixels are "
         "correlated or counts are not electrons: data_multiplier."),
    Rule("held_out_worse", "Patterns held out fit worse than fitted ones", _held_out_worse,
         "Noise is being fitted: lower epoch_max, set convergence_tol, raise a regulariser, or "
         "give the model fewer slices or modes."),
    Rule("counts_differ", "The dose of the model is not that of the data", _counts_differ,
         "Let the probe be refined (update_probe), or start from probe='aperture' or None, which "
         "take the counts of the data; with a given probe check its scale and data_multiplier. "
         "With 'lsq_sqrt' pixels of few counts make the model too dark: 'ml' has no such bias."),
    Rule("amplitude_bias", "The loss is biased at this dose", _amplitude_bias,
         "Use the Poisson likelihood: the preset low_dose, algorithm='ml'. With 'lsq_sqrt' "
         "phases come out too weak."),
    Rule("outliers", "Some patterns fit much worse than the others",
         lambda f: _exceeds(f.outliers, 0.01, "{:.1%} of the patterns have more than three times "
                            "the median χ²."),
         "Look at their map. Leave them out with sequence, or refine positions and beam current."),
    Rule("probe_edge", "The probe reaches the edge of its window",
         lambda f: _exceeds(f.probe_edge, 0.05, "The frame of the window holds {:.1%} of its mean "
                            "intensity."),
         "Enlarge the window with upsample_pattern=2, and check the defocus."),
    Rule("weak_modes", "A probe mode is empty", _weak_modes,
         "Use fewer probe modes; they cost time and fit noise."),
    Rule("object_border", "The beam reaches the border of the object",
         lambda f: _exceeds(f.border_light, 0.05, "The border gets {:.1%} of the light inside the "
                            "scan."),
         "Raise extra_space_on_side_px, or upsample_pattern if the beam is too large for its "
         "window."),
    Rule("empty_slices", "A slice is nearly empty", _empty_slices,
         "Use fewer slices or a smaller total_thickness, or check the defocus: it decides where "
         "the specimen lies among the slices."),
    Rule("phase_wraps", "The phase wraps within a slice",
         lambda f: _exceeds(f.phase_span_rad, 5.5, "The phase of one slice spans {:.1f} rad."),
         "Use more slices, each with less of the specimen; or check the calibration."),
    Rule("low_overlap", "The beam hardly overlaps with its neighbours", _low_overlap,
         "Scan more finely, or defocus further. Do not refine positions from such data."),
    Rule("lost_positions", "Positions moved further than half a scan step", _lost_positions,
         "Begin to refine them later, regularise them, or check scan step and rotation first."),
    Rule("drift", "The scan drifts in one direction", _drift,
         "That is what a drifting specimen looks like: start from the refined positions. If it is "
         "along the slow axis, check the scan step."),
    Rule("saturated", "Pixels of the detector are saturated",
         lambda f: _exceeds(f.saturated, 1e-5, "{:.2e} of the pixels hold the largest value."),
         "Counts there are too low. Take data at a lower current."),
    Rule("band_limit", "Counts lie beyond the band limit of the model",
         lambda f: _exceeds(f.beyond_band, 0.02, "{:.1%} of the counts lie outside."),
         "Raise damping_cutoff_multislice (two thirds by default), or data_pad with more pixels "
         "around the pattern."),
    Rule("sampling_limit", "Sampling ends before the information does", _sampling_limit,
         "Raise data_pad or damping_cutoff_multislice for finer pixels of the object."),
)  # fmt: skip
"""Every rule, in the order in which findings are shown."""
