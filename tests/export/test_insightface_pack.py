"""Photographs through insightface's own ``FaceAnalysis``: the embeddings are the student's."""

import cv2
import numpy as np
import pytest
import torch
from helpers.detector_files import SIDE, write_detector
from helpers.onnx_files import mean, write
from helpers.people_faces import crop, photograph
from helpers.small_networks import SmallNetwork

from arcface_cakd import cli
from arcface_cakd.data.face_files import align
from arcface_cakd.export import ExportError, InsightFacePack, export_model

app = pytest.importorskip("insightface.app")


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """The exported file of a small network."""
    path = tmp_path_factory.mktemp("student") / "recognition.onnx"
    export_model(SmallNetwork(), path)
    return path


def made_pack(folder, student, detector):
    pack = InsightFacePack(folder, detector)
    with pack.filled() as filled:
        (filled / pack.MODEL).write_bytes(student.read_bytes())
        said = pack.complete(filled, {})
    assert str(folder) in said
    return folder


@pytest.mark.parametrize("person", range(3))
def test_a_photographs_embedding_is_the_students(student, tmp_path, person):
    picture, landmarks = photograph(crop(person, 0), person)
    detector = write_detector(tmp_path / "det.onnx", landmarks, picture.shape)
    pack = made_pack(tmp_path / "pack", student, detector)
    assert sorted(p.name for p in pack.iterdir()) == ["detection.onnx", "recognition.onnx"]
    analyser = app.FaceAnalysis(str(pack), providers=["CPUExecutionProvider"])
    analyser.prepare(ctx_id=-1, det_size=(SIDE, SIDE))
    (face,) = analyser.get(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    np.testing.assert_allclose(face.kps, landmarks, atol=1e-3)
    assert face.det_score == 0.875

    pixels = align(picture, landmarks).astype(np.float64)
    with torch.no_grad():
        image = torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)[None]
        expected = SmallNetwork().double()(image).numpy()[0]
        mirrored = SmallNetwork().double()(image.flip(3)).numpy()[0]
    # insightface aligns in float32: some pixels come out one level apart.
    error = np.linalg.norm(face.embedding - expected) / np.linalg.norm(expected)
    assert error < 5e-3
    # It would not hold for another crop:
    assert np.linalg.norm(mirrored - expected) / np.linalg.norm(expected) > 0.1


def test_by_its_name_under_a_root(student, tmp_path):
    """As insightface keeps its own packs: <root>/models/<name>."""
    picture, landmarks = photograph(crop(0, 0), 0)
    detector = write_detector(tmp_path / "det.onnx", landmarks, picture.shape)
    made_pack(tmp_path / "models" / "ours", student, detector)
    analyser = app.FaceAnalysis("ours", str(tmp_path), providers=["CPUExecutionProvider"])
    assert analyser.models.keys() == {"detection", "recognition"}


def test_what_is_no_detector_is_one_line_and_leaves_nothing(student, tmp_path):
    picture, landmarks = photograph(crop(0, 0), 0)
    blind = write_detector(tmp_path / "blind.onnx", landmarks, picture.shape, with_landmarks=False)
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no model")
    for detector, said in (
        (blind, "finds no landmarks"),
        (damaged, "does not take .*damaged.onnx for a detector"),
        (student, r"does not take .*recognition.onnx for a detector \(it finds none in it\)"),
        (tmp_path / "none.onnx", "none.onnx: no such file"),
    ):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(ExportError, match=said) as raised:
            made_pack(tmp_path / "pack", student, detector)
        assert "\n" not in str(raised.value)
        assert sorted(tmp_path.iterdir()) == before


def test_a_student_that_insightface_takes_for_something_else_is_refused(tmp_path):
    picture, landmarks = photograph(crop(0, 0), 0)
    detector = write_detector(tmp_path / "det.onnx", landmarks, picture.shape)
    other = write(tmp_path / "other.onnx", [mean()], shape=("batch", 3, 100, 100))
    with pytest.raises(ExportError, match="for a recognition model"):
        made_pack(tmp_path / "pack", other, detector)
    assert not (tmp_path / "pack").exists()


def test_the_command_makes_one(weights, tmp_path, capsys):
    picture, landmarks = photograph(crop(0, 0), 0)
    detector = write_detector(tmp_path / "det.onnx", landmarks, picture.shape)
    pack = tmp_path / "packs" / "ours"
    command = ["export", str(weights), "--network", "r10_narrow", "--insightface-pack", str(pack)]
    assert cli.main([*command, "--detector", str(detector)]) == 0
    printed = capsys.readouterr().out
    assert f"{pack}/recognition.onnx: " in printed and "cosine at least" in printed
    assert f"insightface.app.FaceAnalysis({str(pack)!r}) loads it" in printed
    names = ["detection.onnx", "recognition.onnx", "recognition.onnx.md"]
    assert sorted(file.name for file in pack.iterdir()) == names
    assert (pack / "detection.onnx").read_bytes() == detector.read_bytes()

    former = {file.name: file.read_bytes() for file in pack.iterdir()}
    (tmp_path / "file").write_text("")
    for words, said in (
        ([*command, "--detector", str(detector)], "is there and is no empty folder"),
        (command, "--insightface-pack needs a --detector"),
        ([*command[:-2], "--output", "m.onnx", "--detector", str(detector)], "give that too"),
        (
            [*command[:-1], str(tmp_path / "file" / "pack"), "--detector", str(detector)],
            "cannot be written",
        ),
    ):
        assert cli.main(words) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
    assert {file.name: file.read_bytes() for file in pack.iterdir()} == former
    assert sorted(p.name for p in tmp_path.iterdir()) == ["det.onnx", "file", "packs"]
