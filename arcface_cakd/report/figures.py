"""The figures of runs, one a row, and the settings in which they differ."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from arcface_cakd.report.runs import ReportedRun

_INTERVAL = "_interval"


@dataclass(frozen=True)
class Figure:
    """A figure of a run.

    Attributes:
        run: its name.
        protocol: "bin", or what another evaluation says.
        set: of the data.
        name: of the figure, dotted where it stands inside another.
        value: rates are in [0, 1].
        low: with ``high`` the interval, where there is one.
        high: see ``low``.
        drawn: what was drawn again for the interval, "people" or "pairs".
    """

    run: str
    protocol: str
    set: str
    name: str
    value: float
    low: float | None = None
    high: float | None = None
    drawn: str | None = None


def figures_of(run: ReportedRun) -> list[Figure]:
    """Every figure of a run; where a set was judged for the page, what a file says of it is not
    repeated."""
    found = []
    for name, result in run.judged.items():
        found += _figures(run.name, "bin", name, result.to_dict())
    for evaluation in run.evaluations.values():
        protocol = str(evaluation.get("protocol", "bin"))
        for name, result in evaluation["sets"].items():
            if isinstance(result, Mapping) and not (protocol == "bin" and name in run.judged):
                found += _figures(run.name, protocol, str(name), result)
    return found


def figures_csv(figures: Sequence[Figure]) -> str:
    """All of them as CSV with a header, a figure a row."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(Figure.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(figure) for figure in figures)
    return file.getvalue()


def differing_settings(runs: Sequence[ReportedRun]) -> dict[str, list[str | None]]:
    """The settings in which runs differ: by dotted name, each run's value; None where unset.

    Where a section is another thing in each run, such as ``cakd``, its settings differ one by one.
    """
    told = [run.settings for run in runs]
    names = list(dict.fromkeys(name for settings in told for name in settings))
    rows = {name: [settings.get(name) for settings in told] for name in names}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def _figures(run: str, protocol: str, name: str, result: Mapping[str, Any]) -> list[Figure]:
    intervals = {
        key.removesuffix(_INTERVAL): value
        for key, value in result.items()
        if key.endswith(_INTERVAL) and isinstance(value, Mapping)
    }
    found = []
    for key, value in _numbers(result):
        interval = intervals.get(key, {})
        ends = interval.get("low"), interval.get("high"), interval.get("drawn")
        found.append(Figure(run, protocol, name, key, value, *ends))
    return found


def _numbers(result: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in a result, with those inside of it by dotted names; intervals stand apart."""
    for key, value in result.items():
        if isinstance(value, Mapping) and not str(key).endswith(_INTERVAL):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", value
