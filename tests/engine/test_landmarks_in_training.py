"""Distillation by the landmarks of each image, from the file to URFM."""

import numpy as np
import pytest
import torch
from helpers.engine_runs import made_face, make_faces, small_cakd, small_config

from arcface_cakd.alignment import URFM
from arcface_cakd.config import ConfigError
from arcface_cakd.data import DataError
from arcface_cakd.distiller import Distiller
from arcface_cakd.engine import train
from arcface_cakd.landmarks import ARCFACE_TEMPLATE, mirror

URFM_SETTINGS = {"num_centers": 4, "num_heads": 2, "landmarks": "image"}
BY_IMAGE = small_cakd(urfm=URFM_SETTINGS)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = make_faces(tmp_path_factory.mktemp("landmarks") / "faces")
    noise = np.random.default_rng(1).normal(0, 6, (36, 5, 2))
    np.save(folder / "train_landmarks.npy", (ARCFACE_TEMPLATE + noise).astype(np.float32))
    return folder


def test_each_image_comes_with_its_landmarks(faces, tmp_path, monkeypatch):
    seen = []
    into_distiller, into_urfm = Distiller.forward, URFM.forward

    def distiller_forward(self, images, landmarks=None):
        if self.training:
            seen.append([images.clone()])
        return into_distiller(self, images, landmarks)

    def urfm_forward(self, student, teacher, landmarks=None):
        seen[-1].append(landmarks.clone())
        return into_urfm(self, student, teacher, landmarks)

    monkeypatch.setattr(Distiller, "forward", distiller_forward)
    monkeypatch.setattr(URFM, "forward", urfm_forward)
    train(small_config(faces, tmp_path, cakd=BY_IMAGE, num_epoch=1))

    kept = np.load(faces / "train_landmarks.npy")
    known = [made_face(*divmod(row, 6)) for row in range(36)]
    rows, flips = [], set()
    for images, landmarks in seen:
        restored = ((images.permute(0, 2, 3, 1).numpy().astype(np.float64) + 1) * 127.5).round()
        for image, own in zip(restored, landmarks.numpy(), strict=True):
            for row, plain in enumerate(known):
                for flipped in (False, True):
                    if np.array_equal(image, plain[:, ::-1] if flipped else plain):
                        expected = mirror(kept[row]) if flipped else kept[row]
                        np.testing.assert_array_equal(own, expected)
                        rows.append(row)
                        flips.add(flipped)
    # The last batch goes through once more before model.pt is written.
    assert sorted(rows[:36]) == list(range(36)) and flips == {False, True}
    assert rows[36:] == rows[32:36]


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(faces, tmp_path):
    settings = {"cakd": BY_IMAGE, "save_all_states": True}
    straight = train(small_config(faces, tmp_path / "a", **settings))
    train(small_config(faces, tmp_path / "b", **settings), stop_after_step=7)
    train(small_config(faces, tmp_path / "b", **settings, resume=True))
    a, b = (torch.load(tmp_path / name / "model.pt", weights_only=True) for name in "ab")
    assert straight.global_step == 18
    assert all(torch.equal(a[key], b[key]) for key in a)
    plain = small_config(faces, tmp_path / "c", cakd=small_cakd())
    train(plain)
    c = torch.load(tmp_path / "c" / "model.pt", weights_only=True)
    assert any(not torch.equal(a[key], c[key]) for key in a)


def test_a_data_set_without_them_stops_the_run_before_it_starts(tmp_path):
    faces = make_faces(tmp_path / "faces")
    with pytest.raises(DataError, match=r"train_landmarks\.npy: no such file"):
        train(small_config(faces, tmp_path / "out", cakd=BY_IMAGE))
    assert not (tmp_path / "out").exists()


def test_a_training_loop_that_hands_none_over_is_told(faces, tmp_path):
    from arcface_cakd.engine.builders import build_run

    run = build_run(small_config(faces, tmp_path, cakd=BY_IMAGE), torch.device("cpu"))
    images, labels, landmarks = next(iter(run.loader))
    with pytest.raises(ConfigError, match=r'urfm\.landmarks="image" needs'):
        run.terms(images, labels)
    assert run.terms(images, labels, landmarks)["urfm_feature"] > 0
