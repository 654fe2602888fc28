"""The pictures of a report, each a matplotlib figure.

They are drawn small with large letters, for the page shows each as wide as a phone is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from arcface_cakd.evaluation import RocCurve, VerificationResult
from arcface_cakd.evaluation.plots import label_text
from arcface_cakd.report.runs import ReportedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (4.2, 3.0)  # inches
# Okabe & Ito's, which people with other colour vision tell apart; then dashes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":", "-.")
_BINS = np.linspace(-1, 1, 61).tolist()


def training_charts(runs: Sequence[ReportedRun]) -> dict[str, Figure]:
    """A chart for everything that the log has: loss, terms, diagnostics, validation, by name."""
    series: dict[str, list[tuple[int, list[tuple[float, float]]]]] = {}
    for number, run in enumerate(runs):
        for name, points in _series(run).items():
            series.setdefault(name, []).append((number, points))
    charts = {}
    for name, lines in series.items():
        figure, axes = _empty(name, "step")
        for number, points in lines:
            axes.plot(
                *zip(*points, strict=True), label=label_text(runs[number].name), **_style(number)
            )
        values = [value for _, points in lines for _, value in points if math.isfinite(value)]
        if _spans_decades(values):
            axes.set_yscale("log")
        elif not any(values):  # as of terms that do not move the student
            axes.set_ylim(0, 1)
        _finish(axes, len(lines) > 1)
        charts[name] = figure
    return charts


def roc_chart(name: str, results: Mapping[str, VerificationResult]) -> Figure:
    """ROC curves of runs on one set; dotted where fewer than ten negative pairs are accepted."""
    figure, axes = _empty(f"ROC, {name}", "FAR (dotted: under ten false accepts)")
    for number, (run, result) in enumerate(results.items()):
        curve, style = result.roc, _style(number)
        trusted = curve.far >= (curve.lowest_far or float("inf"))
        axes.step(curve.far, curve.tar, where="post", linestyle=":", color=style["color"], lw=1)
        label = label_text(run)
        axes.step(curve.far[trusted], curve.tar[trusted], where="post", label=label, **style)
    axes.set(xscale="log", xlim=(min(1 / r.negatives for r in results.values()), 1), ylim=(0, 1.02))
    axes.set_ylabel("TAR")
    _finish(axes, True)
    return figure


def score_chart(name: str, run: str, result: VerificationResult) -> Figure:
    """Histograms of the cosines of pairs of one person and of two, as shares of each kind."""
    figure, axes = _empty(f"{name}: {run}", "cosine of a pair")
    cosines, one, two = pair_counts(result.roc)
    for counts, label, colour in ((one, "one person", COLOURS[0]), (two, "two people", COLOURS[1])):
        axes.hist(
            cosines, _BINS, weights=counts / counts.sum(), color=colour, alpha=0.6, label=label
        )
    axes.axvline(1 - result.threshold / 2, color="k", lw=1, linestyle="--", label="best threshold")
    axes.set_ylabel("share of the pairs")
    _finish(axes, True)
    return figure


def pair_counts(curve: RocCurve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a ROC curve knows of the scores: (K,) cosines, and the pairs of each kind at each."""
    cosines = 1 - curve.thresholds[1:] / 2
    one = np.rint(np.diff(curve.tar) * curve.positives)
    two = np.rint(np.diff(curve.far) * curve.negatives)
    return cosines, one, two


def _series(run: ReportedRun) -> dict[str, list[tuple[float, float]]]:
    """The points (step, value) of each curve of a run."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in run.history:
        values = {key: line[key] for key in ("loss", "margin", "lr", "grad_scale") if key in line}
        for group, prefix in (
            ("terms", ""),
            ("diagnostics", ""),
            ("gradient_norms", "gradient norm, "),
            ("validation", "accuracy, "),
        ):
            values |= {f"{prefix}{name}": value for name, value in line.get(group, {}).items()}
        for name, value in values.items():
            found.setdefault(name, []).append((line["step"], value))
    return found


def _spans_decades(values: Sequence[float]) -> bool:
    return bool(values) and min(values) > 0 and max(values) > 20 * min(values)


def _style(number: int) -> dict[str, Any]:
    colours = len(COLOURS)
    return {
        "color": COLOURS[number % colours],
        "linestyle": _DASHES[number // colours % len(_DASHES)],
    }


def _empty(title: str, xlabel: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # itself, not pyplot, which picks a window system

    figure = Figure(figsize=SIZE)
    # The margins by hand: a layout that finds them takes twice as long to draw.
    figure.subplots_adjust(left=0.17, right=0.97, bottom=0.17, top=0.9)
    axes = figure.add_subplot()
    axes.set_title(label_text(title), fontsize=11)
    axes.set_xlabel(xlabel, fontsize=10)
    axes.grid(alpha=0.3)
    return figure, axes


def _finish(axes: Axes, legend: bool) -> None:
    axes.tick_params(labelsize=9)
    if legend:
        axes.legend(fontsize=9)
