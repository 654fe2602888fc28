"""The figures of runs, one a row, and the settings in which they differ."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from arcface_cakd.report.runs import SIZES, ReportedRun, model_of

_INTERVAL = "_interval"  # after the name of the figure, or in one mapping by their names:
_INTERVALS = "intervals"
_SHOWN = 12  # characters of a digest
_DATA = "data"  # what `evaluate --json` says of a set's own data
# Of built-in protocols: where these differ, so do the data.
_COUNTS = (
    *("pairs", "positives", "negatives", "images", "templates", "people", "gallery"),
    *("probes", "mates", "mated", "non_mated", "distractors"),
)


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
        file: the stem of the JSON in the run's folder that says so; None: judged for the page.
        model: the file's name of the model that it says it is of, where it does.
    """

    run: str
    protocol: str
    set: str
    name: str
    value: float
    low: float | None = None
    high: float | None = None
    drawn: str | None = None
    file: str | None = None
    model: str | None = None


@dataclass(frozen=True)
class Result:
    """What a run scores on a set: a row of a table.

    Attributes:
        run, protocol, set, file, model: see ``Figure``.
        figures: that it has.
        data: what tells its data from others of the same name, such as counts.
    """

    run: str
    protocol: str
    set: str
    file: str | None
    model: str | None
    figures: list[Figure]
    data: dict[str, Any]


def results_of(run: ReportedRun) -> list[Result]:
    """Everything that a run scores: what was judged for the page, then what each file says."""
    found = []
    for name, judged in run.judged.items():
        told = {_DATA: {"sha256": run.digests[name]}} if name in run.digests else {}
        found.append(_result(run.name, "bin", name, None, None, judged.to_dict() | told))
    for file, evaluation in run.evaluations.items():
        protocol, model = str(evaluation.get("protocol", "bin")), model_of(evaluation)
        for name, result in evaluation["sets"].items():
            if isinstance(result, Mapping):
                found.append(_result(run.name, protocol, str(name), file, model, result))
    return found


def row_names(results: Sequence[Result]) -> list[str]:
    """What each row of a table is called: the run, and the file where that alone does not tell."""
    runs = [result.run for result in results]
    names = []
    for result in results:
        if runs.count(result.run) == 1 and result.model in (None, "model.pt"):
            names.append(result.run)
            continue
        file = "judged for this page" if result.file is None else result.file
        model = f" ({result.model})" if result.model else ""
        names.append(f"{result.run}: {file}{model}")
    return names


def differing_data(results: Sequence[Result]) -> str | None:
    """A sentence where rows of one table are of other data than each other; else None."""
    names = row_names(results)
    for key in dict.fromkeys(key for result in results for key in result.data):
        there = {
            name: result.data[key]
            for name, result in zip(names, results, strict=True)
            if key in result.data
        }
        if any(value != next(iter(there.values())) for value in there.values()):
            first = results[0]
            said = ", ".join(f"{str(v)[:_SHOWN]} ({name})" for name, v in there.items())
            return (
                f"{first.set} ({first.protocol}) is not of the same data in every row, whose "
                f"figures do not compare: {key} {said}."
            )
    return None


def figures_csv(figures: Sequence[Figure]) -> str:
    """All of them as CSV with a header, a figure a row."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(Figure.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(figure) for figure in figures)
    return file.getvalue()


def differing_settings(runs: Sequence[ReportedRun]) -> dict[str, list[str | None]]:
    """What runs were told otherwise: by dotted name, each run's value; None where unset.

    First the numbers of images and classes, then the settings.

    A section that a run has not, such as ``cakd``, is one row; of its settings those stand besides
    in which the runs that have it differ.
    """
    told = [run.settings for run in runs]
    names = list(dict.fromkeys(name for settings in told for name in settings))
    # Where it is off a section is a name by itself; where it is on, its settings have names.
    sections = [n for n in names if any(other.startswith(f"{n}.") for other in names)]
    rows: dict[str, list[str | None]] = {
        f"{size} of the training set": [
            str(run.record[size]) if size in run.record else None for run in runs
        ]
        for size in SIZES
    }
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


def _result(
    run: str,
    protocol: str,
    name: str,
    file: str | None,
    model: str | None,
    result: Mapping[str, Any],
) -> Result:
    told = result.get(_DATA)
    data = {key: result[key] for key in _COUNTS if _is_number(result.get(key))}
    data |= dict(told) if isinstance(told, Mapping) else {}
    figures = [Figure(run, protocol, name, *figure, file, model) for figure in _figures(result)]
    return Result(run, protocol, name, file, model, figures, data)


def _figures(result: Mapping[str, Any]) -> Iterator[tuple[str, float, Any, Any, Any]]:
    """The name and value of each figure in a result, its interval's ends, and what was drawn."""
    intervals = {
        key.removesuffix(_INTERVAL): value
        for key, value in result.items()
        if key.endswith(_INTERVAL) and isinstance(value, Mapping)
    }
    together = result.get(_INTERVALS)
    if isinstance(together, Mapping):
        intervals |= {key: one for key, one in together.items() if isinstance(one, Mapping)}
    for key, value in _numbers(result):
        interval = intervals.get(key, {})
        low, high, drawn = (interval.get(part) for part in ("low", "high", "drawn"))
        if not (_is_number(low) and _is_number(high) and isinstance(drawn, str | None)):
            low = high = drawn = None
        yield key, value, low, high, drawn


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(result: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in a result, with those inside of it by dotted names; intervals stand apart."""
    for key, value in result.items():
        if isinstance(value, Mapping) and key != _INTERVALS and not key.endswith(_INTERVAL):
            yield from _numbers(value, f"{prefix}{key}.")
        elif _is_number(value):
            yield f"{prefix}{key}", value
