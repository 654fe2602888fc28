"""Figures as text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from arcface_cakd.evaluation.interval import Interval
from arcface_cakd.evaluation.roc import MIN_FALSE_ACCEPTS
from arcface_cakd.evaluation.verification import VerificationResult

INTERVALS = "intervals."
"""Before a figure's name, in keys of ``absent``: why the figure has no interval."""
_INTERVAL = "_interval"  # after it, where the figure's interval stands by itself


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, the first one left-aligned, the others right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = []
    for row in (header, *rows):
        first = row[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join(lines)


def percent(interval: Interval | None) -> str:
    """An interval of a rate, in percent; a dash where there is none."""
    return "-" if interval is None else f"[{100 * interval.low:.2f}, {100 * interval.high:.2f}]"


def drawn_note(intervals: Iterable[Interval | None]) -> list[str]:
    """What the intervals of a table are, a line for each kind of them; none for no interval."""
    kinds = {(each.level, each.drawn) for each in intervals if each is not None}
    return [
        f"intervals: {100 * level:g} %, {drawn} drawn again"
        + ("" if drawn == "people" else ", for the set does not say who is on them: too short")
        for level, drawn in sorted(kinds)
    ]


def absent_notes(results: Mapping[str, Any]) -> list[str]:
    """Why intervals that were asked for are not given, a line for each result and reason.

    Args:
        results: by name; ``absent`` of each says why, by the intervals' names in its ``to_dict``.
    """
    lines = []
    for name, result in results.items():
        lacking: dict[str, list[str]] = {}
        for key, reason in result.absent.items():
            if key.startswith(INTERVALS) or key.endswith(_INTERVAL):
                figure = key.removeprefix(INTERVALS).removesuffix(_INTERVAL)
                lacking.setdefault(reason, []).append(figure)
        for reason, figures in lacking.items():
            lines.append(f"{name}: no interval of {', '.join(figures)}: {reason}")
    return lines


def verification_table(results: Mapping[str, VerificationResult], heading: str = "set") -> str:
    """An aligned table, one row per result, rates in percent, one column per FAR.

    A FAR that none of the results supports has no column. Below the table stands how far down
    the TAR is given, where that ends above a FAR that was asked for.

    Args:
        results: by the name of the row.
        heading: of the column of names.
    """
    fars = sorted({far for result in results.values() for far in result.tar}, reverse=True)
    intervals = {name: result.accuracy_interval for name, result in results.items()}
    header = [heading, "pairs", "accuracy %"]
    header += ["its interval"] if any(intervals.values()) else []
    header += ["AUC %", "EER %"]
    header += [f"TAR@FAR={far:g} %" for far in fars]
    rows = []
    for name, result in results.items():
        row = [
            name,
            str(result.pairs),
            f"{100 * result.accuracy:.2f} +- {100 * result.accuracy_std:.2f}",
        ]
        if any(intervals.values()):
            row.append(percent(intervals[name]))
        row += [f"{100 * result.auc:.3f}", f"{100 * result.eer:.2f}"]
        row += [f"{100 * result.tar[far]:.2f}" if far in result.tar else "-" for far in fars]
        rows.append(row)
    lines = [format_table(header, rows), *drawn_note(intervals.values()), *absent_notes(results)]
    short: dict[int, list[str]] = {}
    for name, result in results.items():
        if any(figure.startswith("tar@") for figure in result.absent):
            short.setdefault(result.negatives, []).append(name)
    for negatives, names in short.items():
        if negatives < MIN_FALSE_ACCEPTS:
            lines.append(
                f"{', '.join(names)}: no TAR at any FAR, for {negatives} negative pairs are too "
                f"few: a FAR is given from {MIN_FALSE_ACCEPTS} false accepts on"
            )
            continue
        lines.append(
            f"{', '.join(names)}: no TAR below FAR={MIN_FALSE_ACCEPTS / negatives:.2g}, which is "
            f"{MIN_FALSE_ACCEPTS} false accepts among {negatives} negative pairs"
        )
    return "\n".join(lines)
