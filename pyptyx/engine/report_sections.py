"""The sections of a report: what of its numbers and arrays is shown, and in which words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pyptyx.engine.findings import Facts
from pyptyx.engine.half_data import THRESHOLDS, HalfData
from pyptyx.engine.report_material import Material
from pyptyx.engine.residuals import Residuals
from pyptyx.output import plots
from pyptyx.output import report_figures as figures
from pyptyx.output.report_page import Block, Grid, Picture, Section, Table, Text, Tile, Tiles
from pyptyx.params.codec import plain
from pyptyx.params.schema import RUN

_CLIP = (0.5, 99.5)
"""Percentiles of an image that become black and white."""

_LONG = 80
"""Characters of a parameter's value that are shown."""


@dataclass(frozen=True)
class Content:
    """All a report knows.

    Attributes
    ----------
    material : Material
    facts : Facts
    fitted, held_out : Residuals or None
        Comparison with the data.
    note : str
        Why there is no comparison, or what it leaves out.
    half : HalfData or None
    """

    material: Material
    facts: Facts
    fitted: Residuals | None
    held_out: Residuals | None
    note: str
    half: HalfData | None


def sections(content: Content) -> list[Section]:
    """All sections in their order."""
    return [
        Section("Object", _object(content.material)),
        Section("Probe", _probe(content)),
        Section("Convergence", _convergence(content.material)),
        Section("Fit to the data", _fit(content)),
        Section("Resolution", _resolution(content)),
        Section("Positions", _positions(content)),
        Section("Parameters", _parameters(content.material)),
    ]


def picture(figure: Figure, alt: str, name: str, caption: str = "") -> Picture:
    """A figure made inside `figures.drawing` with the text that stands for it."""
    return Picture(figures.inline_svg(figure, alt, name), caption or alt)


def overview(material: Material) -> Grid:
    """Projected phase and loss."""
    blocks: list[Block] = []
    with figures.drawing():
        phase = plots.plot_phase(
            material.obj, material.pixel_A, field=material.field, mask=_shown_mask(material)
        )
        blocks.append(picture(phase, "Phase, all slices added", "phase"))
        if material.records:
            blocks.append(picture(_history(material), "Loss after every epoch", "loss"))
    return Grid(blocks)


def _shown_mask(material: Material) -> np.ndarray | None:
    """What the beam centres surround; None if that is nothing."""
    mask = material.mask
    return mask if np.count_nonzero(mask) >= 3 else None


def _object(material: Material) -> list[Block]:
    y, x, slices, modes = material.obj.shape
    py, px = material.pixel_A
    text = (
        f"{y} × {x} pixels of {py:.4g} × {px:.4g} Å, {slices} slice(s), {modes} mode(s). Shown is "
        "the part that the beam centres surround. Of every slice the constant and the ramp of the "
        "phase are removed; ptychography leaves both open."
    )
    if modes > 1:
        text += " The first mode is shown."
    settings: dict[str, Any] = {"field": material.field, "mask": _shown_mask(material)}
    with figures.drawing():
        phase = plots.plot_phase(material.obj, material.pixel_A, **settings)
        amplitude = plots.plot_amplitude(material.obj, material.pixel_A, **settings)
        pair = Grid(
            [
                picture(phase, "Phase, all slices added", "phase"),
                picture(amplitude, "Amplitude, all slices multiplied", "amplitude"),
            ]
        )
    blocks: list[Block] = [Text(text), pair]
    if slices > 1:
        blocks += [_slice_tiles(material, "phase"), _slice_tiles(material, "amplitude")]
    return blocks


def _slice_tiles(material: Material, kind: str) -> Tiles:
    """One image per slice on a common scale."""
    rows, columns = material.field
    mask = _shown_mask(material)
    inside = np.ones(material.obj.shape[:2], bool) if mask is None else mask
    slices = np.moveaxis(material.obj[..., 0], -1, 0)
    if kind == "phase":
        images = [plots.remove_ramp(np.angle(z), inside) for z in slices]
    else:
        images = [np.abs(z) for z in slices]
    low, high = np.percentile(np.stack([image[inside] for image in images]), _CLIP)
    depths = np.cumsum([0.0, *material.gaps_A])
    unit = " rad" if kind == "phase" else ""
    tiles = [
        Tile(
            figures.image_uri(image[rows, columns], (low, high), mask=inside[rows, columns]),
            f"slice {z}, depth {depths[z]:.4g} Å",
            f"{kind} of slice {z}",
            _aspect(image[rows, columns].shape, material.pixel_A),
        )
        for z, image in enumerate(images)
    ]
    return Tiles(f"{kind.capitalize()} per slice, black {low:.3g} to white {high:.3g}{unit}", tiles)


def _aspect(shape: tuple[int, ...], steps: tuple[float, float]) -> float:
    return float(shape[1] * steps[1] / (shape[0] * steps[0]))


def _probe(content: Content) -> list[Block]:
    material, facts = content.material, content.facts
    ny, nx, modes, scenarios = material.probe.shape
    py, px = material.pixel_A
    text = f"Window {ny} × {nx} pixels, {ny * py:.4g} × {nx * px:.4g} Å. Amplitudes are shown."
    if scenarios > 1:
        text += f" The first of {scenarios} probes is shown."
    waves = [material.probe[:, :, m, 0] for m in range(modes)]
    spectra = [np.fft.fftshift(np.fft.fft2(wave)) for wave in waves]
    shares = facts.mode_shares
    pair: list[Block] = []
    real_step, reciprocal_step = (py, px), (1 / (ny * py), 1 / (nx * px))
    for title, images, steps in (
        ("Real space", waves, real_step),
        ("Reciprocal space", spectra, reciprocal_step),
    ):
        tiles = [
            Tile(
                figures.image_uri(np.abs(image), (0.0, float(np.abs(image).max()))),
                f"mode {m}: {shares[m]:.1%} of the power",
                f"amplitude of probe mode {m}, {title.lower()}",
                _aspect(image.shape, steps),
            )
            for m, image in enumerate(images)
        ]
        pair.append(Tiles(title, tiles, pixels=True))
    blocks: list[Block] = [Text(text), Grid(pair)]
    blocks.append(Table(("beam", ""), list(_beam_rows(facts))))
    current = material.arrays.get("beam_current")
    with figures.drawing():
        if current is not None:
            curve = figures.curve_figure(np.ravel(current), "measurement", "beam current")
            blocks.append(picture(curve, "Refined beam current of every measurement", "current"))
    return blocks


def _beam_rows(facts: Facts) -> Iterator[tuple[str, str]]:
    if facts.dose_per_A2 is not None:
        yield "dose", f"{facts.dose_per_A2:.4g} counts/Å² (electrons, if counts are electrons)"
    if facts.counts_per_pattern is not None and facts.counts_per_pixel is not None:
        yield "counts per pattern", f"{facts.counts_per_pattern:.5g}"
        yield "counts per pixel", f"{facts.counts_per_pixel:.4g}"
    if facts.counts_ratio is not None:
        yield "counts, model / data", f"{facts.counts_ratio:.4f}"
    if facts.probe_edge is not None:
        yield "light in the frame of the window", f"{facts.probe_edge:.2%} of the mean"
    if facts.overlap is not None:
        yield "overlap of neighbours", f"{facts.overlap:.1%} of the beam diameter"


def _history(material: Material) -> Figure:
    records = material.records
    after = [r.loss if np.isnan(r.loss_after) else r.loss_after for r in records]
    return figures.history_figure([r.epoch for r in records], after)


def _convergence(material: Material) -> list[Block]:
    records = material.records
    if not records:
        return [Text("There is no `loss.csv` yet, or it was switched off (`save_loss_log`).")]
    steps = figures.steps_figure
    with figures.drawing():
        numbers = [r.epoch for r in records]
        history = picture(_history(material), "Loss after every epoch", "loss")
        step = steps(numbers, [r.step for r in records], [r.evaluations for r in records])
        text = "Step of the line search (dots) and its evaluations (bars)"
        grid = Grid([history, picture(step, text, "steps")])
    return [grid]


def _fit(content: Content) -> list[Block]:
    fitted, held_out = content.fitted, content.held_out
    if fitted is None:
        return [Text(content.note)]
    blocks: list[Block] = [Text(_chi2_text(content)), Text(_held_out_text(held_out))]
    in_nm = content.material.arrays["positions"] * np.array(content.material.pixel_A) / 10
    curves = [("fitted", fitted.ring_per_A, fitted.chi2_per_ring)]
    if held_out is not None:
        curves.append(("held out", held_out.ring_per_A, held_out.chi2_per_ring))
    masks = content.material.params["masks"] is not None
    with figures.drawing():
        drawn: list[Block] = []
        if len(fitted.ring_per_A):
            axis = "virtual detector" if masks else "frequency / (1/Å)"
            alt = "χ² per detector" if masks else "χ² per ring of the detector; 1 is Poisson noise"
            drawn.append(picture(figures.rings_figure(curves, axis), alt, "rings"))
        if not masks:
            alt = "Where data exceed the model (red) or fall short of it (blue)"
            drawn.append(picture(figures.deviation_figure(fitted.deviation), alt, "deviation"))
        if len(in_nm) == content.material.arrays["positions"].shape[0] > 1:
            places = in_nm[fitted.numbers]
            chi2 = figures.map_figure(places, fitted.chi2_per_pattern, "χ²")
            drawn.append(picture(chi2, "χ² of every pattern, where it was taken", "chi2map"))
            ratio = fitted.predicted / np.maximum(fitted.counts, 1e-300)
            power = figures.map_figure(places, ratio, "counts, model / data")
            drawn.append(picture(power, "Beam power: counts of the model over data", "power"))
    return [*blocks, Grid(drawn)]


def _chi2_text(content: Content) -> str:
    fitted = content.fitted
    assert fitted is not None
    text = (
        f"χ² = {fitted.chi2:.4f} ± {fitted.chi2_error:.4f} from {len(fitted.numbers)} patterns: "
        "squared differences from the model over the model's counts. Counting noise alone gives 1, "
        "whatever the dose; this holds if counts are electrons."
    )
    return f"{text} {_explained_text(fitted)} {content.note}".strip()


def _explained_text(fitted: Residuals) -> str:
    if fitted.explained is None:
        return "Noise, or too few patterns, hides how much of their differences is explained."
    noise = "" if fitted.noise == 1 else f" of {fitted.noise:.2f} per count"
    return (
        f"Of what differs from pattern to pattern beyond noise{noise}, the model explains "
        f"{_share(fitted)}; with a wrong geometry it rarely reaches half."
    )


def _share(residuals: Residuals) -> str:
    return f"{min(residuals.explained or 0, 1):.0%} ± {residuals.explained_error:.1%}"


def _held_out_text(held_out: Residuals | None) -> str:
    if held_out is not None:
        share = "" if held_out.explained is None else f", {_share(held_out)} explained"
        return (
            f"{len(held_out.numbers)} patterns that took no part in the fit: χ² = "
            f"{held_out.chi2:.4f} ± {held_out.chi2_error:.4f}{share}. If it fits worse, noise is "
            "fitted."
        )
    return (
        "No pattern was held out. To see whether noise is fitted, leave some out with "
        "`sequence=[n for n in range(N) if n % 20]`; the report compares those by itself."
    )


def _resolution(content: Content) -> list[Block]:
    half = content.half
    if half is None:
        return [
            Text(
                "Resolution is measured by two reconstructions from independent halves of the "
                "data: `pyptyx report FOLDER --half-data`. It takes about as long as the run."
            )
        ]
    text = (
        f"Two reconstructions of {half.epochs} epochs from a chequerboard of {half.patterns[0]} "
        f"and {half.patterns[1]} patterns."
    )
    if not half.from_start:
        text += (
            " They continue from the present state and share its noise: the correlation is too "
            "good, the true resolution is worse. `--half-data` without a number is free of that."
        )
    curves = [(c.name, np.array(c.frequency_per_A), np.array(c.value)) for c in half.curves]
    first = half.curves[0]
    with figures.drawing():
        figure = figures.correlation_figure(curves, np.array(first.half_bit))
        drawn = picture(figure, "Fourier ring correlation of half data; dotted: 1/7 and 0.5", "frc")
    head = ("image", *(f"resolution at {name} / Å" for name in THRESHOLDS))
    rows = [(c.name, *(_period(c.resolution_A[t], c.limited[t]) for t in THRESHOLDS))
            for c in half.curves]  # fmt: skip
    return [Text(text), Grid([drawn, Table(head, rows)])]


def _period(period_A: float | None, limited: bool) -> str:
    if period_A is None:
        return "none"
    return f"{'≤ ' if limited else ''}{period_A:.3g}"


def _positions(content: Content) -> list[Block]:
    material, facts = content.material, content.facts
    moved = material.displacements_px * np.array(material.pixel_A)
    if not np.abs(moved).max() > 0:
        return [Text("Positions are where they started (`update_probe_pos`).")]
    text = f"Root mean square displacement {facts.displacement_px or 0:.3g} px."
    if facts.drift_px is not None and facts.drift_share is not None:
        text += (
            f" Steady drift {facts.drift_px:.3g} px from the first to the last position, "
            f"{facts.drift_share:.0%} of the squared displacements."
        )
    in_nm = material.arrays["positions"] * np.array(material.pixel_A) / 10
    chosen = np.unique(np.linspace(0, len(in_nm) - 1, 900).round().astype(int))
    with figures.drawing():
        arrows = figures.arrows_figure(in_nm[chosen], moved[chosen])
        series = figures.displacement_figure(moved)
        grid = Grid(
            [
                picture(arrows, "Displacement of the positions since the start", "arrows"),
                picture(series, "Displacement in the order of the scan", "moved"),
            ]
        )
    return [Text(text), grid]


def _parameters(material: Material) -> list[Block]:
    """Keys that differ from their defaults."""
    rows = []
    for key, value in plain(material.params, epochs=0).items():
        row = RUN.get(key)
        if isinstance(value, np.ndarray):
            rows.append((f"`{key}`", f"array {' × '.join(map(str, value.shape))}"))
        elif row is not None and value is not None and value != row.default:
            text = str(value)
            rows.append((f"`{key}`", text if len(text) <= _LONG else f"{text[:_LONG]} …"))
    summary = f"{len(rows)} keys that differ from their defaults"
    return [Table(("key", "value"), rows, summary)]
