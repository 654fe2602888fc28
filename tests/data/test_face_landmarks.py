"""The landmarks of each image, beside a training set."""

import pickle
import re

import numpy as np
import pytest
from helpers.record_sets import identify, jpeg, pixels, write_records

from arcface_cakd.data import DataError, FaceLandmarks, get_dataloader
from arcface_cakd.data.damage import verify
from arcface_cakd.landmarks import ARCFACE_TEMPLATE, mirror

COUNT = 26
HEADER = "idx," + ",".join(f"ldmk_{i}" for i in range(10))


def points(seed=0, count=COUNT):
    noise = np.random.default_rng(seed).normal(0, 8, (count, 5, 2))
    return (ARCFACE_TEMPLATE + noise).astype(np.float32)


def write_cvlface(folder, landmarks, third="", newline="\n"):
    rows = [
        f"{i}," + ",".join(f"{x / 112:.5f},{y / 112:.5f}{third}" for x, y in face)
        for i, face in enumerate(landmarks)
    ]
    (folder / "ldmk_5points.csv").write_text("\n".join([HEADER, *rows]) + "\n", newline=newline)


@pytest.mark.parametrize("kind", ["npy", "csv", "csv of three numbers", "csv of DOS"])
def test_both_formats_are_read(tmp_path, kind):
    faces = points()
    if kind == "npy":
        np.save(tmp_path / "train_landmarks.npy", faces)
    else:
        third = ",0.9" if kind == "csv of three numbers" else ""
        write_cvlface(tmp_path, faces, third, "\r\n" if kind == "csv of DOS" else "\n")
    landmarks = FaceLandmarks(tmp_path, COUNT)
    for again in (landmarks, pickle.loads(pickle.dumps(landmarks))):
        assert len(again) == COUNT
        for i, face in enumerate(faces):
            assert again[i].dtype == np.float32 and again[i].shape == (5, 2)
            np.testing.assert_allclose(again[i], face, atol=0 if kind == "npy" else 1e-3)


def test_a_mapped_file_is_not_pickled_with_what_it_maps(tmp_path):
    np.save(tmp_path / "train_landmarks.npy", points(count=5000))
    assert len(pickle.dumps(FaceLandmarks(tmp_path, 5000))) < 1000


def test_ours_comes_first(tmp_path):
    np.save(tmp_path / "train_landmarks.npy", points(1))
    write_cvlface(tmp_path, points(2))
    np.testing.assert_array_equal(FaceLandmarks(tmp_path, COUNT)[5], points(1)[5])


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (points(count=25), "shape (25, 5, 2) instead of (26, 5, 2)"),
        (points().reshape(26, 10), "shape (26, 10) instead of (26, 5, 2)"),
        (points().astype(np.float64), "float64 instead of float32"),
        (points() / 112, "must be in pixels of the 112x112 crop"),
        (points() * 20, "must be in pixels of the 112x112 crop"),
        (b"no array", "no .npy file of numbers"),
        ({"faces": points()}, "an archive of arrays"),
    ],
)
def test_another_array_is_refused_in_one_line(tmp_path, array, problem):
    path = tmp_path / "train_landmarks.npy"
    if isinstance(array, bytes):
        path.write_bytes(array)
    elif isinstance(array, dict):
        np.savez(tmp_path / "all.npz", **array)
        (tmp_path / "all.npz").rename(path)
    else:
        np.save(path, array)
    with pytest.raises(DataError, match=re.escape(problem)) as caught:
        FaceLandmarks(tmp_path, COUNT)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0,1,2\n1,1,2\n", "3 columns, .* must have 11"),
        ("", "or no row: it must have 11"),
        ("0,a,2\n", "not the numbers that CVLface writes"),
        ("\n".join(f"{i}," + ",".join(["0.5"] * 10) for i in (0, 2)), "row 1 is of image 2: "),
        ("\n".join(f"{i}," + ",".join(["50"] * 10) for i in (0, 1)), "must be in parts of the"),
    ],
)
@pytest.mark.filterwarnings("error:.*no data:UserWarning")
def test_another_table_is_refused_in_one_line(tmp_path, text, problem):
    (tmp_path / "ldmk_5points.csv").write_text(f"{HEADER}\n{text}")
    with pytest.raises(DataError, match=problem) as caught:
        FaceLandmarks(tmp_path, 2)
    assert "\n" not in str(caught.value)


def test_a_data_set_without_landmarks_says_what_it_should_hold(insightface_set):
    folder, _ = insightface_set
    with pytest.raises(DataError, match=r"train_landmarks\.npy: no such file.*ldmk_5points\.csv"):
        get_dataloader(folder, 5, seed=1, num_workers=0, landmarks=True)


@pytest.mark.parametrize("kind", ["im2rec", "insightface", "no headers", "folder"])
def test_cvlface_numbers_images_as_arcface_torch_does(tmp_path, kind):
    faces, image = points(count=12), jpeg(0)
    order = np.random.default_rng(0).permutation(12).tolist()
    expected = faces
    if kind == "im2rec":  # shuffled: number i is line i of train.idx
        write_records(tmp_path, {key: (0.0, image) for key in order})
        expected = [faces[order.index(key)] for key in range(12)]
    elif kind != "folder":  # number i is key i + 1, wherever its line is
        headers = {13: ([1, 13], b"")} if kind == "insightface" else {}
        record0 = {0: ([13.0, 14.0] if headers else [13.0], b"")}
        images = {key + 1: (0.0, image) for key in order}
        write_records(tmp_path, {**headers, **images, **record0})
    write_cvlface(tmp_path, faces)
    landmarks = FaceLandmarks(tmp_path, 12)
    for again in (landmarks, pickle.loads(pickle.dumps(landmarks))):
        np.testing.assert_allclose([again[i] for i in range(12)], expected, atol=1e-3)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["insightface", "im2rec", "folder"])
def test_batches_have_the_landmarks_of_their_images(tmp_path, kind, workers):
    images = {key: jpeg(key) for key in range(12)}
    if kind == "insightface":  # its images are the keys 1 to n
        images = {key + 1: image for key, image in images.items()}
        records = {key: (float(key % 3), image) for key, image in images.items()}
        headers = {13 + i: ([1, 13], b"") for i in range(3)}
        write_records(tmp_path, {**records, **headers, 0: ([13, 16], b"")})
    elif kind == "im2rec":
        order = np.random.default_rng(0).permutation(12).tolist()
        write_records(tmp_path, {key: (float(key % 3), images[key]) for key in order})
    else:
        for key, image in images.items():
            folder = tmp_path / f"person{key // 4}"
            folder.mkdir(exist_ok=True)
            (folder / f"{key:02}.jpg").write_bytes(image)
    faces = points(count=12)
    np.save(tmp_path / "train_landmarks.npy", faces)
    known = {row: pixels(image) for row, image in enumerate(images.values())}
    flips, seen = set(), []
    for rank in range(2):
        loader = get_dataloader(
            tmp_path, 3, seed=5, num_workers=workers, rank=rank, world_size=2, landmarks=True
        )
        for batch, _, landmarks in loader:
            for image, face in zip(batch, landmarks.numpy(), strict=True):
                row, flipped = identify(image, known)
                np.testing.assert_array_equal(face, mirror(faces[row]) if flipped else faces[row])
                flips.add(flipped)
                seen.append(row)
    assert sorted(seen) == list(range(12)) and flips == {False, True}


def test_a_face_without_landmarks_is_named(insightface_set):
    folder, _ = insightface_set
    faces = points()
    faces[7, 2] = np.nan
    np.save(folder / "train_landmarks.npy", faces)
    loader = get_dataloader(folder, 26, seed=1, num_workers=0, landmarks=True)
    with pytest.raises(DataError, match=r"train\.rec, key 8: row 7 of .*is not finite"):
        next(iter(loader))


class TestAligned:
    """Folders of crops with an ``aligned.tsv``."""

    NAMES = ("anna/1.jpg", "anna/2.jpg", "bert é/1.jpg", "bert é/deep/2.jpg", "carl/1.jpg")

    @pytest.fixture
    def crops(self, tmp_path):
        for number, name in enumerate(self.NAMES):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(jpeg(number))
        (tmp_path / "aligned.tsv").write_text(
            "".join(f"{name}\tphotograph\n" for name in ("crop", *self.NAMES)), encoding="utf-8"
        )
        np.save(tmp_path / "train_landmarks.npy", points(count=5))
        return tmp_path

    def check(self, folder, numbers, expected, labelled=True):
        """That these images are read, each with its own landmarks, whatever their order."""
        known = {number: pixels(jpeg(number)) for number in numbers}
        loader = get_dataloader(
            folder, len(numbers), seed=5, num_workers=1, landmarks=True, labelled=labelled
        )
        ((images, _, landmarks),) = list(loader)
        seen = []
        for image, face in zip(images, landmarks.numpy(), strict=True):
            number, flipped = identify(image, known)
            own = expected[number]
            np.testing.assert_array_equal(face, mirror(own) if flipped else own)
            seen.append(number)
        assert sorted(seen) == list(numbers)

    @pytest.mark.parametrize("labelled", [True, False])
    def test_landmarks_go_by_name(self, crops, labelled):
        self.check(crops, range(5), points(count=5), labelled)
        (crops / "anna" / "2.jpg").unlink()
        self.check(crops, (0, 2, 3, 4), points(count=5), labelled)
        assert verify(crops, labelled=labelled) == (4, [])

    @pytest.mark.parametrize("labelled", [True, False])
    def test_a_renamed_person_is_refused(self, crops, labelled):
        (crops / "anna").rename(crops / "zoe")
        with pytest.raises(DataError) as caught:
            get_dataloader(crops, 5, seed=5, num_workers=0, landmarks=True, labelled=labelled)
        said = str(caught.value)
        assert said.startswith(
            f"{crops / 'aligned.tsv'}: zoe/1.jpg is not in it, 2 images in all, "
        )
        assert "\n" not in said
        ((damage,), _) = verify(crops, labelled=labelled)[::-1]
        assert (damage["path"], damage["problem"]) == (str(crops / "train_landmarks.npy"), said)
        table = (crops / "aligned.tsv").read_text(encoding="utf-8")
        # As the message has it.
        (crops / "aligned.tsv").write_text(table.replace("anna", "zoe"), encoding="utf-8")
        self.check(crops, range(5), points(count=5), labelled)
        (crops / "aligned.tsv").unlink()
        np.save(crops / "train_landmarks.npy", points(count=5)[[2, 3, 4, 0, 1]])
        self.check(crops, range(5), points(count=5), labelled)

    def test_landmarks_that_were_made_for_what_is_left_stay_in_its_order(self, crops):
        (crops / "anna" / "2.jpg").unlink()
        np.save(crops / "train_landmarks.npy", points(count=5)[[0, 2, 3, 4]])
        self.check(crops, (0, 2, 3, 4), points(count=5))
        (crops / "bert é" / "1.jpg").unlink()
        with pytest.raises(DataError, match=re.escape("shape (4, 5, 2) instead of (3, 5, 2)")):
            get_dataloader(crops, 3, seed=5, num_workers=0, landmarks=True)

    def test_a_row_that_is_not_finite_is_told_by_its_place_in_the_file(self, crops):
        faces = points(count=5)
        faces[2, 3] = np.nan
        np.save(crops / "train_landmarks.npy", faces)
        (crops / "anna" / "1.jpg").unlink()
        assert ["row 2 of" in damage["problem"] for damage in verify(crops)[1]] == [True]


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (points(count=3), "shape (3, 5, 2) instead of (4, 5, 2): there must be a row for each"),
        (points(count=4).astype(np.float64), "float64 instead of float32"),
        (np.full((4, 5, 2), np.nan, np.float32), "is not finite: detect this face anew"),
    ],
)
def test_verify_looks_at_the_landmarks_of_a_folder(tmp_path, array, problem, labelled):
    for number, name in enumerate(("a/1.jpg", "a/2.jpg", "b/1.jpg", "c/1.jpg")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jpeg(number))
    np.save(tmp_path / "train_landmarks.npy", points(count=4))
    assert verify(tmp_path, labelled=labelled) == (4, [])
    np.save(tmp_path / "train_landmarks.npy", array)
    damages = verify(tmp_path, labelled=labelled)[1]
    assert damages and all(problem in damage["problem"] for damage in damages)
    assert {damage["path"] for damage in damages} == {str(tmp_path / "train_landmarks.npy")}
