"""The files of a report: their names, whom they replace, and names that matplotlib reads."""

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.logged_runs import STEP, logged, verification

from arcface_cakd.cli import main
from arcface_cakd.report import ReportError, open_runs, write_report
from arcface_cakd.report.charts import roc_chart, score_chart, training_charts


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_long_names_are_cut_and_stay_apart(tmp_path):
    """120 letters of a set and 150 of a run are more than a file's name holds."""
    run = logged(tmp_path / ("r" * 150), STEP)
    (opened,) = open_runs([run])
    sets = {"\u00e4" * 119 + letter: verification() for letter in "ab"}
    page = tmp_path / "out" / "page.html"
    written = write_report([replace(opened, judged=sets)], page)
    names = [path.name for path in written]
    assert len(set(names)) == len(names) == 3 + 2 + 4  # loss and lr; ROC and scores of each set
    assert {path.name for path in page.parent.iterdir()} == set(names)


def test_a_report_that_cannot_be_written_leaves_the_former_one(tmp_path, capsys):
    run = logged(tmp_path / "run", STEP)
    folder = tmp_path / "out"
    page = folder / ("p" * 251 + ".htm")  # of .json the name is too long
    assert main(["report", str(run), "--output", str(page)]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.endswith(f"{page.with_suffix('.json')}: File name too long")
    assert not list(folder.iterdir())


def test_a_stranger_s_picture_is_not_replaced(tmp_path):
    """Not even where a former report is; and not one that was changed since."""
    runs = open_runs([logged(tmp_path / "run", STEP)])
    page = tmp_path / "out" / "page.html"
    write_report(runs, page)
    page.with_name("page_ROC_lfw.png").write_bytes(b"\x89PNG mine")
    before = contents(page.parent)
    judged = [replace(runs[0], judged={"lfw": verification()})]
    with pytest.raises(
        ReportError, match=r"page_ROC_lfw\.png: is there, does not say that it is of page\.html"
    ):
        write_report(judged, page)
    assert contents(page.parent) == before
    page.with_name("page_ROC_lfw.png").unlink()
    write_report(judged, page)
    picture = page.with_name("page_loss.png")  # as another page's would be
    picture.write_bytes(picture.read_bytes().replace(b"'page.html'", b"'more_page.html'"))
    with pytest.raises(ReportError, match=r"page_loss\.png: is there, does not say that it is of"):
        write_report(judged, page)


def test_pictures_of_a_former_report_go_with_it(tmp_path):
    runs = open_runs([logged(tmp_path / "run", STEP)])
    page = tmp_path / "out" / "page.html"
    write_report([replace(runs[0], judged={"lfw": verification()})], page)
    page.with_name("page_mine.png").write_bytes(b"mine")
    page.with_name("page_ROC_lfw.png").write_bytes(b"drawn over")
    (tmp_path / "above.png").write_bytes(page.with_name("page_loss.png").read_bytes())
    content = json.loads(page.with_suffix(".json").read_text())
    content["pictures"] += ["../above.png", "page_mine.png", "none.png"]
    page.with_suffix(".json").write_text(json.dumps(content, indent=1))
    write_report(runs, page)
    kept = {"page_mine.png", "page_ROC_lfw.png"}
    of_report = {"page.html", "page.csv", "page.json", "page_loss.png", "page_lr.png"}
    assert {path.name for path in page.parent.iterdir()} == kept | of_report
    assert (tmp_path / "above.png").exists()
    pictures = json.loads(page.with_suffix(".json").read_text())["pictures"]
    assert set(pictures) == {"page_loss.png", "page_lr.png"}


def test_a_page_in_what_is_no_folder_is_refused_before_any_work(tmp_path, capsys):
    run = logged(tmp_path / "run", STEP)
    for above in (run / "metrics.jsonl", tmp_path / "dangling"):
        (tmp_path / "dangling").unlink(missing_ok=True)
        (tmp_path / "dangling").symlink_to("nowhere")
        for page in (above / "page.html", above / "more" / "page.html"):
            # The runs are looked at later.
            assert main(["report", str(tmp_path / "none"), "--output", str(page)]) == 1
            assert f"{page}: {above} is no folder: name a page in one" in capsys.readouterr().err


NAMES = [r"$\foo$", "_under", "$", r"a\$b$c$", os.fsdecode(b"no\xffutf8")]


@pytest.mark.parametrize("name", NAMES, ids=["maths", "hidden", "dollar", "escaped", "bytes"])
def test_names_are_drawn_as_they_are(tmp_path, name):
    escaped = name.replace("\udcff", "\\udcff")
    runs = open_runs([logged(tmp_path / name, STEP), logged(tmp_path / "other", STEP)])
    result = verification()
    charts = [
        training_charts(runs)["loss"],
        roc_chart(name, {name: result, "other": result}),
        score_chart(name, name, result),
    ]
    for chart, legend in zip(charts, (True, True, False), strict=True):
        axes = chart.axes[0]
        texts = [axes.title, *axes.get_legend().get_texts()]
        drawn = [text._preprocess_math(text.get_text()) for text in texts]  # (text, is it maths)
        assert not any(is_math for _, is_math in drawn)
        if legend:
            assert [text.strip() for text, _ in drawn[1:]] == [escaped, "other"]
        chart.savefig(io.BytesIO(), dpi=10)
