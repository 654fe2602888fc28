"""The builder of the real set, but for what needs photographs: detection and the clones."""

import io
import itertools
import random

import cv2
import numpy as np
import pytest
import torch
from helpers.engine_runs import png
from helpers.repositories import committed
from torch import nn

from arcface_cakd.data import read_bin
from arcface_cakd.landmarks import ARCFACE_TEMPLATE


@pytest.fixture(scope="module")
def builder():
    import real_faces

    return real_faces


def people(builder, counts):
    """So many crops of each person, each crop of one colour."""
    found, number = {}, 0
    for person, count in enumerate(counts):
        name = f"P{person:02d}"
        found[name] = []
        for image in range(count):
            number += 1
            jpeg = png(np.full((112, 112, 3), number, dtype=np.uint8))
            landmarks = np.full((5, 2), number, dtype=np.float32)
            found[name].append(builder.Crop(f"{name}/{image:04d}.jpg", jpeg, landmarks))
    return found


COUNTS = [1, 7, 2, 1, 30, 3, 2, 2, 5, 1, 2, 2, 4, 1, 3]


def test_pairs_alternate_and_none_is_there_twice(builder):
    faces = people(builder, COUNTS)
    pairs = builder.draw_pairs(faces, random.Random(3))
    same, different = pairs[0::2], pairs[1::2]
    assert all(p.same and p.one.person == p.other.person for p in same)
    assert all(not p.same and p.one.person != p.other.person for p in different)
    possible = sum(min(12, n * (n - 1) // 2) for n in COUNTS)
    assert len(same) == len(different) == possible // 10 * 10
    names = {(p.one.name, p.other.name) for p in pairs}
    assert len(names) == len(pairs)
    of_one = [p.one.person for p in same]
    assert max(of_one.count(person) for person in faces) == 12
    assert all(p.one.name != p.other.name for p in pairs)
    assert builder.draw_pairs(faces, random.Random(3)) == pairs
    assert builder.draw_pairs(faces, random.Random(4)) != pairs


def test_a_near_duplicate_goes_with_its_couple(builder):
    pairs = builder.draw_pairs(people(builder, COUNTS), random.Random(0))
    images = {pairs[4].one.name, pairs[9].other.name}
    kept = builder.without(pairs, images)
    gone = [k // 2 for k, p in enumerate(pairs) if p.one.name in images or p.other.name in images]
    assert {2, 4} <= set(gone)
    assert kept == [p for k, p in enumerate(pairs) if k // 2 not in gone]
    assert builder.without(pairs, set()) == pairs


def test_a_part_that_is_added_changes_none_before_it(builder):
    found = [
        ("train", "a", "test", "t1", "0.9"),
        ("dev", "d1", "test", "t2", "0.8"),
        ("train", "b", "reserve", "r1", "0.8"),
        ("dev", "d2", "reserve", "r2", "0.7"),
        ("test", "t3", "reserve", "r3", "0.6"),
    ]
    before = [row for row in found if "reserve" not in row]
    for name, expected in (("dev", {"d1"}), ("test", {"t1", "t2"})):
        assert builder.banned(name, found) == builder.banned(name, before) == expected
    assert builder.banned("reserve", found) == {"r1", "r2", "r3"}
    assert list(builder.TENTHS) == ["dev", "test", "reserve"]


def test_pairs_and_their_people_are_written(builder, tmp_path, capsys):
    pairs = builder.draw_pairs(people(builder, COUNTS), random.Random(1))
    builder.write_pairs(tmp_path, "dev", pairs)
    found = read_bin(tmp_path / "dev.bin")
    lines = (tmp_path / "dev_people.tsv").read_text().splitlines()
    for k, pair in enumerate(pairs):
        assert (found.images[2 * k, 0, 0, 0], found.images[2 * k + 1, 0, 0, 0]) == (
            pair.one.landmarks[0, 0],
            pair.other.landmarks[0, 0],
        )
        assert found.issame[k] == pair.same
        assert lines[k].split("\t") == [pair.one.person, pair.other.person]
    assert capsys.readouterr().out.startswith(f"dev: {len(pairs)} pairs of ")


def test_training_set_and_landmarks_have_one_order(builder, tmp_path):
    from arcface_cakd.data import FaceLandmarks
    from arcface_cakd.data.images import decode_crop
    from arcface_cakd.data.records import FaceRecords

    builder.write_training_set(tmp_path, people(builder, [3, 2, 4]))
    records, landmarks = FaceRecords(tmp_path), FaceLandmarks(tmp_path, 9)
    labels = []
    for position in range(9):
        encoded, label = records.encoded(position)
        labels.append(label)
        assert decode_crop(encoded)[0, 0, 0] == landmarks[position][0, 0]
    assert labels == [0, 0, 0, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize("seed", range(3))
def test_near_duplicates_pair_by_pair(seed):
    from near_duplicates import NEAR_DUPLICATE, near_duplicates

    draw = np.random.default_rng(seed)
    embeddings = {k: draw.normal(size=(n, 4)) for k, n in (("train", 9), ("dev", 5), ("test", 7))}
    embeddings = {k: e / np.linalg.norm(e, axis=1, keepdims=True) for k, e in embeddings.items()}
    names = {k: [f"{k}{i}" for i in range(len(e))] for k, e in embeddings.items()}
    expected = set()
    for one, other in itertools.combinations(embeddings, 2):
        for i, j in itertools.product(range(len(names[one])), range(len(names[other]))):
            cosine = sum(
                a * b for a, b in zip(embeddings[one][i], embeddings[other][j], strict=True)
            )
            if cosine >= NEAR_DUPLICATE:
                expected.add((one, names[one][i], other, names[other][j], f"{cosine:.3f}"))
    found = near_duplicates(embeddings, names)
    assert len(expected) > 3
    assert set(found) == expected
    assert [row[4] for row in found] == sorted((row[4] for row in found), reverse=True)


def test_a_crop_has_the_landmarks_where_the_template_has_them():
    """Dots at five places of a turned and scaled template come to lie on the template."""
    from face_detection import aligned_crop

    angle, scale = 0.4, 1.7
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    places = ARCFACE_TEMPLATE @ turn.T + [90.0, 20.0]
    image = np.zeros((330, 330, 3), dtype=np.uint8)
    for x, y in places:
        cv2.circle(image, (round(float(x)), round(float(y))), 5, (255, 255, 255), -1)
    _, encoded = cv2.imencode(".png", image)
    jpeg, landmarks = aligned_crop(encoded.tobytes(), places.astype(np.float32))
    np.testing.assert_allclose(landmarks, ARCFACE_TEMPLATE, atol=1e-3)
    crop = cv2.imdecode(np.frombuffer(jpeg, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    assert crop.shape == (112, 112)
    ys, xs = np.nonzero(crop > 128)
    for x, y in ARCFACE_TEMPLATE:
        near = np.hypot(xs - x, ys - y) < 6
        assert near.any()
        assert (xs[near].mean(), ys[near].mean()) == pytest.approx((x, y), abs=0.7)
    far = np.min([np.hypot(xs - x, ys - y) for x, y in ARCFACE_TEMPLATE], axis=0)
    assert far.max() < 6


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A repository as LFW's is laid out, and its commit."""
    root = tmp_path_factory.mktemp("lfw")
    for name in ("B/B_2.jpg", "B/B_1.jpg", "A-x/A-x_1.jpg", "A/A_1.jpg"):
        path = root / "images_deepfunneled" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (root / "peopleDevTest.txt").write_text("3\nB\t2\nA\t1\nC\t1\n")
    return committed(root)


def test_what_is_read_from_a_clone(builder, clone, monkeypatch):
    root, commit = clone
    monkeypatch.setattr(builder, "LFW_COMMIT", commit)
    images = list(builder.images_of(root))
    assert sorted(images) == sorted(
        (name, name.encode()) for name in ("A/A_1.jpg", "A-x/A-x_1.jpg", "B/B_1.jpg", "B/B_2.jpg")
    )
    of_b = [name for name, _ in images if name.startswith("B/")]
    assert of_b == ["B/B_1.jpg", "B/B_2.jpg"]
    assert builder.people_of(root, "peopleDevTest.txt") == ["A", "B", "C"]
    with pytest.raises(SystemExit, match=r"has no peopleDevTrain\.txt"):
        builder.people_of(root, "peopleDevTrain.txt")
    monkeypatch.setattr(builder, "LFW_COMMIT", "0" * 40)
    with pytest.raises(SystemExit, match=r"git archive of .* failed"):
        list(builder.images_of(root))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_quantised_weights_become_float(builder, tmp_path, monkeypatch):
    class Published(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 6), nn.Linear(6, 5))

    network = Published()
    quantised = torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8)
    file = io.BytesIO()
    torch.save(quantised.state_dict(), file)
    monkeypatch.setattr(builder, "from_git", lambda *_: file.getvalue())
    builder.write_edgeface("clone", tmp_path / "teacher.pt")
    found = torch.load(tmp_path / "teacher.pt", weights_only=True)
    expected = {f"trunk.{k}": v for k, v in network.model.state_dict().items()}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        step = 0 if "0." in key or "bias" in key else float(value.abs().max()) / 127
        assert (found[key] - value).abs().max() <= step
