"""Folds of the real training set: no student is judged on whom it was trained on."""

from pathlib import Path

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
        """One person of each of two folds whom the teacher takes for the other."""
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
        assert own.isdisjoint(next(iter(people)) for people in trained.values())
        assert len(own) + len(trained) == PEOPLE
        held_out += own
        taken_for_another = int(decode_crop(embedded[fold][0])[0, 0, 0])
        gone = {taken_for_another} if fold in builder.FOLDS[1:3] else set()
        assert judged == own - gone
        who = (root / fold / "held_out_people.tsv").read_text().split()
        people = np.array(who).reshape(-1, 2)
        np.testing.assert_array_equal(people[:, 0] == people[:, 1], issame)
        drawn = [f"{decode_crop(image)[0, 0, 0]:04d}" for image in encoded]
        assert drawn == who
    assert sorted(held_out) == list(range(PEOPLE))


def test_their_students_differ_from_those_of_the_whole_set_in_their_people_alone(builder):
    from grid import SIZES, Cell, cell_config

    def settings(data):
        method = "embedding_64_urfm_100_1_falling_8_epochs"
        config = vars(cell_config(Cell(data, method, 7), Path("faces"), Path("out")))
        teacher = {**config["cakd"].teacher, "cache": None}
        return {**config, "rec": None, "cakd": {**vars(config["cakd"]), "teacher": teacher}}

    for fold in builder.FOLDS:
        assert settings(fold) == settings("real")
        assert SIZES["cpu"][fold].choose == ()
        assert SIZES["cpu"][fold].negatives_of("held_out") == SIZES["cpu"]["real"].negatives
