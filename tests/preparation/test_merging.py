"""Several sets made one, against dictionaries of people."""

import numpy as np
import pytest
from helpers.written_sets import shown

from arcface_cakd.cli import main
from arcface_cakd.data import DataError
from arcface_cakd.data.damage import verify
from arcface_cakd.preparation.deduplication import deduplicate
from arcface_cakd.preparation.merging import Merged, merge


@pytest.fixture
def sets(make_set):
    """Three sets: ben is in all, cleo in two, under other labels each time."""
    return [
        make_set("one", [1, 0, 1, 4], 0, {0: "anna", 1: "ben", 4: "cleo"}, landmarks=True),
        make_set("two", [0, 0, 2, 1], 10, {0: "ben", 1: "dora", 2: "eve"}, landmarks=True),
        make_set("three", [1, 0], 20, {0: "cleo", 1: "ben"}, landmarks=True),
    ]


def test_people_of_one_name_are_joined(sets, tmp_path, pool):
    out = tmp_path / "out"
    assert merge(sets, out) == Merged(10, 5, joined=2)
    found = shown(out)
    assert found.people() == {
        "anna": [pool[1]],
        "ben": [pool[0], pool[2], pool[10], pool[11], pool[20]],
        "cleo": [pool[3], pool[21]],
        "dora": [pool[13]],
        "eve": [pool[12]],
    }
    assert found.heading == "folder"
    for folder in sets:
        source = shown(folder)
        for image, points in zip(source.images, source.landmarks, strict=True):
            np.testing.assert_array_equal(found.landmarks[found.images.index(image)], points)
    assert verify(out)[1] == []


def test_by_offsets_nobody_is_joined(sets, tmp_path, pool):
    out = tmp_path / "out"
    assert merge(sets, out, by="offsets") == Merged(10, 8, joined=0)
    found = shown(out)
    by_label = {
        label: [image for n, image in zip(found.labels, found.images, strict=True) if n == label]
        for label in range(8)
    }
    assert list(by_label.values()) == [
        [pool[1]],
        [pool[0], pool[2]],
        [pool[3]],
        [pool[10], pool[11]],
        [pool[13]],
        [pool[12]],
        [pool[21]],
        [pool[20]],
    ]
    assert found.names[3] == f"{sets[1]}/ben" and found.names[7] == f"{sets[2]}/ben"


def test_one_name_of_two_labels_is_said_by_names_and_two_people_by_offsets(
    make_set, sets, tmp_path, caplog
):
    twice = make_set("twice", [0, 1, 2, 1], 30, {0: "john", 1: "john", 2: "ben"})
    assert merge([sets[0], twice], tmp_path / "offsets", by="offsets") == Merged(8, 6, joined=0)
    assert shown(tmp_path / "offsets").names[3] == shown(tmp_path / "offsets").names[4]
    caplog.clear()
    assert merge([sets[0], twice], tmp_path / "names") == Merged(8, 4, joined=1)
    assert f"{twice / 'labels.tsv'}: 1 name(s) stand for several labels, john first" in caplog.text


def test_names_that_are_nearly_one_are_said(make_set, sets, tmp_path, caplog):
    other = make_set("other", [0, 1], 30, {0: "Ben ", 1: "eve"})
    assert merge([sets[0], other], tmp_path / "out") == Merged(6, 5, joined=0)
    assert "out: 'ben' and 'Ben ' are taken for two people" in caplog.text


def test_a_label_is_nobody_s_name_in_a_part_of_a_set(make_set, tmp_path, caplog):
    """Or people without a name would be one in two such sets."""
    for first, name in ((0, "one"), (30, "two")):
        folder = make_set(name, [0, 0, 1, 2, 3], first, {0: f"p{first}", 1: f"q{first}"})
        deduplicate(folder, tmp_path / f"{name}_new")
    assert "has no name for 2 of 4 labels, 2 first: they have none in the new set" in caplog.text
    assert shown(tmp_path / "two_new").names == {0: "p30", 1: "q30"}
    both = [tmp_path / "one_new", tmp_path / "two_new"]
    with pytest.raises(DataError, match="has no name for label 2"):
        merge(both, tmp_path / "out")
    assert merge(both, tmp_path / "out", by="offsets").people == 8


def test_a_blank_is_no_name(make_set, sets, tmp_path):
    blank = make_set("blank", [0, 1, 2], 30, {0: "kim", 1: " ", 2: ""})
    with pytest.raises(DataError, match="has no name for label 1"):
        merge([sets[0], blank], tmp_path / "out")
    assert merge([sets[0], blank], tmp_path / "out", by="offsets").people


def test_landmarks_that_one_set_lacks_are_left_out(sets, make_set, tmp_path, caplog):
    bare = make_set("bare", [0], 30, {0: "fay"})
    merge([sets[0], bare], tmp_path / "out")
    assert f"{bare}: has no landmarks, so the new set has none" in caplog.text
    assert shown(tmp_path / "out").landmarks is None


@pytest.mark.parametrize(
    ("names", "heading", "says"),
    [
        (None, "", "labels.tsv: no names are there, by which people are joined"),
        ({0: "7", 1: "9"}, "former label", "has former labels, and equal numbers of two sets"),
        ({0: "anna"}, "folder", "has no name for label 1"),
    ],
)
def test_people_without_names_are_joined_by_nothing(make_set, tmp_path, names, heading, says, sets):
    nameless = make_set("nameless", [0, 1], 40, names, heading)
    with pytest.raises(DataError, match=says) as caught:
        merge([sets[0], nameless], tmp_path / "out")
    assert "--by offsets" in str(caught.value)
    assert merge([sets[0], nameless], tmp_path / "out", by="offsets").people == 5


def test_the_command(sets, tmp_path, capsys):
    command = ["data", "merge", *map(str, sets), str(tmp_path / "out")]
    assert main(command) == 0
    assert "10 images of 5 people; 2 of them joined" in capsys.readouterr().out
    assert main(command) == 1
    assert "with --force" in capsys.readouterr().err
    assert main(["data", "merge", str(sets[0]), str(sets[0]), str(tmp_path / "new")]) == 1
    assert "two sets or more, each of them once" in capsys.readouterr().err
