"""The figures of runs, one a row, and the settings in which they differ."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from arcface_cakd.report.runs import ReportedRun

_INTERVAL = "_interval"  # after the name of the figure, or in one mapping by their names:
_INTERVALS = "intervals"


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

    A section that a run has not, such as ``cakd``, is one row; of its settings those stand besides
    in which the runs that have it differ.
    """
    told = [run.settings for run in runs]
    names = list(dict.fromkeys(name for settings in told for name in settings))
    # Where it is off a section is a name by itself; where it is on, its settings have names.
    sections = [n for n in names if any(other.startswith(f"{n}.") for other in names)]
    rows: dict[str, list[str | None]] = {}
    for name in names:
        if name in sections:
            rows[name] = [settings.get(name, _section(name, settings)) for settings in told]
        else:
            values = [settings.get(name) for settings in told]
            inside = any(name.startswith(f"{section}.") for section in sections)
            if not inside or len(set(values) - {None}) > 1:
                rows[name] = values
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def _section(name: str, settings: Mapping[str, str]) -> str | None:
    """What a row says of a section that a run has; None where it has none."""
    count = sum(other.startswith(f"{name}.") for other in settings)
    return f"on, {count} settings" if count else None


def _figures(run: str, protocol: str, name: str, result: Mapping[str, Any]) -> list[Figure]:
    intervals = {
        key.removesuffix(_INTERVAL): value
        for key, value in result.items()
        if key.endswith(_INTERVAL) and isinstance(value, Mapping)
    }
    together = result.get(_INTERVALS)
    if isinstance(together, Mapping):
        intervals |= {key: one for key, one in together.items() if isinstance(one, Mapping)}
    found = []
    for key, value in _numbers(result):
        interval = intervals.get(key, {})
        low, high, drawn = (interval.get(part) for part in ("low", "high", "drawn"))
        if not (_is_number(low) and _is_number(high) and isinstance(drawn, str | None)):
            low = high = drawn = None
        found.append(Figure(run, protocol, name, key, value, low, high, drawn))
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(result: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in a result, with those inside of it by dotted names; intervals stand apart."""
    for key, value in result.items():
        if isinstance(value, Mapping) and key != _INTERVALS and not key.endswith(_INTERVAL):
            yield from _numbers(value, f"{prefix}{key}.")
        elif _is_number(value):
            yield f"{prefix}{key}", value
