"""RFW: its layout, by group, and the published figures of how far apart groups are."""

import json

import numpy as np
import pytest
from helpers.people_faces import EMBEDDER, crop, embedding, photograph, save
from helpers.result_figures import check_intervals
from helpers.unreadable import make_unreadable

from arcface_cakd import cli
from arcface_cakd.data import DataError
from arcface_cakd.data.face_files import align
from arcface_cakd.evaluation import EvaluationError, verification_metrics
from arcface_cakd.evaluation.protocols.rfw import Rfw, group_gap

PAIRS = 24


def pairs_of(first):
    """Pairs of ten people numbered from ``first``: person, image, person, image."""
    random = np.random.default_rng(first)
    for k in range(PAIRS):
        one, other = (first + random.choice(10, 2, replace=False)).tolist()
        other = one if k % 2 == 0 else other
        left, right = (random.choice(3, 2, replace=False) + 1).tolist()
        yield one, left, other, right


@pytest.fixture(scope="module")
def rfw(tmp_path_factory):
    """Crops of one group, and pictures with landmarks of another."""
    folder = tmp_path_factory.mktemp("rfw") / "test"
    for group, first in (("African", 0), ("Asian", 50)):
        lines, landmarks = [], {}
        for one, left, other, right in pairs_of(first):
            words = [f"m.{one}", left, f"m.{other}", right]
            lines.append("\t".join(map(str, words[:2] + words[3:] if one == other else words)))
            for person, image in ((one, left), (other, right)):
                face, name = crop(person, image, 120), f"m.{person}/m.{person}_{image:04d}.jpg"
                if group == "Asian":
                    face, points = photograph(face, 10 * person + image)
                    landmarks[f"/data/{group}/{name}"] = points
                save(folder / "data" / group / name, face)
        (folder / "txts" / group).mkdir(parents=True)
        (folder / f"txts/{group}/{group}_pairs.txt").write_text("\n".join(lines) + "\n")
        rows = [
            f"{n}\t0\t" + "\t".join(map(repr, map(float, p.ravel()))) for n, p in landmarks.items()
        ]
        (folder / f"txts/{group}/{group}_lmk.txt").write_text("\n".join(rows) + "\n")
    return folder


def test_groups_are_judged_by_the_10_fold_protocol(rfw):
    protocol = Rfw([rfw.parent])  # the folder above does too
    results = protocol.judge(EMBEDDER, draws=30)
    assert list(results) == ["African", "Asian", "all groups"]
    for group, first in (("African", 0), ("Asian", 50)):
        rows, issame = [], []
        for one, left, other, right in pairs_of(first):
            for person, image in ((one, left), (other, right)):
                face = crop(person, image, 120)
                if group == "Asian":
                    face = align(*photograph(face, 10 * person + image))
                rows.append(embedding(face))
            issame.append(one == other)
        wanted = verification_metrics(np.array(rows), issame)
        found = results[group]
        assert found.accuracy == pytest.approx(wanted.accuracy, abs=1e-9)
        assert found.auc == pytest.approx(wanted.auc, abs=1e-9)
        assert found.accuracy_interval.drawn == "people"
    accuracies = [results[group].accuracy for group in ("African", "Asian")]
    assert results["all groups"].mean == pytest.approx(np.mean(accuracies), abs=1e-12)
    table = protocol.table(results).splitlines()
    assert table[0].startswith("group") and table[1].startswith("African")
    assert f"{100 * np.mean(accuracies):.2f}" in next(x for x in table if x.startswith("mean %"))
    figures = json.loads(json.dumps({name: one.to_dict() for name, one in results.items()}))
    check_intervals(figures["all groups"])
    assert list(Rfw([rfw], ["Asian"]).judge(EMBEDDER, draws=0)) == ["Asian"]


def test_spread_and_skewed_error_are_the_published_ones():
    """ArcFace on RFW: 96.18, 94.67, 93.72, 93.98: average 94.64, STD 1.11, SER 1.65.

    Wang & Deng, CVPR 2020, table 3; of accuracies that were rounded.
    """
    gap = group_gap([0.9618, 0.9467, 0.9372, 0.9398])
    assert 100 * gap.mean == pytest.approx(94.64, abs=0.006)
    assert 100 * gap.std == pytest.approx(1.11, abs=0.011)
    assert gap.skewed_error_ratio == pytest.approx(1.65, abs=0.011)
    assert set(gap.intervals.values()) == {None}


def test_draws_give_intervals_of_the_gap():
    random = np.random.default_rng(0)
    rows = random.uniform(0.8, 0.95, (4, 400))
    gap = group_gap(rows.mean(axis=1), list(rows))
    std = [np.std(column, ddof=1) for column in rows.T]
    ratio = [(1 - min(column)) / (1 - max(column)) for column in rows.T]
    for name, values in (("std", std), ("skewed_error_ratio", ratio)):
        low, high = np.quantile(values, [0.025, 0.975])
        assert gap.intervals[name].low == pytest.approx(low, abs=1e-12)
        assert gap.intervals[name].high == pytest.approx(high, abs=1e-12)
    perfect = group_gap([1.0, 0.9], [np.ones(10), np.full(10, 0.9)])
    assert perfect.skewed_error_ratio is None
    assert perfect.intervals["skewed_error_ratio"] is None
    assert group_gap([1.0, 0.9], [np.ones(10), None]).intervals["mean"] is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("m.0\t1", "line 10 has 2 words"),
        ("m.0\t1\tx", "does not number its images"),
        ("m.0\t1\t9", r"m\.0_0009\.jpg: no such image"),
        ("", "9 pairs do not make 10 folds"),
    ],
)
def test_what_is_wrong_with_the_lists_is_one_line(tmp_path, line, said):
    for person in (0, 1):
        for image in (1, 2):
            save(tmp_path / f"data/A/m.{person}/m.{person}_{image:04d}.jpg", crop(person, image))
    (tmp_path / "txts/A").mkdir(parents=True)
    pairs = ["m.0\t1\t2"] * 5 + ["m.0\t1\tm.1\t2"] * 4
    (tmp_path / "txts/A/A_pairs.txt").write_text("\n".join([*pairs, line]))
    with pytest.raises((DataError, EvaluationError), match=said):
        Rfw([tmp_path])


@pytest.fixture
def small(tmp_path):
    """Crops of one group with ten pairs."""
    for person in (0, 1):
        for image in (1, 2):
            save(tmp_path / f"data/A/m.{person}/m.{person}_{image:04d}.jpg", crop(person, image))
    (tmp_path / "txts/A").mkdir(parents=True)
    pairs = ["m.0\t1\t2"] * 5 + ["m.0\t1\tm.1\t2"] * 5
    (tmp_path / "txts/A/A_pairs.txt").write_text("\n".join(pairs))
    return tmp_path


def test_every_image_says_whether_landmarks_are_needed(small, caplog):
    """Not the first one alone."""
    listing = small / "txts/A/A_lmk.txt"
    names = ["m.0_0001", "m.0_0002", "m.1_0002"]
    points = "\t".join(map(str, range(10, 20)))
    listing.write_text("\n".join(f"{name}.jpg\t0\t{points}" for name in names))
    caplog.set_level("INFO")
    assert Rfw([small]).groups["A"].faces.landmarks is None
    assert caplog.messages == [f"{listing}: not used: all 3 images are crops of 112 x 112"]
    # The list's points are of photographs: they would warp what is a crop already.
    save(small / "data/A/m.1/m.1_0002.jpg", crop(1, 2)[:90, :90])
    said = r"2 of its 3 images are crops .* not, the first of them .*m\.1_0002\.jpg: align all"
    with pytest.raises(DataError, match=said):
        Rfw([small])
    for name in names[:2]:
        save(small / f"data/A/m.0/{name}.jpg", crop(0, 1)[:90, :90])
    assert Rfw([small]).groups["A"].faces.landmarks.shape == (3, 5, 2)
    listing.unlink()
    with pytest.raises(DataError, match=r"m\.0_0001\.jpg is no crop of 112 x 112: landmarks"):
        Rfw([small])


def test_a_group_without_an_interval_says_so_and_is_no_other_groups(small, rfw):
    """Two people: each second draw holds one of them alone."""
    protocol = Rfw([rfw])
    protocol.groups["A"] = Rfw([small]).groups["A"]
    results = protocol.judge(EMBEDDER, draws=100)
    assert results["African"].accuracy_interval and not results["A"].accuracy_interval
    reason = "too few people: a draw held pairs of one kind only"
    assert results["A"].to_dict()["absent"]["accuracy_interval"] == reason
    lines = protocol.table(results).splitlines()
    assert f"A: no interval of accuracy: {reason}" in lines
    without = "without those of A there are none of all groups"
    assert f"all groups: no interval of mean, std, skewed_error_ratio: {without}" in lines
    assert results["all groups"].absent["intervals.std"] == without
    unasked = protocol.table(protocol.judge(EMBEDDER, draws=0))
    assert "no interval" not in unasked


def test_a_group_is_not_called_as_all_are(small):
    (small / "txts/A").rename(small / "txts/all groups")
    (small / "txts/all groups/A_pairs.txt").rename(small / "txts/all groups/all groups_pairs.txt")
    with pytest.raises(DataError, match="a group cannot be called 'all groups'"):
        Rfw([small])


@pytest.mark.parametrize("counts", ["", "10\n", "5 2\n"])
def test_a_first_pair_of_people_who_are_numbers_is_no_line_of_counts(tmp_path, counts):
    for person in ("0001", "0002"):
        for image in (1, 2):
            save(tmp_path / f"data/A/{person}/{person}_{image:04d}.jpg", crop(int(person), image))
    (tmp_path / "txts/A").mkdir(parents=True)
    pairs = ["0001 1 2"] * 5 + ["0001 1 0002 2"] * 5
    (tmp_path / "txts/A/A_pairs.txt").write_text(counts + "\n".join(pairs) + "\n")
    assert Rfw([tmp_path]).groups["A"].people.issame.tolist() == [True] * 5 + [False] * 5


def test_a_group_that_cannot_be_read_is_not_left_out(rfw, monkeypatch):
    make_unreadable(monkeypatch, "Asian")
    with pytest.raises(DataError, match=r"txts/Asian: cannot be read: Permission denied$"):
        Rfw([rfw])


def test_missing_groups_and_landmarks_are_named(rfw, tmp_path):
    with pytest.raises(DataError, match=r"no txts/<group>/<group>_pairs\.txt"):
        Rfw([tmp_path])
    with pytest.raises(DataError, match="no group 'Asia' in it; there: African, Asian"):
        Rfw([rfw], ["Asia"])
    listing = rfw / "txts/Asian/Asian_lmk.txt"
    lines = listing.read_text().splitlines()
    for kept, said in (([lines[0]], "no landmarks of"), (["a\tb"], "line 1 has 2 words")):
        listing.write_text("\n".join(kept) + "\n")
        with pytest.raises(DataError, match=said):
            Rfw([rfw])
    listing.unlink()
    with pytest.raises(DataError, match="landmarks are needed"):
        Rfw([rfw])
    listing.write_text("\n".join(lines) + "\n")
    Rfw([rfw])


def test_the_command_refuses_what_a_protocol_has_not(capsys, tmp_path):
    for extra, said in (
        (["--protocol", "tinyface", "--targets", "x"], "has no sets to choose from"),
        (["--protocol", "tinyface", "--roc", "x.png"], "has no ROC curve"),
        (["--protocol", "ijb"], "no set of templates"),
    ):
        assert cli.main(["evaluate", "no.pt", "--data", str(tmp_path), *extra]) == 1
        assert said in capsys.readouterr().err
