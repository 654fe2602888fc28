"""Landmarks from a file."""

import logging
import pickle

import numpy as np
import pytest

from arcface_cakd.data import DataError
from arcface_cakd.landmarks import ARCFACE_TEMPLATE
from arcface_cakd.preparation.align.landmark_list import COLUMNS, LandmarkList

FACE = ARCFACE_TEMPLATE * 2 + 31


def write(path, rows, separator=",", heading=COLUMNS):
    lines = [heading, *([name, *points.ravel().tolist()] for name, points in rows)]
    path.write_text("".join(separator.join(map(str, line)) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(("name", "separator"), [("l.csv", ","), ("l.tsv", "\t")])
def test_each_photograph_has_its_faces(tmp_path, name, separator):
    rows = [("a/1.jpg", FACE), ("b/x y.png", FACE + 3), ("a/1.jpg", FACE * 3)]
    listed = LandmarkList(write(tmp_path / name, rows, separator))
    for each in (listed, pickle.loads(pickle.dumps(listed))):
        one, two = each.faces(None, "a/1.jpg")
        np.testing.assert_allclose(one.landmarks, FACE, rtol=1e-6)
        np.testing.assert_allclose(two.landmarks, FACE * 3, rtol=1e-6)
        assert two.box == pytest.approx((*(FACE * 3).min(0), *np.ptp(FACE * 3, axis=0)))
        assert one.score is None and one.landmarks.dtype == np.float32
        assert len(each.faces(None, "b/x y.png")) == 1 and each.faces(None, "b") == []
    assert listed.description() == pickle.loads(pickle.dumps(listed)).description()


def test_a_name_may_hold_a_comma(tmp_path):
    path = write(tmp_path / "l.csv", [('"a, b/1.jpg"', FACE)])
    assert len(LandmarkList(path).faces(None, "a, b/1.jpg")) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a.jpg,1,2,3,4,5,6,7,8,9,10\n", "its first line must be photograph,x1,y1,x2"),
        (",".join(COLUMNS) + "\n", "no line of a photograph"),
        (",".join(COLUMNS) + "\na.jpg,1,2,3\n", "line 2: it must hold a path and ten finite"),
        (",".join(COLUMNS) + "\na.jpg,1,2,3,4,5,6,7,8,9,x\n", "line 2: .* a path and ten numbers"),
        (",".join(COLUMNS) + "\na.jpg,1,2,3,4,5,6,7,8,9,nan\n", "line 2: .* ten finite numbers"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, text, problem):
    path = tmp_path / "l.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=problem):
        LandmarkList(path)
    with pytest.raises(DataError, match=r"none\.csv: cannot be read"):
        LandmarkList(tmp_path / "none.csv")


def test_other_units_and_another_order_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    faces = [FACE + rng.normal(0, 4, (5, 2)) for _ in range(20)]
    parts = write(tmp_path / "parts.csv", [("a.jpg", face / 400) for face in faces])
    with pytest.raises(DataError, match=r"go up to 0\.[0-9]*, but they must be pixels"):
        LandmarkList(parts)
    exchanged = [("a.jpg", face[[1, 0, 2, 4, 3]]) for face in faces]
    with pytest.raises(DataError, match="left and right are exchanged in 20 of 20"):
        LandmarkList(write(tmp_path / "subject.csv", exchanged))
    upside_down = [("a.jpg", 500 - face) for face in faces]
    LandmarkList(write(tmp_path / "turned.csv", upside_down))


def test_photographs_that_are_not_there_are_named(tmp_path, caplog):
    listed = LandmarkList(write(tmp_path / "l.csv", [("photos/a.jpg", FACE), ("b.jpg", FACE)]))
    with caplog.at_level(logging.WARNING, "arcface_cakd"):
        listed.warn_of_others({"a.jpg", "b.jpg"})
    assert "1 of 2 photographs that it names are not there (photos/a.jpg)" in caplog.text
