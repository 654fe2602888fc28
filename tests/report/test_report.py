"""Two runs of seconds on one page, and the page in a browser."""

import csv
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.engine_runs import make_faces, small_cakd, small_config
from helpers.logged_runs import STEP, logged

from arcface_cakd.backbones import get_model, load_weights
from arcface_cakd.cli import main
from arcface_cakd.data import as_batch, read_bin
from arcface_cakd.engine import read_run_record, recorded_config, train
from arcface_cakd.evaluation import roc_curve, verification_metrics
from arcface_cakd.evaluation.protocols.rfw import group_gap
from arcface_cakd.evaluation.protocols.tinyface import rank_rates
from arcface_cakd.report import ReportError, differing_settings, open_runs
from arcface_cakd.report.charts import pair_counts

# A teacher of milliseconds; it takes no prompts.
CAKD = small_cakd(teacher={"network": "test_tiny", "weights": "random"}, prompts=None)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of a plain run and of one of the whole method; the second has a hostile name."""
    root = tmp_path_factory.mktemp("report")
    faces = make_faces(root / "faces", identities=3, images=4, pairs=20)
    shared = {"val_targets": ("lfw",), "verbose": 3, "num_epoch": 1, "frequent": 1}
    plain, whole = root / "plain", root / "<b>whole<b>&"
    train(small_config(faces, plain, **shared))
    train(small_config(faces, whole, **shared, lr=0.02, cakd=CAKD, save_all_states=True))
    return faces, plain, whole


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    faces, *folders = runs
    path = tmp_path_factory.mktemp("page") / "compared.html"
    words = ["report", *map(str, folders), "--data", str(faces), "--output", str(path)]
    assert main(words) == 0
    return path


def test_its_figures_are_the_protocols(runs, page):
    faces, plain, whole = runs
    rows = list(csv.DictReader(page.with_suffix(".csv").open()))
    assert {row["run"] for row in rows} == {"plain", "<b>whole<b>&"}
    pairs = read_bin(faces / "lfw.bin")
    for folder in (plain, whole):
        model = get_model("test_tiny", num_features=16)
        load_weights(model, folder / "model.pt")
        with torch.no_grad():
            batch = as_batch(pairs.images)
            embedded = model.eval()(batch) + model(batch.flip(3))
        expected = verification_metrics(embedded.numpy(), pairs.issame)
        found = {row["name"]: row for row in rows if row["run"] == folder.name}
        for name in ("accuracy", "auc", "eer", "threshold"):
            assert float(found[name]["value"]) == pytest.approx(getattr(expected, name), abs=1e-5)
        low, high = (float(found["accuracy"][end]) for end in ("low", "high"))
        assert low <= expected.accuracy <= high
        assert found["accuracy"]["drawn"] == "pairs"
    content = json.loads(page.with_suffix(".json").read_text())
    assert len(content["figures"]) == len(rows)
    lines = (plain / "metrics.jsonl").read_text().splitlines()
    assert content["runs"]["plain"]["history"] == [json.loads(line) for line in lines]


def test_the_page_stands_alone_and_takes_no_name_for_markup(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<script|<link[^>]+href=\"(?!data:)|src=\"(?!data:)|@import|url\(h", text)
    assert "<b>whole</b>" not in text
    assert "&lt;b&gt;whole&lt;b&gt;&amp;" in text
    ids = re.findall(r' id="([^"]+)"', text)
    referred = set(re.findall(r"#([\w-]+)", text))
    assert set(ids) <= referred
    assert "Total variation between the lookups" in text
    assert text.count('src="data:image/png;base64,') == 1  # where the local centres look
    pictures = {path.name for path in page.parent.glob("*.png")}
    assert {
        "compared_loss.png",
        "compared_ROC_lfw.png",
        "compared_scores_lfw_plain.png",
    } <= pictures
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in page.parent.glob("*.png"))


def test_what_a_run_was_told_is_kept_and_compared(runs, tmp_path):
    _, plain, whole = runs
    for folder in (plain, whole):
        config = recorded_config(read_run_record(folder), folder)
        told = small_config(
            runs[0], folder, val_targets=("lfw",), verbose=3, num_epoch=1, frequent=1
        )
        if folder == whole:
            told = dataclasses.replace(told, lr=0.02, cakd=CAKD, save_all_states=True)
        assert config == told
    differing = differing_settings(open_runs([plain, whole]))
    assert differing["lr"] == ["0.05", "0.02"]
    assert differing["save_all_states"] == ["False", "True"]
    settings = sum(name.startswith("cakd.") for name in open_runs([whole])[0].settings)
    assert differing["cakd"] == ["None", f"on, {settings} settings"]
    assert settings > 40
    assert differing.keys() == {"lr", "save_all_states", "cakd"}
    other = tmp_path / "other"
    shutil.copytree(whole, other)
    record = json.loads((other / "run.json").read_text())
    record["config"]["cakd"]["urfm"]["num_centers"] = 9
    (other / "run.json").write_text(json.dumps(record))
    assert differing_settings(open_runs([whole, other])) == {"cakd.urfm.num_centers": ["4", "9"]}
    differing = differing_settings(open_runs([plain, whole, other]))
    assert differing["cakd.urfm.num_centers"] == [None, "4", "9"]
    assert differing.keys() == {"lr", "save_all_states", "cakd", "cakd.urfm.num_centers"}


@pytest.mark.parametrize("seed", range(3))
def test_histograms_have_every_pair(seed):
    random = np.random.default_rng(seed)
    distances = random.integers(0, 40, 200) / 10  # with ties
    issame = random.random(200) < 0.4
    cosines, one, two = pair_counts(roc_curve(distances, issame))
    for counts, kind in ((one, issame), (two, ~issame)):
        expected = {value: np.sum(1 - distances[kind] / 2 == value) for value in cosines}
        assert dict(zip(cosines, counts, strict=True)) == expected
    assert one.sum() + two.sum() == 200


def test_what_evaluate_wrote_into_a_run_is_shown(runs, tmp_path):
    _, plain, _ = runs
    folder = tmp_path / "run"
    shutil.copytree(plain, folder)
    result = {"rank-1": 0.5, "tar": {"1e-06": 0.25}, "rank-1_interval": {"low": 0.4, "high": 0.7}}
    evaluation = {"protocol": "ijbc", "sets": {"IJB-C": result}}
    (folder / "ijbc.json").write_text(json.dumps(evaluation))
    search = rank_rates(np.array([1, 2, 9, 1]), np.array([0, 0, 1, 2]), 50, draws=20)
    tiny = {"protocol": "tinyface", "sets": {"tinyface": search.to_dict()}}
    (folder / "tiny.json").write_text(json.dumps(tiny))
    gap = group_gap([0.9, 0.75], [np.array([0.8, 0.9]), np.array([0.7, 0.8])])
    rfw = {"protocol": "rfw", "sets": {"all groups": gap.to_dict()}}
    (folder / "rfw.json").write_text(json.dumps(rfw))
    (folder / "notes.json").write_text("{")
    line = {"step": 4, "loss": 1.0, "seconds": 0, "diagnostics": {"prompted_cosine": 0.875}}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert main(["report", str(folder), "--output", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "IJB-C (ijbc)" in text
    assert "50.00 [40.00, 70.00]" in text
    assert "25.00" in text
    table = text[text.index("tinyface (tinyface)") :]
    table = table[: table.index("</table>")]
    cells = re.findall(r"<t[hd] class=\"\w+\">([^<]*)<", table)
    ends = [search.intervals[k] for k in (1, 5, 20)]
    rates = zip((50, 75, 100), ends, strict=True)
    heading = [f"rank {k}\N{NO-BREAK SPACE}%" for k in (1, 5, 20)]
    assert cells[:7] == ["run", *heading, "probes", "people", "gallery"]
    found = [f"{rate:.2f} [{100 * one.low:.2f}, {100 * one.high:.2f}]" for rate, one in rates]
    assert cells[7:] == ["run", *found, "4", "3", "50"]
    drawn = gap.intervals["mean"]
    assert f"82.50 [{100 * drawn.low:.2f}, {100 * drawn.high:.2f}]" in text
    assert "intervals." not in text  # as the name of a figure
    assert "<h2>What prompts do</h2>" in text
    assert "0.875" in text


def test_a_run_that_cannot_be_shown_is_one_line(runs, tmp_path, capsys):
    _, plain, _ = runs
    (tmp_path / "empty").mkdir()
    for words, expected in (
        ([str(tmp_path / "none")], "no such folder"),
        ([str(tmp_path / "empty")], "holds no run"),
        ([str(plain), str(plain)], "named twice"),
        ([str(plain), "--output", "page.pdf"], "must end in .html"),
        ([str(plain), "--targets", "lfw"], "say --data"),
        ([str(plain), "--device", "cpu"], "--device is where runs are judged on --data"),
        ([str(plain), "--data", str(tmp_path / "empty")], "no .bin set"),
    ):
        words = ["report", *words]
        if "--output" not in words:
            words += ["--output", str(tmp_path / "page.html")]
        assert main(words) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("arcface-cakd report: error: ")
        assert expected in error
    assert not list(tmp_path.glob("page*"))


def test_a_run_of_an_earlier_version_is_shown_without_its_settings(runs, tmp_path, capsys):
    faces, plain, _ = runs
    folder = tmp_path / "old"
    shutil.copytree(plain, folder)
    (folder / "run.json").unlink()
    first = (folder / "metrics.jsonl").read_text().splitlines()[0]
    (folder / "metrics.jsonl").write_text(first + "\n")
    assert main(["report", str(folder), "--output", str(tmp_path / "page.html")]) == 0
    assert "old has no run.json" in (tmp_path / "page.html").read_text()
    words = ["report", str(folder), "--data", str(faces), "--output", str(tmp_path / "page.html")]
    assert main(words) == 1
    assert "which network model.pt is of" in capsys.readouterr().err


def test_runs_of_one_name_are_told_apart(runs, tmp_path):
    _, plain, _ = runs
    for parent in ("one", "two"):
        shutil.copytree(plain, tmp_path / parent / "run")
    found = open_runs([tmp_path / "one" / "run", tmp_path / "two" / "run"])
    assert [run.name for run in found] == ["one/run", "two/run"]
    with pytest.raises(ReportError, match="named twice"):
        open_runs([tmp_path / "one" / "run", tmp_path / "one" / ".." / "one" / "run"])


@pytest.mark.parametrize("name", ["model.json", "run.csv", "run.html", "lfw_loss.png"])
def test_what_is_no_report_is_not_written_over(tmp_path, capsys, name):
    folder = logged(tmp_path / "run", STEP)
    other = folder / name
    other.write_text('{"format": 1}')
    page = folder / f"{other.stem.split('_')[0]}.html"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["report", str(folder), "--output", str(page)]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    why = f"does not say that it is of {page.name}" if other.suffix == ".png" else "is no report's"
    assert f"{other}: is there, {why}, and would be replaced" in line
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_former_report_is_replaced(tmp_path):
    folder = logged(tmp_path / "run", STEP)
    page = tmp_path / "page.html"
    page.touch()  # as mktemp leaves it
    for _ in range(2):
        assert main(["report", str(folder), "--output", str(page)]) == 0
        written = {path.name: path.stat().st_size for path in tmp_path.glob("page*")}
        names = ("page.html", "page.csv", "page.json", "page_loss.png", "page_lr.png")
        assert written.keys() == set(names) and all(written.values())


def test_what_is_odd_in_a_run_s_folder_is_no_traceback(tmp_path):
    """Lines of the log and figures that nobody of ours wrote, and a name that is no UTF-8."""
    bare = {"step": 2, "loss": 1.0, "seconds": 3.0}  # of no rate
    folder = logged(tmp_path / "run", STEP, bare, b"\xff", b"5")
    named = logged(tmp_path / os.fsdecode(b"run\xff"), STEP)
    result = {"auc": 0.5, "intervals": [], "eer": 0.25, "eer_interval": {"low": "x", "high": 1}}
    (folder / "a.json").write_text(json.dumps({"sets": {"a": result}}))
    (folder / "b.json").write_text(json.dumps({"sets": {"b": {"auc": 1, "intervals": {"auc": 1}}}}))
    runs = [str(folder), str(named)]
    # In a process of its own: pytest's workers pass on no log with such a name.
    command = [sys.executable, "-m", "arcface_cakd", "report", *runs]
    found = subprocess.run([*command, "--output", tmp_path / "page.html"], capture_output=True)
    assert found.returncode == 0, found.stderr
    assert "run\\udcff" in (tmp_path / "page.html").read_text(encoding="utf-8")
    rows = list(csv.DictReader((tmp_path / "page.csv").open(encoding="utf-8")))
    assert {(row["set"], row["name"], float(row["value"]), row["low"]) for row in rows} == {
        *(("a", "auc", 0.5, ""), ("a", "eer", 0.25, ""), ("b", "auc", 1.0, "")),
    }


def test_charts_of_runs_whose_names_are_alike_have_files_of_their_own(runs, tmp_path, capsys):
    faces, plain, _ = runs
    names = ["a b", "a_b", "A_B", "\u00e4", "\u00f6"]
    for name in names:
        shutil.copytree(plain, tmp_path / name)
    words = [*(str(tmp_path / name) for name in names), "--data", str(faces / "lfw.bin")]
    page = tmp_path / "out" / "page.html"
    assert main(["report", *words, "--output", str(page)]) == 0
    written = list(page.parent.iterdir())
    assert f"beside it {len(written) - 1} files" in capsys.readouterr().out
    scores = [path for path in written if path.name.startswith("page_scores_lfw_")]
    assert len({path.name.casefold() for path in scores}) == len(names)
    assert page.with_name("page_scores_lfw_\u00e4.png") in scores


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1280, 375])
def test_a_browser_shows_it_at_every_width(page, tmp_path, width):
    """Without a word on the console, and without scrolling sideways."""
    copy = tmp_path / "page.html"
    probe = (
        "<script>document.title = [document.documentElement.scrollWidth, window.innerWidth, "
        "document.querySelectorAll('svg').length].join(' ')</script></body>"
    )
    text = page.read_text(encoding="utf-8")
    # Chromium's own windows are never as narrow as a phone: a frame of that width is.
    copy.write_text(text.replace("</body>", probe), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe src="page.html" width="{width}" height="800" style="border:0" '
        'onload="document.body.append(frames[0].document.title)"></iframe>'
    )
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    places = ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [CHROMIUM, *quiet, *places, "--window-size=1400,1000", "--dump-dom", str(frame)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    measured = re.search(r"</iframe>\s*(\d+) (\d+) (\d+)", done.stdout)
    assert measured, done.stdout[-300:]
    content, window, charts = map(int, measured.groups())
    assert window == width
    assert content <= window
    assert charts == text.count("<svg") > 10
