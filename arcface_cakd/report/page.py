"""The page: everything about some runs in one HTML file, and beside it CSV, JSON and PNG."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arcface_cakd import __version__
from arcface_cakd.extras import extra
from arcface_cakd.files import json_text
from arcface_cakd.report.charts import roc_chart, score_chart, training_charts
from arcface_cakd.report.figures import (
    Figure,
    Result,
    differing_data,
    differing_settings,
    figures_csv,
    results_of,
    row_names,
)
from arcface_cakd.report.place import (
    MADE_BY,
    check_pictures,
    check_place,
    file_names,
    former_pictures,
    put,
    sign_of_pictures,
)
from arcface_cakd.report.receptive_fields import Receptive, receptive_fields
from arcface_cakd.report.runs import ReportedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Chart

logger = logging.getLogger("arcface_cakd")

TEMPLATE = Path(__file__).with_name("page.html.j2")
PROMPTS = ("prompted_cosine", "prompt_norm", "prompt_attention")  # of the diagnostics
# Figures of the built-in protocols that are shown in percent,
_RATE = re.compile(r"accuracy(_std)?|auc|eer|(nearest_)?tar\..+|tpir\..+|rank[.-]\d+")
_RATE_OF = {"rfw": re.compile(r"mean|std")}
# and those that are not shown.
_HIDDEN = re.compile(r"folds|thresholds?(\..+)?|val(_std|_far)?|data\..+")
_PARTS_OF_PAIRS = ("positives", "negatives")  # not shown beside their sum
_HEADINGS = {
    "accuracy_std": "its std of folds",
    "auc": "AUC",
    "eer": "EER",
    "std": "STD",
    "skewed_error_ratio": "SER",
    "tar": "TAR@FAR=",
    "nearest_tar": "TAR nearest FAR=",
    "tpir": "TPIR@FPIR=",
    "rank": "rank ",
}


def write_report(runs: Sequence[ReportedRun], path: str | Path) -> list[Path]:
    """Write the page, ``<stem>.csv``, ``<stem>.json`` and ``<stem>_<chart>.png`` beside it.

    The page needs nothing besides itself: no script, no font, no other file.

    Args:
        runs: in the order in which they are shown.
        path: of the page.

    Returns:
        What was written, the page first.

    Raises:
        MissingPackageError: see ``check_installed``.
        ReportError: see ``check_place``; or a picture would stand where a file of another is.
            Nothing has been written then.
    """
    check_installed()
    path = Path(path)
    check_place(path)
    results = [result for run in runs for result in results_of(run)]
    figures = [figure for result in results for figure in result.figures]
    trained, scored = training_charts(runs), _score_charts(runs)
    receptive = [found for run in runs if (found := receptive_fields(run)) is not None]

    sign = sign_of_pictures(path)
    pictures = {name: _png(chart, sign) for name, chart in {**trained, **scored}.items()}
    local = {f.run: _png(f.picture, sign, 120) for f in receptive if f.picture is not None}
    pictures |= {f"local centres {run}": picture for run, picture in local.items()}
    named = dict(zip(file_names(pictures, path.stem), pictures.values(), strict=True))
    check_pictures(path, named)
    former = former_pictures(path)

    content = _content(runs, figures, list(named))
    notes = _notes(runs, results)
    if _has_non_finite(content):
        notes.append(f"What is no finite number is null in {path.with_suffix('.json').name}.")
    for note in notes:
        logger.warning("%s", note)
    page = _filled(runs, results, notes, trained, scored, receptive, local)
    beside = {
        path.with_suffix(".csv").name: _encodable(figures_csv(figures)).encode(),
        path.with_suffix(".json").name: json_text(content, indent=1).encode(),
        **named,
    }
    # The page last: where it is, what it stands beside is there too.
    put(path, {**beside, path.name: _encodable(page).encode()})
    for name in former - beside.keys():
        path.with_name(name).unlink(missing_ok=True)
    return [path, *(path.with_name(name) for name in beside)]


def _notes(runs: Sequence[ReportedRun], results: Sequence[Result]) -> list[str]:
    """What is to be known before the runs are compared, a sentence each."""
    notes = [note for run in runs for note in run.notes]
    differing = (differing_data(rows) for rows in _tables_of(results).values())
    return notes + [note for note in differing if note is not None]


def _has_non_finite(content: Mapping[str, Any]) -> bool:
    """Whether a number is not finite, which JSON has no word for."""
    try:
        json.dumps(content, allow_nan=False)
    except ValueError:
        return True
    return False


def _encodable(text: str) -> str:
    """A text with what is no UTF-8, as in a file's name among the settings, escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def check_installed() -> None:
    """Say what is missing before anything is computed.

    Raises:
        MissingPackageError: matplotlib or jinja2 is not installed.
    """
    for package in ("matplotlib", "jinja2"):
        extra(package, "report", "a report")


def _filled(
    runs: Sequence[ReportedRun],
    results: Sequence[Result],
    notes: Sequence[str],
    trained: Mapping[str, Chart],
    scored: Mapping[str, Chart],
    receptive: Sequence[Receptive],
    local: Mapping[str, bytes],
) -> str:
    import jinja2

    names = [run.name for run in runs]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.tests["number_like"] = _is_number
    prompts = [(run.name, run.last("diagnostics")) for run in runs]
    prompts = [(name, found) for name, found in prompts if "prompted_cosine" in found]
    kinds = [kind for kind in PROMPTS if any(kind in found for _, found in prompts)]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title="Runs: " + ", ".join(names) if len(runs) > 1 else f"Run {names[0]}",
        made=f"Made {datetime.now(timezone.utc):%Y-%m-%d %H:%M} {MADE_BY} {__version__} report",
        notes=notes,
        names=names,
        scores=[_score_table(rows) for rows in _tables_of(results).values()],
        about_intervals=_about_intervals(f for result in results for f in result.figures),
        score_charts=_drawn(scored),
        differing=[
            [name, *[_said(run, value) for run, value in zip(runs, values, strict=True)]]
            for name, values in differing_settings(runs).items()
        ],
        settings={run.name: list(run.settings.items()) for run in runs if run.settings},
        training_charts=_drawn(trained),
        receptive=[
            (
                found.run,
                None if found.variation is None else f"{found.variation:.3f}",
                _data_url(local[found.run]) if found.run in local else None,
                found.reason,
            )
            for found in receptive
        ],
        prompts=[kinds, [[n, *[_value(f.get(k)) for k in kinds]] for n, f in prompts]]
        if prompts
        else None,
        cost=_cost(runs),
        environment=_environment(runs),
    )


def _said(run: ReportedRun, value: str | None) -> str:
    if value is not None:
        return value
    return "unset" if run.record else "not known"


def _tables_of(results: Sequence[Result]) -> dict[tuple[str, str], list[Result]]:
    """The rows of each table, by protocol and set."""
    tables: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if any(not _HIDDEN.fullmatch(figure.name) for figure in result.figures):
            tables.setdefault((result.protocol, result.set), []).append(result)
    return tables


def _score_table(results: Sequence[Result]) -> tuple[str, list[str], list[list[str]]]:
    """The heading, head and rows of the table of one protocol and set: a column a figure."""
    found = [{figure.name: figure for figure in result.figures} for result in results]
    names = dict.fromkeys(name for row in found for name in row if not _HIDDEN.fullmatch(name))
    columns = [n for n in names if not ("pairs" in names and n in _PARTS_OF_PAIRS)]
    rates = {name for name in columns if _is_rate([row[name] for row in found if name in row])}
    columns.sort(key=lambda name: name not in rates)  # counts last: a phone shows the first
    head = ["run", *[_heading(column, column in rates) for column in columns]]
    rows = [
        [label, *[_cell(row.get(column), column in rates) for column in columns]]
        for label, row in zip(row_names(results), found, strict=True)
    ]
    return f"{results[0].set} ({results[0].protocol})", head, rows


def _heading(name: str, is_rate: bool) -> str:
    first, _, rest = name.partition(".")
    text = f"{_HEADINGS.get(first, first.replace('_', ' '))}{rest}"
    return f"{text}\N{NO-BREAK SPACE}%" if is_rate else text


def _is_rate(column: Sequence[Figure]) -> bool:
    """Whether the figures of a column are shares, which are shown in percent."""
    name, protocol = column[0].name, column[0].protocol
    own = _RATE_OF.get(protocol)
    known = bool(_RATE.fullmatch(name)) or (own is not None and bool(own.fullmatch(name)))
    return known and not any(figure.value > 1 for figure in column)


def _cell(figure: Figure | None, is_rate: bool) -> str:
    if figure is None:
        return "-"
    if not is_rate:
        return _value(figure.value)
    text = f"{100 * figure.value:.2f}"
    if figure.low is None or figure.high is None:
        return text
    return f"{text} [{100 * figure.low:.2f}, {100 * figure.high:.2f}]"


def _value(value: float | None) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else f"{value:.4g}"


def _is_number(cell: str) -> bool:
    """Whether a cell is to be set as a figure, with or without an interval."""
    return re.fullmatch(r"-|nan|-?inf|[-+0-9.,e]+( \[.*\])?", str(cell)) is not None


def _about_intervals(figures: Iterable[Figure]) -> str:
    drawn = {figure.drawn for figure in figures if figure.drawn}
    if not drawn:
        return "No intervals: nothing was drawn again."
    text = "Intervals hold 95 % of the draws of " + " or ".join(sorted(drawn)) + ". "
    if "pairs" in drawn:
        text += (
            "Pairs are drawn where a set does not say who is on them: that leaves out what people "
            "do to the spread, so such intervals are too short. "
        )
    return text + "They say nothing of other seeds: train several."


def _cost(runs: Sequence[ReportedRun]) -> tuple[list[str], list[list[str]]]:
    kinds = ["images a second", "ms an image", "minutes"]
    rows = [
        [
            run.name,
            *[_value(run.cost.get(kind)) for kind in kinds],
            _value(run.record.get("parameters")),
        ]
        for run in runs
    ]
    return ["run", *kinds, "parameters of the student"], rows


def _environment(runs: Sequence[ReportedRun]) -> tuple[list[str], list[list[str]]]:
    known = {run.name: run.record.get("environment", {}) for run in runs}
    keys = list(dict.fromkeys(key for found in known.values() for key in found))
    rows = [[key, *[str(found.get(key, "-")) for found in known.values()]] for key in keys]
    return ["", *known], rows


def _score_charts(runs: Sequence[ReportedRun]) -> dict[str, Chart]:
    charts = {}
    for name in dict.fromkeys(name for run in runs for name in run.judged):
        results = {run.name: run.judged[name] for run in runs if name in run.judged}
        charts[f"ROC {name}"] = roc_chart(name, results)
        for run, result in results.items():
            charts[f"scores {name} {run}"] = score_chart(name, run, result)
    return charts


def _content(
    runs: Sequence[ReportedRun], figures: Sequence[Figure], pictures: list[str]
) -> dict[str, Any]:
    """What the JSON file holds."""
    return {
        "runs": {
            run.name: {"record": run.record, "cost": run.cost, "history": list(run.history)}
            for run in runs
        },
        "figures": [asdict(figure) for figure in figures],
        "pictures": pictures,  # by which a later report knows what to remove
    }


def _drawn(charts: Mapping[str, Chart]) -> dict[str, Any]:
    """SVG elements, as markup that the page takes as it is."""
    import markupsafe

    return {
        name: markupsafe.Markup(_svg(chart, n)) for n, (name, chart) in enumerate(charts.items())
    }


def _svg(chart: Chart, number: int) -> str:
    """An <svg> element, its letters as letters; ids of charts on one page must differ."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": str(number)}):
        chart.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # matplotlib numbers groups anew in each chart: ids that nothing refers to would stand twice.
    referred = set(re.findall(r"#([\w-]+)", text))
    return re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in referred else "", text)


def _png(chart: Chart, sign: str, dpi: int = 150) -> bytes:
    file = io.BytesIO()
    chart.savefig(file, format="png", dpi=dpi, metadata={"Software": sign})
    return file.getvalue()


def _data_url(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()
