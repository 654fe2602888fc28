"""Made data sets: deterministic, whole or absent, balanced, and of people kept apart."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from arcface_cakd.data import VerificationSet, decode_image, get_dataloader, read_bin
from arcface_cakd.recordio import MXIndexedRecordIO, unpack
from arcface_cakd.synthesis import SynthesisError, dataset, histogram_baseline, synthesize
from arcface_cakd.synthesis.dataset import (
    PROTOCOLS,
    heldout_identity,
    heldout_pairs,
    training_identity,
)
from arcface_cakd.synthesis.nuisance import sample_nuisance
from arcface_cakd.synthesis.render import render

PEOPLE, PICTURES, PAIRS = 3, 2, 20
FILES = {
    "train.rec",
    "train.idx",
    "train.sha256",
    "property",
    "train_landmarks.npy",
    "lfw.bin",
    "cfp_fp.bin",
    "agedb_30.bin",
}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "set"
    sheet = out.with_name("sheet.png")
    synthesize(out, PEOPLE, PICTURES, 7, pairs=PAIRS, contact_sheet=sheet, workers=1)
    return out


def test_the_same_bytes_whatever_the_number_of_workers(made, tmp_path):
    synthesize(tmp_path / "set", PEOPLE, PICTURES, 7, pairs=PAIRS, workers=2)
    assert contents(tmp_path / "set") == contents(made)
    assert set(contents(made)) == FILES


def test_workers_do_without_pytorch():
    # Each worker would load it anew: seconds, and half a gigabyte.
    code = "import sys, arcface_cakd.synthesis.dataset; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_other_seeds_give_other_people_and_pictures():
    assert training_identity(7, 0) != training_identity(8, 0)
    for name in PROTOCOLS:
        assert heldout_identity(7, name, 0) != heldout_identity(8, name, 0)
        assert heldout_pairs(name, 300, 7) != heldout_pairs(name, 300, 8)


def test_records_hold_the_pictures_and_landmarks_in_order(made):
    landmarks = np.load(made / "train_landmarks.npy")
    assert landmarks.dtype == np.float32 and landmarks.shape == (PEOPLE * PICTURES, 5, 2)
    reader = MXIndexedRecordIO(str(made / "train.idx"), str(made / "train.rec"), "r")
    header, _ = unpack(reader.read_idx(0))
    count = int(header.label[0]) - 1
    assert count == PEOPLE * PICTURES
    assert (made / "property").read_text().strip() == f"{PEOPLE},112,112"
    for key in range(1, count + 1):
        header, encoded = unpack(reader.read_idx(key))
        number, image = divmod(key - 1, PICTURES)
        assert header.label == number
        rng = np.random.default_rng(np.random.SeedSequence([7, 0, number, image + 1]))
        picture, points = render(training_identity(7, number), sample_nuisance(rng))
        np.testing.assert_array_equal(points, landmarks[key - 1])
        assert np.abs(decode_image(encoded).astype(int) - picture).mean() < 12


def test_the_loader_reads_them(made):
    loader = get_dataloader(made, 2, seed=0, num_workers=0)
    images, labels = next(iter(loader))
    assert images.shape == (2, 3, 112, 112) and set(labels.tolist()) <= set(range(PEOPLE))
    assert loader.num_classes == PEOPLE and loader.num_images == PEOPLE * PICTURES


@pytest.mark.parametrize("name", PROTOCOLS)
def test_verification_sets_are_balanced_in_every_fold(made, name):
    read = read_bin(made / f"{name}.bin")
    assert len(read.issame) == PAIRS and read.images.shape == (2 * PAIRS, 112, 112, 3)
    for tenth in np.split(read.issame, 10):
        half = len(tenth) // 2
        assert tenth[:half].all() and not tenth[half:].any()
    assert len({image.tobytes() for image in read.images}) == 2 * PAIRS  # no picture twice


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("pairs", [20, 300])
def test_pairs_are_of_the_people_that_they_say(name, pairs):
    listed = heldout_pairs(name, pairs, seed=3)
    assert len(listed) == pairs
    tenths = [listed[k * pairs // 10 : (k + 1) * pairs // 10] for k in range(10)]
    people = [{person for pair in tenth for person in pair} for tenth in tenths]
    for k, tenth in enumerate(tenths):
        half = len(tenth) // 2
        assert all(one == other for one, other in tenth[:half])
        assert all(one != other for one, other in tenth[half:])
        assert not set.union(*people[:k], *people[k + 1 :]) & people[k]


def test_held_out_people_are_nobody_that_trained():
    training = {training_identity(7, k) for k in range(40)}
    heldout = {heldout_identity(7, name, k) for name in PROTOCOLS for k in range(40)}
    assert len(training) == 40 and len(heldout) == 120 and not training & heldout
    bones = [person.bones for person in training | heldout]
    values = np.array([dataclasses.astuple(b) for b in bones])
    assert all(len(np.unique(column)) == 160 for column in values.T)


def test_the_contact_sheet_shows_a_person_per_row(made):
    from PIL import Image

    sheet = np.asarray(Image.open(made.with_name("sheet.png")))
    assert sheet.shape == (PEOPLE * 116 + 4, PICTURES * 116 + 4, 3)
    reader = MXIndexedRecordIO(str(made / "train.idx"), str(made / "train.rec"), "r")
    picture = decode_image(unpack(reader.read_idx(4))[1])  # person 1, picture 1
    np.testing.assert_array_equal(sheet[120:232, 120:232], picture)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"identities": 1}, "identities is 1"),
        ({"images_per_identity": 0}, "images per identity is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"difficulty": -0.1}, "difficulty is -0.1"),
        ({"difficulty": float("nan")}, "difficulty is nan"),
        ({"difficulty": 4.0}, "difficulty is 4.0"),
        ({"pairs": 30}, "multiple of 20"),
        ({"pairs": 0}, "multiple of 20"),
        ({"workers": 0}, "workers is 0"),
        ({"contact_sheet": "sheet.jpg"}, r"end in \.png"),
    ],
)
def test_what_cannot_be_made_is_said_in_a_line(tmp_path, arguments, says):
    given = {"identities": 2, "images_per_identity": 1, "seed": 0, "workers": 1, **arguments}
    with pytest.raises(SynthesisError, match=says) as caught:
        synthesize(tmp_path / "set", **given)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SynthesisError, match="is not empty"):
        synthesize(tmp_path, 2, 1, 0, workers=1)
    assert contents(tmp_path) == {"mine.txt": b"mine"}
    with pytest.raises(SynthesisError, match="is a file"):
        synthesize(tmp_path / "mine.txt", 2, 1, 0, workers=1)


def test_an_empty_folder_is_filled_and_nothing_is_left_half_written(tmp_path, monkeypatch):
    out = tmp_path / "set"
    out.mkdir()

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "write_bin", fail)
        with pytest.raises(KeyboardInterrupt):
            synthesize(out, 2, 1, 0, pairs=20, workers=1)
    assert list(tmp_path.iterdir()) == [out] and not list(out.iterdir())
    synthesize(out, 2, 1, 0, pairs=20, workers=1)
    assert list(tmp_path.iterdir()) == [out] and set(contents(out)) == FILES


def brute_force_histogram_accuracy(images, issame):
    edges = [np.arange(0, 257, 32)] * 3
    histograms = [
        np.histogramdd(image[16:112, 20:92].reshape(-1, 3), edges)[0] / (96 * 72)
        for image in images.astype(float)
    ]
    alike = [np.sqrt(a * b).sum() for a, b in zip(histograms[::2], histograms[1::2], strict=True)]
    right = 0
    folds = np.array_split(np.arange(len(issame)), 10)
    accuracies = []
    for fold in folds:
        rest = [i for i in range(len(issame)) if i not in fold]
        candidates = [*sorted({alike[i] for i in rest}), np.inf]
        scores = [sum((alike[i] >= t) == issame[i] for i in rest) for t in candidates]
        threshold = candidates[int(np.argmax(scores))]
        right = sum((alike[i] >= threshold) == issame[i] for i in fold)
        accuracies.append(right / len(fold))
    return np.mean(accuracies)


@pytest.mark.parametrize("pairs", [20, 37])
@pytest.mark.parametrize("seed", range(3))
def test_histogram_baseline_equals_brute_force(pairs, seed):
    rng = np.random.default_rng(seed)
    issame = rng.random(pairs) < 0.5
    tints = rng.uniform(60, 200, (pairs, 2, 3))
    tints[issame, 1] = tints[issame, 0] + rng.normal(0, 12, (issame.sum(), 3))
    noise = rng.normal(0, 15, (2 * pairs, 112, 112, 3))
    images = np.clip(tints.reshape(-1, 1, 1, 3) + noise, 0, 255).astype(np.uint8)
    images[: 2 * pairs // 4] = images[0]  # equal similarities, too
    expected = brute_force_histogram_accuracy(images, issame)
    assert histogram_baseline(VerificationSet(images, issame)) == pytest.approx(expected)
    assert expected > 0.55


def test_histogram_baseline_accepts_at_the_threshold_itself():
    issame = np.arange(20) % 2 == 0
    images = np.zeros((40, 112, 112, 3), np.uint8)
    images[1::2][~issame] = 200  # alike by exactly 1 or exactly 0
    assert histogram_baseline(VerificationSet(images, issame)) == 1.0
