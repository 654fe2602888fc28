"""The page: everything about some runs in one HTML file, and beside it CSV, JSON and PNG."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arcface_cakd import __version__
from arcface_cakd.extras import extra
from arcface_cakd.files import atomic_path, write_text
from arcface_cakd.report.charts import roc_chart, score_chart, training_charts
from arcface_cakd.report.errors import ReportError
from arcface_cakd.report.figures import Figure, differing_settings, figures_csv, figures_of
from arcface_cakd.report.receptive_fields import Receptive, receptive_fields
from arcface_cakd.report.runs import ReportedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Chart

TEMPLATE = Path(__file__).with_name("page.html.j2")
_MADE_BY = "UTC by arcface-cakd"  # on every page
# What the files of a report hold within their first _LOOKED_AT bytes, by their suffixes.
_SIGNS = {".csv": f"{','.join(Figure.__dataclass_fields__)}\n", ".json": '{\n "runs": {'}
_LOOKED_AT = 1 << 20
PROMPTS = ("prompted_cosine", "prompt_norm", "prompt_attention")  # of the diagnostics
_RATE = re.compile(  # shown in percent
    r"(accuracy|auc|eer|(nearest_)?tar|tpir|rank|mean|std)(?![a-z])"
)
_HIDDEN = re.compile(r"(pairs|positives|negatives|folds|thresholds?|val)(?![a-z])")
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
    """
    check_installed()
    path = Path(path)
    former = check_place(path)
    figures = [figure for run in runs for figure in figures_of(run)]
    trained, scored = training_charts(runs), _score_charts(runs)
    receptive = [found for run in runs if (found := receptive_fields(run)) is not None]
    page = _filled(runs, figures, trained, scored, receptive)

    pictures = {name: _png(chart) for name, chart in {**trained, **scored}.items()}
    pictures |= {f"local centres {f.run}": f.picture for f in receptive if f.picture is not None}
    named = dict(zip(_file_names(pictures, path.stem), pictures.values(), strict=True))
    files = [path, path.with_suffix(".csv"), path.with_suffix(".json")]
    files += [path.with_name(name) for name in named]
    if not former:
        for beside in files[3:]:
            if beside.exists():
                raise _taken(beside)
    write_text(files[1], _encodable(figures_csv(figures)))
    write_text(files[2], json.dumps(_content(runs, figures), indent=1) + "\n")
    for beside, picture in zip(files[3:], named.values(), strict=True):
        with atomic_path(beside) as partial:
            partial.write_bytes(picture)
    write_text(path, _encodable(page))  # last: where it is, what it stands beside is there too
    return files


def _encodable(text: str) -> str:
    """A text with what is no UTF-8, as in a file's name among the settings, escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def check_place(path: str | Path) -> bool:
    """Refuse to write a report over what is none; a former report is replaced.

    Args:
        path: of the page.

    Returns:
        Whether a former report is there, with its pictures.

    Raises:
        ReportError: ``path``, or the ``.csv`` or ``.json`` beside it, is there and no report's.
    """
    path = Path(path)
    for file in (path, path.with_suffix(".csv"), path.with_suffix(".json")):
        if file.exists() and not _of_a_report(file):
            raise _taken(file)
    return path.with_suffix(".json").exists()


def _of_a_report(file: Path) -> bool:
    if not file.is_file():
        return False
    with open(file, "rb") as opened:
        start = opened.read(_LOOKED_AT)
    sign = _SIGNS.get(file.suffix)
    if sign is None:
        return not start or _MADE_BY.encode() in start
    return not start or start.startswith(sign.encode())


def _taken(file: Path) -> ReportError:
    return ReportError(
        f"{file}: is there, is no report's, and would be replaced: name another page"
    )


def check_installed() -> None:
    """Say what is missing before anything is computed.

    Raises:
        MissingPackageError: matplotlib or jinja2 is not installed.
    """
    for package in ("matplotlib", "jinja2"):
        extra(package, "report", "a report")


def _filled(
    runs: Sequence[ReportedRun],
    figures: Sequence[Figure],
    trained: Mapping[str, Chart],
    scored: Mapping[str, Chart],
    receptive: Sequence[Receptive],
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
        made=f"Made {datetime.now(timezone.utc):%Y-%m-%d %H:%M} {_MADE_BY} {__version__} report",
        notes=[
            f"{run.name} has no run.json (its version of arcface_cakd wrote none): what it was "
            "told is not known."
            for run in runs
            if not run.record
        ],
        names=names,
        scores=_score_tables(names, figures),
        about_intervals=_about_intervals(figures),
        score_charts=_drawn(scored),
        differing=[
            [name, *["unset" if value is None else value for value in values]]
            for name, values in differing_settings(runs).items()
        ],
        settings={run.name: list(run.settings.items()) for run in runs if run.settings},
        training_charts=_drawn(trained),
        receptive=[
            (
                found.run,
                None if found.variation is None else f"{found.variation:.3f}",
                None if found.picture is None else _data_url(found.picture),
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


def _score_tables(
    names: Sequence[str], figures: Sequence[Figure]
) -> list[tuple[str, list[str], list[list[str]]]]:
    """A table for each protocol and set: a row a run, a column a figure."""
    tables = []
    for protocol, data in dict.fromkeys((f.protocol, f.set) for f in figures):
        here = {(f.run, f.name): f for f in figures if (f.protocol, f.set) == (protocol, data)}
        columns = [c for c in dict.fromkeys(name for _, name in here) if not _HIDDEN.match(c)]
        columns.sort(key=lambda name: not _is_rate(name))  # counts last: a phone shows the first
        rows = [[run, *[_cell(here.get((run, c))) for c in columns]] for run in names]
        rows = [row for row in rows if any(cell != "-" for cell in row[1:])]
        head = ["run", *[_heading(column) for column in columns]]
        tables.append((f"{data} ({protocol})", head, rows))
    return tables


def _heading(name: str) -> str:
    first, _, rest = name.partition(".")
    text = f"{_HEADINGS.get(first, first.replace('_', ' '))}{rest}"
    return f"{text}\N{NO-BREAK SPACE}%" if _is_rate(name) else text


def _is_rate(name: str) -> bool:
    return _RATE.match(name) is not None


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    if not _is_rate(figure.name):
        return _value(figure.value)
    text = f"{100 * figure.value:.2f}"
    if figure.low is None or figure.high is None:
        return text
    return f"{text} [{100 * figure.low:.2f}, {100 * figure.high:.2f}]"


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _is_number(cell: str) -> bool:
    """Whether a cell is to be set as a figure, with or without an interval."""
    return re.fullmatch(r"-|[-+0-9.,e]+( \[.*\])?", str(cell)) is not None


def _about_intervals(figures: Sequence[Figure]) -> str:
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
            f"{run.record['parameters']:,}" if "parameters" in run.record else "-",
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


def _content(runs: Sequence[ReportedRun], figures: Sequence[Figure]) -> dict[str, Any]:
    """What the JSON file holds."""
    return {
        "runs": {
            run.name: {"record": run.record, "cost": run.cost, "history": list(run.history)}
            for run in runs
        },
        "figures": [asdict(figure) for figure in figures],
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


def _png(chart: Chart) -> bytes:
    file = io.BytesIO()
    chart.savefig(file, format="png", dpi=150)
    return file.getvalue()


def _data_url(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def _file_names(names: Iterable[str], stem: str) -> list[str]:
    """A name for each picture's file, no two of them one, also where case does not tell."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^\w@.=-]+", "_", name).strip("_")
        wanted = f"{stem}_{plain}"
        given, number = wanted, 1
        while given.casefold() in found:
            number += 1
            given = f"{wanted}_{number}"
        found[given.casefold()] = f"{given}.png"
    return list(found.values())
