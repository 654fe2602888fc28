"""What tells training sets apart."""

import shutil

import pytest
from helpers.record_sets import jpeg

from arcface_cakd.data import digest
from arcface_cakd.data.digest import data_digest
from arcface_cakd.data.loader import open_images


def digest_of(folder) -> str:
    return data_digest(open_images(folder))


def flip_a_byte(path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_record_set_is_told_by_its_files_and_not_by_its_place(insightface_set, tmp_path):
    own = digest_of(insightface_set[0])
    copy = shutil.copytree(insightface_set[0], tmp_path / "copy")
    assert digest_of(copy) == own
    # A byte of an image, whose size and place stay.
    place = (copy / "train.rec").read_bytes().index(insightface_set[1][5][1]) + 300
    flip_a_byte(copy / "train.rec", place)
    assert digest_of(copy) != own
    flip_a_byte(copy / "train.rec", place)
    assert digest_of(copy) == own
    lines = (copy / "train.idx").read_text().splitlines()
    (copy / "train.idx").write_text("\n".join(lines[::-1]) + "\n")
    assert digest_of(copy) != own


def test_a_folder_is_told_by_its_paths_and_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(digest, "_SAMPLES", 2)  # of four images, the first and the last
    for name in ("a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(len(name) + ord(name[0]) + ord(name[2])))
    own = digest_of(tmp_path / "set")
    copy = shutil.copytree(tmp_path / "set", tmp_path / "copy")
    assert digest_of(copy) == own
    (copy / "a/1.jpg").rename(copy / "a/2.jpg")
    assert digest_of(copy) != own
    (copy / "a/2.jpg").rename(copy / "a/1.jpg")
    with open(copy / "b/0.jpg", "ab") as file:
        file.write(b"x")
    assert digest_of(copy) != own


@pytest.mark.parametrize(("place", "seen"), [("a/0.jpg", True), ("b/0.jpg", False)])
def test_of_a_large_set_some_images_are_read(tmp_path, monkeypatch, place, seen):
    monkeypatch.setattr(digest, "_SAMPLES", 2)
    for name in ("a/0.jpg", "b/0.jpg", "c/0.jpg"):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_bytes(jpeg(ord(name[0])))
    own = digest_of(tmp_path)
    flip_a_byte(tmp_path / place, 300)
    assert (digest_of(tmp_path) != own) == seen
