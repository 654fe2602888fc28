"""Landmarks go along from a folder of crops into the set that it is packed to."""

import logging

import numpy as np
import pytest
from helpers.record_sets import jpeg

from arcface_cakd.data import FaceLandmarks
from arcface_cakd.preparation.align.crops_table import write_crops_table
from arcface_cakd.preparation.align.outcome import Crop, Outcome
from arcface_cakd.preparation.packing import pack_folder
from arcface_cakd.recordio import MXIndexedRecordIO, unpack

NAMES = ["a/1.jpg", "a/2.jpg", "b é/2.jpg", "b é/deep/1.jpg", "c/1.jpg"]  # in order of path


@pytest.fixture
def crops(tmp_path):
    """Five crops of three people, and landmarks that say their number."""
    folder = tmp_path / "crops"
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(number))
    points = np.full((5, 5, 2), 30, np.float32) + np.arange(5, dtype=np.float32)[:, None, None]
    np.save(folder / "train_landmarks.npy", points)
    return folder


def write_table_of(folder, names):
    outcomes = {name: Outcome(1, [Crop(name, 1, [], [0, 0, 1, 1], 1.0, 112)]) for name in names}
    write_crops_table(folder, outcomes)


def check_each_has_its_own(out, numbers):
    reader = MXIndexedRecordIO(out / "train.idx", out / "train.rec", "r")
    images = [unpack(reader.read_idx(key))[1] for key in range(1, len(numbers) + 1)]
    assert images == [jpeg(number) for number in numbers]
    landmarks = FaceLandmarks(out, len(numbers))
    assert [float(landmarks[row][0, 0]) - 30 for row in range(len(numbers))] == numbers


def test_each_image_keeps_its_landmarks(crops, tmp_path, caplog):
    pack_folder(crops, tmp_path / "set")
    check_each_has_its_own(tmp_path / "set", [0, 1, 2, 3, 4])
    (crops / "a" / "2.jpg").write_bytes(b"\xff\xd8\xff no image")
    pack_folder(crops, tmp_path / "skipped", skip_bad=True)
    check_each_has_its_own(tmp_path / "skipped", [0, 2, 3, 4])


def test_crops_may_be_removed_from_what_was_aligned(crops, tmp_path, caplog):
    write_table_of(crops, NAMES)
    (crops / "b é" / "2.jpg").unlink()
    pack_folder(crops, tmp_path / "set")
    check_each_has_its_own(tmp_path / "set", [0, 1, 3, 4])
    assert "left out" not in caplog.text  # the table is one of the set's own files


@pytest.mark.parametrize("table", [True, False])
def test_landmarks_that_are_not_all_there_stay_behind_with_a_warning(
    crops, tmp_path, caplog, table
):
    if table:
        write_table_of(crops, NAMES)
    (crops / "c" / "new.jpg").write_bytes(jpeg(9))
    with caplog.at_level(logging.WARNING, "arcface_cakd"):
        pack_folder(crops, tmp_path / "set")
    problem = "aligned.tsv: c/new.jpg is not in it" if table else "instead of (6, 5, 2)"
    assert problem in caplog.text and "taken without landmarks" in caplog.text
    assert not (tmp_path / "set" / "train_landmarks.npy").exists()


def test_crops_of_one_name_in_the_table_have_no_landmarks(tmp_path, caplog):
    """A tab in a name is written as a backslash and a t, which is another's name."""
    names = ["a\tb/1.jpg", "a\\tb/1.jpg"]
    for number, name in enumerate(names):
        (tmp_path / "crops" / name).parent.mkdir(parents=True)
        (tmp_path / "crops" / name).write_bytes(jpeg(number))
    np.save(tmp_path / "crops/train_landmarks.npy", np.full((2, 5, 2), 30, np.float32))
    write_table_of(tmp_path / "crops", names)
    pack_folder(tmp_path / "crops", tmp_path / "set")
    assert "names two crops alike" in caplog.text
    assert not (tmp_path / "set" / "train_landmarks.npy").exists()
