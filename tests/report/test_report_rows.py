"""What stands on the page of scores and settings, and what is said beside them."""

import csv
import hashlib
import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.logged_runs import STEP, evaluated, logged, recorded, verification

from arcface_cakd.cli import main
from arcface_cakd.report import open_runs, write_report


def shown(tmp_path: Path, *folders: Path) -> str:
    """The page of these runs, as text."""
    page = tmp_path / "page.html"
    assert main(["report", *map(str, folders), "--output", str(page)]) == 0
    return html.unescape(page.read_text(encoding="utf-8"))


def rows_of(text: str, heading: str) -> list[list[str]]:
    """The cells of each row of the table under a heading."""
    table = text[text.index(f"<h3>{heading}</h3>") :]
    table = table[: table.index("</table>")]
    return [re.findall(r"<t[hd] class=\"\w+\">([^<]*)<", row) for row in table.split("<tr>")[1:]]


def test_each_evaluation_of_a_set_is_a_row(tmp_path):
    """Of two files with one figure one had won, and nobody knew which."""
    run = logged(tmp_path / "plain", STEP)
    evaluated(run, "lfw", {"accuracy": 0.75}, model="plain/model.pt")
    evaluated(run, "zz", {"accuracy": 0.5}, model="/other/zz_untrained.onnx")
    alone = logged(tmp_path / "alone", STEP)
    evaluated(alone, "lfw", {"accuracy": 0.25}, model="alone/model.pt")
    exported = logged(tmp_path / "exported", STEP)
    evaluated(exported, "lfw", {"accuracy": 0.125}, model="int8.onnx")
    rows = rows_of(shown(tmp_path, run, alone, exported), "lfw (bin)")[1:]
    assert rows == [
        ["plain: lfw (model.pt)", "75.00"],
        ["plain: zz (zz_untrained.onnx)", "50.00"],
        ["alone", "25.00"],
        ["exported: lfw (int8.onnx)", "12.50"],
    ]
    written = list(csv.DictReader((tmp_path / "page.csv").open()))
    assert [(row["file"], row["model"]) for row in written[:2]] == [
        ("lfw", "model.pt"),
        ("zz", "zz_untrained.onnx"),
    ]


def test_what_was_judged_for_the_page_stands_beside_what_a_file_says(tmp_path):
    run = logged(tmp_path / "plain", STEP)
    result = verification()
    said = result.to_dict() | {"data": {"sha256": "b" * 64}}
    evaluated(run, "lfw", said, model="model.pt")
    (opened,) = open_runs([run])
    opened = replace(opened, judged={"lfw": result}, digests={"lfw": "a" * 64})
    write_report([opened], tmp_path / "page.html")
    text = html.unescape((tmp_path / "page.html").read_text())
    names = [row[0] for row in rows_of(text, "lfw (bin)")[1:]]
    assert names == ["plain: judged for this page", "plain: lfw (model.pt)"]
    assert "sha256 aaaaaaaaaaaa (plain: judged for this page), bbbbbbbbbbbb (plain: lfw (" in text


@pytest.mark.parametrize(
    ("said", "warned"),
    [
        ({"model": "run/model.pt", "model_sha256": hashlib.sha256(b"now").hexdigest()}, False),
        ({"model": "run/model.pt", "model_sha256": hashlib.sha256(b"then").hexdigest()}, True),
        ({"model": "run/model.pt", "model_sha256": None}, False),
        ({"model": "run/model.pt"}, False),
        ({"model": "run/student.onnx", "model_sha256": "0" * 64}, False),  # the row names it
        ({"model": "teachers/teacher.pt", "model_sha256": "0" * 64}, False),
    ],
)
def test_figures_of_a_former_model_are_said_to_be(tmp_path, said, warned):
    run = logged(tmp_path / "run", STEP)
    (run / "model.pt").write_bytes(b"now")
    evaluated(run, "lfw", {"accuracy": 0.75}, **said)
    sentence = "run: the figures of lfw.json are not of the model.pt that is there"
    assert (sentence in shown(tmp_path, run)) == warned


def test_rows_of_other_data_are_said_to_be(tmp_path):
    one, two = logged(tmp_path / "one", STEP), logged(tmp_path / "two", STEP)
    for run, pairs in ((one, 240), (two, 60)):
        evaluated(run, "lfw", {"accuracy": 0.75, "pairs": pairs, "positives": pairs // 2})
        evaluated(run, "same", {"accuracy": 0.75, "pairs": 60}, "same")
        digest = {"data": {"sha256": str(pairs) * 20}}
        evaluated(run, "dev", {"accuracy": 0.75, "pairs": 60, **digest}, "dev")
    text = shown(tmp_path, one, two)
    assert rows_of(text, "lfw (bin)") == [
        ["run", "accuracy\N{NO-BREAK SPACE}%", "pairs"],
        ["one", "75.00", "240"],
        ["two", "75.00", "60"],
    ]
    differ = "is not of the same data in every row, whose figures do not compare:"
    assert f"lfw (bin) {differ} pairs 240 (one), 60 (two)." in text
    assert f"dev (bin) {differ} sha256 240240240240 (one), 606060606060 (two)." in text
    assert text.count(differ) == 2


def test_other_images_are_a_difference(tmp_path):
    one = recorded(tmp_path / "one", images=100, classes=5)
    two = recorded(tmp_path / "two", images=90, classes=5)
    text = shown(tmp_path, one, two)
    row = r"<tr><td class=\"text\">images of the training set</td>.*?>100<.*?>90<"
    assert re.search(row, text)
    assert "classes of the training set" not in text
    assert "nor the number of images or classes" not in text
    three = recorded(tmp_path / "three", images=90, classes=5)
    text = shown(tmp_path, two, three)
    assert "No setting that is recorded differs, nor the number of images or classes." in text
    four = logged(tmp_path / "four", STEP)
    assert re.search(row.replace("90", "not known"), shown(tmp_path, one, four))


@pytest.mark.parametrize(
    "content",
    ["{", "[" * 10_000, '{"format": 2}', '{"format": 1, "config": 5, "environment": {}}'],
    ids=["cut", "deep", "later", "odd"],
)
def test_a_damaged_record_is_not_said_to_be_missing(tmp_path, caplog, content):
    run = logged(tmp_path / "run", STEP)
    (run / "run.json").write_text(content)
    said = "run has a run.json that is damaged, or of a later version of arcface_cakd"
    assert said in shown(tmp_path, run)
    assert said in caplog.text


def test_figures_of_one_s_own_protocol_are_shown_as_they_are(tmp_path):
    """By their names they had been taken for shares: 1700.00 %."""
    run = logged(tmp_path / "run", STEP)
    own = {"mean_distance": 1.2, "mean_rank": 17, "std_ms": 3.0, "pairs_left": 2, "accuracy": 97.5}
    evaluated(run, "own", {**own, "mean": 0.5, "people": 123456}, "s", protocol="mine")
    head, row = rows_of(shown(tmp_path, run), "s (mine)")
    assert dict(zip(head, row, strict=True)) == {
        "run": "run",
        "mean distance": "1.2",
        "mean rank": "17",
        "std ms": "3",
        "pairs left": "2",
        "accuracy": "97.5",
        "mean": "0.5",
        "people": "123,456",
    }


def strict(path: Path):
    """What a JSON file holds, for readers that know no NaN."""

    def refuse(word):
        raise AssertionError(word)

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), None])
def test_what_is_no_number_is_null_and_a_line_says_so(tmp_path, odd):
    line = {"step": 2, "loss": odd, "lr": odd, "seconds": odd, "images_per_second": odd}
    line["diagnostics"] = {"feature_ratio": odd, "prompted_cosine": odd}
    run = logged(tmp_path / "run", STEP, line, {"step": 3, "validation": {"lfw": odd}})
    result = {"accuracy": odd, "auc": 0.5, "auc_interval": {"low": odd, "high": odd}}
    evaluated(run, "lfw", result)
    text = shown(tmp_path, run)
    content = strict(tmp_path / "page.json")
    if odd is None:  # as these files themselves are written: read as if it were not there
        assert [figure["name"] for figure in content["figures"]] == ["auc"]
    else:
        assert content["runs"]["run"]["history"][1]["loss"] is None
        assert content["figures"][0]["value"] is None
    assert ("What is no finite number is null in page.json." in text) == (odd is not None)


def test_a_run_that_was_stopped_or_went_on_otherwise_is_said_to_be(tmp_path):
    former = {"environment": {"device": "CPU"}, "config": {"lr": 0.1}, "images": 36}
    now = {"environment": {"device": "GPU"}, "config": {"lr": 0.2}, "images": 36, "since": 1}
    run = recorded(tmp_path / "run", steps=18, parts=[former], **now)
    text = shown(tmp_path, run)
    assert "The log of run ends at step 1 of 18: it was stopped, or goes on still." in text
    changes = "device 'GPU' (was 'CPU'), lr 0.2 (was 0.1)"
    assert f"run went on otherwise after step 1: {changes}." in text
    whole = recorded(tmp_path / "whole", steps=1)
    text = shown(tmp_path, whole)
    assert "it was stopped" not in text and "went on otherwise" not in text
