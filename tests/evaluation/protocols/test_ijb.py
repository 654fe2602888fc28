"""IJB 1:1 on a made set, against loops in float64 over the very files."""

import json
import shutil

import numpy as np
import pytest
from helpers.people_faces import EMBEDDER, embedding
from helpers.result_figures import check_intervals
from PIL import Image

from arcface_cakd.data import DataError
from arcface_cakd.data.face_files import align
from arcface_cakd.evaluation import Embedder, EvaluationError
from arcface_cakd.evaluation.protocols.ijb import (
    FARS,
    TemplatePairs,
    tar_draws,
    verify_templates,
)


def units_slowly(made):
    """Template -> unit embedding, image by image."""
    meta = made.folder / "meta"
    lines = (meta / "ijbc_name_5pts_score.txt").read_text().splitlines()
    features = {}
    for line in lines:
        name, *numbers = line.split()
        values = [float(x) for x in numbers]
        points = np.array(values[:10]).reshape(5, 2)
        picture = np.asarray(Image.open(made.folder / "loose_crop" / name))
        features[name] = embedding(align(picture, points)) * values[10]
    units = {}
    for template in made.people:
        medias = {}
        for name, of, media, _ in made.images:
            if of == template:
                medias.setdefault(media, []).append(features[name])
        total = sum(np.mean(frames, axis=0) for frames in medias.values())
        units[template] = total / np.linalg.norm(total)
    return units


@pytest.fixture(scope="module")
def slow(templates):
    return units_slowly(templates)


@pytest.fixture(scope="module")
def result(templates):
    (item,) = TemplatePairs([templates.folder]).judge(EMBEDDER, draws=50).items()
    assert item[0] == "ijbc"
    return item[1]


def test_the_figures_are_those_of_loops_over_the_files(templates, slow, result):
    scores = np.array([slow[a] @ slow[b] for a, b, _ in templates.pairs])
    same = np.array([label == 1 for _, _, label in templates.pairs])
    assert (result.images, result.templates, result.people) == (len(templates.images), 48, 12)
    assert (result.positives, result.negatives) == (36, 144)
    assert -np.sort(result.roc.thresholds[1:]) == pytest.approx(
        -np.sort(-np.unique(scores)), abs=1e-6
    )
    for far in FARS:
        if far * 144 < 10:
            assert result.tar[far] is None
            continue
        best = max(
            np.mean(scores[same] >= threshold)
            for threshold in np.append(scores, np.inf)
            if np.mean(scores[~same] >= threshold) <= far
        )
        assert result.tar[far] == pytest.approx(best, abs=1e-9)
    wins = [(p > n) + (p == n) / 2 for p in scores[same] for n in scores[~same]]
    assert result.auc == pytest.approx(np.mean(wins), abs=1e-9)
    assert 0.5 < result.auc < 1  # else it would tell nothing


def test_people_are_those_of_the_tables_or_of_the_pairs(templates, result, tmp_path):
    assert result.people_from == "the 1:N tables"
    folder = tmp_path / "without"
    shutil.copytree(templates.folder, folder)
    for table in (folder / "meta").glob("*.csv"):
        table.unlink()
    without = TemplatePairs([folder]).judge(EMBEDDER, draws=0)["ijbc"]
    assert (without.people_from, without.people) == ("pairs of one person", 12)
    assert without.tar == result.tar and set(without.intervals.values()) == {None}


@pytest.mark.parametrize(("seed", "tail"), [(0, True), (1, False)])
def test_draws_count_pairs_by_their_people(seed, tail, monkeypatch):
    """Against pairs repeated as often as a draw has them, over every threshold."""
    random = np.random.default_rng(seed)
    people = random.integers(0, 15, 60)
    pairs = random.integers(0, 60, (4000, 2))
    issame = people[pairs[:, 0]] == people[pairs[:, 1]]
    scores = np.round(random.normal(np.where(issame, 0.3, 0.0), 0.2), 2)
    monkeypatch.setattr("arcface_cakd.evaluation.protocols.ijb._TAIL", 3 if tail else 99)
    found = tar_draws(scores, pairs, issame, people, [0.05], draws=6)[0.05]
    rng = np.random.default_rng(0)
    names = np.unique(people)
    for value in found:
        count = dict(zip(names, rng.multinomial(15, np.full(15, 1 / 15)), strict=True))
        one, other = (np.array([count[p] for p in people[pairs[:, k]]]) for k in (0, 1))
        weight = np.where(issame, one, one * other)
        genuine = np.repeat(scores[issame], weight[issame])
        impostor = np.repeat(scores[~issame], weight[~issame])
        best = max(
            np.mean(genuine >= threshold)
            for threshold in np.append(np.unique(scores), np.inf)
            if np.sum(impostor >= threshold) <= 0.05 * len(impostor) + 1e-9
        )
        assert value == pytest.approx(best, abs=1e-9)


def test_many_pairs_have_intervals_down_to_where_a_far_is_given():
    random = np.random.default_rng(3)
    people = np.repeat(np.arange(40), 3)
    units = random.normal(size=(40, 16))[people] + 1.2 * random.normal(size=(120, 16))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    pairs = np.array([(a, b) for a in range(120) for b in range(a)] * 2)
    issame = people[pairs[:, 0]] == people[pairs[:, 1]]
    result = verify_templates(units, pairs, issame, people, draws=100)
    assert result.tar[1e-4] is None and result.intervals[1e-4] is None
    found = result.intervals[1e-3]
    assert found.drawn == "people" and found.low <= result.tar[1e-3] <= found.high


def test_the_table_and_json_hold_the_figures(templates, result):
    protocol = TemplatePairs([templates.folder])
    lines = protocol.table({"ijbc": result}).splitlines()
    assert lines[1].split()[:3] == ["ijbc", "48", "180"]
    assert lines[1].split()[-1] == f"{100 * result.tar[0.1]:.2f}"
    assert lines[3].split()[-1] == f"{100 * result.nearest_tar[0.1]:.2f}"
    assert "no TAR below FAR=0.069, which is 10 false accepts among 144 negative pairs" in lines
    figures = json.loads(json.dumps(result.to_dict()))
    assert figures["tar"]["0.1"] == result.tar[0.1] and figures["tar"]["1e-06"] is None
    assert "roc" not in figures
    check_intervals(figures)


def edited(folder, table, edit):
    path = folder / "meta" / f"ijbc_{table}"
    path.write_text("\n".join(edit(path.read_text().splitlines())) + "\n")


def scored(folder, number, count):
    """Give the first images another score."""

    def edit(lines):
        return [f"{line.rsplit(' ', 1)[0]} {number}" for line in lines[:count]] + lines[count:]

    edited(folder, "name_5pts_score.txt", edit)


def test_an_image_of_score_0_is_left_out_and_no_mistake(templates, tmp_path):
    folder = tmp_path / "zero"
    shutil.copytree(templates.folder, folder)
    several = [t for _, t, _, _ in templates.images]
    place = next(k for k, t in enumerate(several) if several.count(t) > 1)
    lines = (folder / "meta" / "ijbc_name_5pts_score.txt").read_text().splitlines()
    lines[place] = lines[place].rsplit(" ", 1)[0] + " 0"
    edited(folder, "name_5pts_score.txt", lambda _: lines)
    assert TemplatePairs([folder]).images.scores[place] == 0


def test_scores_that_no_product_holds_are_refused(templates, tmp_path):
    folder = tmp_path / "huge"
    shutil.copytree(templates.folder, folder)
    scored(folder, "1e308", 4)
    with np.errstate(all="ignore"), pytest.raises(EvaluationError, match="scores of the detector"):
        TemplatePairs([folder]).judge(EMBEDDER, draws=0)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "loose_crop" / "7.png").unlink(), r"7\.png: no such image"),
        (
            lambda f: edited(f, "face_tid_mid.txt", lambda x: [x[1], x[0], *x[2:]]),
            "line 1 of .* name different images",
        ),
        (
            lambda f: edited(f, "face_tid_mid.txt", lambda x: x[:-1]),
            "name different images",
        ),
        (
            lambda f: edited(f, "name_5pts_score.txt", lambda x: [*x[:3], x[3] + " 1", *x[4:]]),
            "line 4 has 13 words, and must have 12",
        ),
        (
            lambda f: edited(f, "face_tid_mid.txt", lambda x: [*x[:2], "3.png 5 b", *x[3:]]),
            "line 3 of its rows is no numbers",
        ),
        (
            lambda f: edited(f, "template_pair_label.txt", lambda x: [*x, "3 99999 0"]),
            "template 99999 has no image",
        ),
        (
            lambda f: edited(f, "template_pair_label.txt", lambda x: [*x, "3 10 2"]),
            "line 181 has the label 2",
        ),
        (
            lambda f: edited(f, "template_pair_label.txt", lambda x: [*x, "3 10"]),
            "3 integers in each line",
        ),
        (
            lambda f: edited(f, "template_pair_label.txt", lambda x: [*x, "3 a 0"]),
            "3 integers in each line",
        ),
        (
            lambda f: edited(
                f, "template_pair_label.txt", lambda x: [r for r in x if r[-1] == "0"]
            ),
            "all 144 pairs have one label",
        ),
        (
            lambda f: edited(f, "template_pair_label.txt", lambda x: [*x, "3 3 1", "10 10 0"]),
            "line 181 compares template 3 with itself, 2 such lines in all",
        ),
        *(
            (
                lambda f, n=number: scored(f, n, 4),
                f"line 1 has the score {number}, .*; 4 such lines",
            )
            for number in ("nan", "inf", "-0.5")
        ),
        (
            lambda f: scored(f, "0", 4),
            r"name_5pts_score\.txt: all images of template \d+.* the score 0",
        ),
        (lambda f: (f / "meta" / "ijbc_template_pair_label.txt").unlink(), "cannot be read"),
        (lambda f: (f / "meta" / "ijbc_face_tid_mid.txt").unlink(), "no set of templates"),
    ],
)
def test_what_is_wrong_with_a_set_is_one_line(templates, tmp_path, spoil, said):
    folder = tmp_path / "spoilt"
    shutil.copytree(templates.folder, folder)
    spoil(folder)
    with pytest.raises((DataError, EvaluationError), match=said) as raised:
        TemplatePairs([folder])
    assert "\n" not in str(raised.value)


def test_the_folder_above_and_several_folders_are_told(templates, tmp_path):
    with pytest.raises(DataError, match=r"no set of templates.*; give "):
        TemplatePairs([templates.folder.parent])
    with pytest.raises(EvaluationError, match="give one folder"):
        TemplatePairs([templates.folder, tmp_path])


def test_a_model_that_has_diverged_or_tells_nothing_is_named(templates):
    protocol = TemplatePairs([templates.folder])
    for model, said in (
        (lambda images: images.mean(dim=(2, 3)) * float("nan"), "are not finite"),
        (lambda images: 1 + 0 * images.mean(dim=(2, 3)), "are the same"),
    ):
        with pytest.raises(EvaluationError, match=f"{templates.folder}.*{said}"):
            protocol.judge(Embedder(model))
