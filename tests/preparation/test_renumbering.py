"""A record set written anew, with people numbered from 0 on."""

import numpy as np
import pytest
from helpers.record_sets import jpeg, write_records

from arcface_cakd.cli import main
from arcface_cakd.data import DataError, FaceLandmarks, get_dataloader
from arcface_cakd.data.damage import verify
from arcface_cakd.preparation.renumbering import renumber
from arcface_cakd.preparation.rewriting import Written
from arcface_cakd.recordio import MissingKeyError, MXIndexedRecordIO, unpack

LABELS = [7, 100_000, 3, 7, 3, 3, 12]  # of the images, in the order of their keys


def write(folder, label=float, first_key=0, record_0=None):
    folder.mkdir(exist_ok=True)
    records = {first_key + n: (label(number), jpeg(n)) for n, number in enumerate(LABELS)}
    write_records(folder, records | (record_0 or {}))
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label": lambda number: [number, 5.0]},
        {"first_key": 1},
        # Insightface's layout, whose record 0 misses two images and knows of no headers.
        {"first_key": 1, "record_0": {0: ([6, 6], b"")}},
    ],
)
def test_people_are_numbered_in_the_order_of_labels(tmp_path, options, caplog):
    folder, out = write(tmp_path / "in", **options), tmp_path / "out"
    assert renumber(folder, out) == Written(7, 4)
    reader = MXIndexedRecordIO(out / "train.idx", out / "train.rec", "r")
    found = [unpack(reader.read_idx(key)) for key in range(1, 8)]
    order = [2, 4, 5, 0, 3, 6, 1]
    assert [header.label for header, _ in found] == [0, 0, 0, 1, 1, 2, 3]
    assert [image for _, image in found] == [jpeg(n) for n in order]
    rows = "label\tformer label\n0\t3\n1\t7\n2\t12\n3\t100000\n"
    assert (out / "labels.tsv").read_text() == rows
    loader = get_dataloader(out, 7, seed=0, num_workers=0)
    assert (loader.num_classes, loader.num_people, caplog.text) == (4, 4, "")
    assert verify(out) == (12, [])


def test_landmarks_of_the_set_that_was_replaced_are_named(tmp_path, caplog):
    """As many rows as there are images: training would take them for this set's."""
    folder, out = write(tmp_path / "in"), write(tmp_path / "out")
    np.save(out / "train_landmarks.npy", np.full((7, 5, 2), 50, np.float32))
    renumber(folder, out, force=True)
    assert f"{out / 'train_landmarks.npy'}: is of the former data set" in caplog.text


def test_landmarks_go_along(tmp_path):
    folder, out = write(tmp_path / "in"), tmp_path / "out"
    points = np.random.default_rng(0).uniform(30, 80, (7, 5, 2)).astype(np.float32)
    np.save(folder / "train_landmarks.npy", points)
    renumber(folder, out)
    moved = FaceLandmarks(out, 7)
    for place, n in enumerate([2, 4, 5, 0, 3, 6, 1]):
        np.testing.assert_array_equal(moved[place], points[n])
    np.save(folder / "train_landmarks.npy", points[:6])
    with pytest.raises(DataError, match=r"shape \(6, 5, 2\) instead of \(7, 5, 2\)"):
        renumber(folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_names_that_do_not_go_along_are_said(tmp_path, caplog):
    folder = write(tmp_path / "in")
    (folder / "labels.tsv").write_text("label\tname\n3\tann\n")
    renumber(folder, tmp_path / "out")
    assert f"{folder / 'labels.tsv'}: its names stay there" in caplog.text
    caplog.clear()
    renumber(tmp_path / "out", tmp_path / "again")
    assert not caplog.messages


def test_the_command(tmp_path, capsys):
    folder, out = write(tmp_path / "in"), tmp_path / "out"
    (folder / "lfw.bin").write_bytes(b"")
    assert main(["data", "renumber", str(folder), str(out)]) == 0
    printed = capsys.readouterr().out
    assert "7 images of 4 people" in printed and "lfw.bin stay there" in printed
    assert main(["data", "renumber", str(folder), str(out)]) == 1
    assert "a data set is there" in capsys.readouterr().err
    assert main(["data", "renumber", str(folder), str(out), "--force"]) == 0


def test_a_set_without_key_0_is_read_by_the_host_afterwards(tmp_path):
    """Which asks for it first of all; what it says where it is missing names the command."""
    folder, out = write(tmp_path / "in", first_key=1), tmp_path / "out"
    reader = MXIndexedRecordIO(folder / "train.idx", folder / "train.rec", "r")
    with pytest.raises(MissingKeyError, match=r"key 0: the index has no such key; .* renumber"):
        reader.read_idx(0)
    with pytest.raises(MissingKeyError, match=r"key 99: the index has no such key$"):
        reader.read_idx(99)
    renumber(folder, out)
    header, _ = unpack(MXIndexedRecordIO(out / "train.idx", out / "train.rec", "r").read_idx(0))
    assert header.label.tolist() == [8, 12]  # images 1 to 7, then four headers
