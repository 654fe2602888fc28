"""Folds of the real training set: nobody is trained on and judged by one student."""

import numpy as np
import pytest
from helpers.engine_runs import png

from arcface_cakd.data import FaceLandmarks
from arcface_cakd.data.bins import load_bin
from arcface_cakd.data.images import decode_crop
from arcface_cakd.data.records import FaceRecords

PEOPLE, IMAGES = 22, 5


@pytest.fixture(scope="module")
def builder():
    import folds

    return folds


@pytest.fixture
def faces(builder, tmp_path, monkeypatch):
    """A real set of made crops: the two numbers of each colour are the person and the image."""
    from real_faces import Crop, write_training_set

    people = {
        f"P{person:02d}": [
            Crop(
                f"P{person:02d}/{number}.jpg",
                png(np.full((112, 112, 3), (person, number, 0), dtype=np.uint8)),
                np.full((5, 2), person + number / 10, dtype=np.float32),
            )
            for number in range(IMAGES)
        ]
        for person in range(PEOPLE)
    }
    write_training_set(tmp_path / "real", people)
    embedded = {}

    def embed(weights, parts):
        """Two images that the teacher takes for one person, in two folds; all others apart."""
        embedded.update(parts)
        numbers = {image: k for k, image in enumerate(i for own in parts.values() for i in own)}
        rows = np.eye(len(numbers))
        first = {name: numbers[own[0]] for name, own in parts.items()}
        rows[first[builder.FOLDS[2]]] = rows[first[builder.FOLDS[1]]]
        return {name: rows[[numbers[image] for image in own]] for name, own in parts.items()}

    monkeypatch.setattr(builder, "embed_crops", embed)
    monkeypatch.setattr("sys.argv", ["folds.py", str(tmp_path)])
    builder.main()
    return tmp_path, embedded


def test_each_person_is_held_out_once(builder, faces):
    root, embedded = faces
    assert sorted(i for own in embedded.values() for i in own) == sorted(
        FaceRecords(root / "real").encoded(k)[0] for k in range(PEOPLE * IMAGES)
    )
    held_out = []
    for fold in builder.FOLDS:
        records, landmarks = FaceRecords(root / fold), FaceLandmarks(root / fold)
        trained = {}
        for position in range(len(records)):
            encoded, label = records.encoded(position)
            person, number, _ = decode_crop(encoded)[0, 0]
            trained.setdefault(int(label), set()).add(person)
            np.testing.assert_allclose(landmarks[position], person + number / 10, atol=1e-5)
        assert [len(people) for people in trained.values()] == [1] * len(trained)
        assert sorted(trained) == list(range(len(trained)))
        encoded, issame = load_bin(root / fold / "held_out.bin")
        judged = {int(decode_crop(image)[0, 0, 0]) for image in encoded}
        own = {int(decode_crop(image)[0, 0, 0]) for image in embedded[fold]}
        assert judged <= own
        assert own.isdisjoint(next(iter(people)) for people in trained.values())
        assert len(own) + len(trained) == PEOPLE
        held_out += own
        alike = embedded[fold][0]
        assert (alike in encoded) == (fold not in builder.FOLDS[1:3])
        who = (root / fold / "held_out_people.tsv").read_text().split()
        people = np.array(who).reshape(-1, 2)
        np.testing.assert_array_equal(people[:, 0] == people[:, 1], issame)
        drawn = [f"{decode_crop(image)[0, 0, 0]:04d}" for image in encoded]
        assert drawn == who
    assert sorted(held_out) == list(range(PEOPLE))


def test_their_students_are_chosen_by_nothing(builder):
    """And differ from those of the whole set in their people alone."""
    import grid

    real = vars(grid.SIZES["cpu"]["real"])
    for fold in builder.FOLDS:
        data = grid.SIZES["cpu"][fold]
        own = {"folder": fold, "choose": (), "report": ("held_out",), "as_listed": ()}
        assert vars(data) == real | own
