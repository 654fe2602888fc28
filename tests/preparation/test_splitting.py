"""A set divided in two, against the people and images that went in."""

import numpy as np
import pytest
from helpers.written_sets import shown

from arcface_cakd.cli import main
from arcface_cakd.data import DataError
from arcface_cakd.data.damage import verify
from arcface_cakd.preparation.splitting import split_people

LABELS = np.random.default_rng(5).integers(0, 12, 60) * 3  # with gaps, in no order


@pytest.fixture
def whole(make_set):
    names = {label: f"person {label}" for label in sorted(set(LABELS.tolist()))}
    return make_set("whole", LABELS.tolist(), names=names, landmarks=True)


@pytest.mark.parametrize(("seed", "size"), [(0, {"people": 4}), (1, {"fraction": 0.34})])
def test_no_image_is_lost_and_nobody_is_in_both(whole, tmp_path, seed, size):
    first, second = tmp_path / "a", tmp_path / "b"
    rest, held = split_people(whole, first, second, seed=seed, **size)
    parts = [shown(folder) for folder in (first, second)]
    assert [(len(p.images), len(p.people())) for p in parts] == [
        (written.images, written.people) for written in (rest, held)
    ]
    assert held.people == 4
    one, other = (part.people() for part in parts)
    assert not one.keys() & other.keys()
    assert one | other == shown(whole).people()
    # Landmarks are those of the image whose bytes they stand with.
    source = shown(whole)
    for part in parts:
        assert part.labels == sorted(part.labels) and max(part.labels) == len(part.people()) - 1
        for image, points in zip(part.images, part.landmarks, strict=True):
            expected = source.landmarks[source.images.index(image)]
            np.testing.assert_array_equal(points, expected)
    assert verify(first)[1] == verify(second)[1] == []


def test_the_seed_decides_who_is_drawn(whole, tmp_path):
    drawn = []
    for number, seed in enumerate([3, 3, 4]):
        folder = tmp_path / f"held {number}"
        split_people(whole, tmp_path / f"rest {number}", folder, people=4, seed=seed)
        drawn.append(shown(folder).people().keys())
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ({"people": 11}, "11 of 12 people do not leave two"),
        ({"fraction": 0.05}, "1 of 12 people do not leave two"),
        ({"fraction": 1.5}, "above 0 and below 1, got 1.5"),
    ],
)
def test_what_cannot_be_divided(whole, tmp_path, size, says):
    with pytest.raises(DataError, match=says):
        split_people(whole, tmp_path / "a", tmp_path / "b", **size)
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_one_folder_under_two_names_is_one(whole, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for other in (tmp_path / "link", tmp_path / "b" / ".." / "a"):
        with pytest.raises(DataError, match="the two parts must be two folders"):
            split_people(whole, tmp_path / "a", other, people=4)


def test_the_command(whole, tmp_path, capsys):
    (whole / "lfw.bin").write_bytes(b"")
    command = ["data", "split", str(whole), str(tmp_path / "a"), str(tmp_path / "b")]
    assert main([*command, "--people", "3"]) == 0
    printed = capsys.readouterr().out
    assert "of 9 people" in printed and "of 3 people, none of whom is in" in printed
    assert "lfw.bin stay there" in printed
    assert main([*command, "--people", "3"]) == 1
    assert "with --force" in capsys.readouterr().err
    assert main([*command[:-1], command[-2], "--people", "3"]) == 1
    assert "the two parts must be two folders" in capsys.readouterr().err


def test_a_name_in_both_parts_is_said(make_set, tmp_path, caplog):
    folder = make_set("in", [0, 1, 2, 3, 4, 5], names=dict.fromkeys(range(6), "John Smith"))
    split_people(folder, tmp_path / "a", tmp_path / "b", people=3)
    assert "1 name(s), John Smith first, stand for labels in both parts" in caplog.text
