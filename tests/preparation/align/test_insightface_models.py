"""insightface's detectors, by a stand-in that takes what the real ``FaceAnalysis`` does."""

import inspect

import numpy as np
import pytest

from arcface_cakd.data import DataError
from arcface_cakd.preparation.align.insightface_models import InsightFaceModels

app = pytest.importorskip("insightface.app")
Real = app.FaceAnalysis


class StandIn:
    """Holds calls against the real signatures, and finds what the test says, as the real does."""

    calls: dict = {}
    kps = np.arange(10, dtype=np.float32).reshape(5, 2) + 20

    def __init__(self, *args, **kwargs):
        self._bound("__init__", args, kwargs)

    def prepare(self, *args, **kwargs):
        self._bound("prepare", args, kwargs)

    def get(self, *args, **kwargs):
        self._bound("get", args, kwargs)
        bbox, score = np.array([10, 20, 50, 80], np.float32), np.float32(0.75)
        return [app.common.Face(bbox=bbox, kps=self.kps, det_score=score)]

    def _bound(self, method, args, kwargs):
        bound = inspect.signature(getattr(Real, method)).bind(self, *args, **kwargs)
        self.calls[method] = bound.arguments


def test_faces_are_those_that_the_analyser_finds(monkeypatch):
    monkeypatch.setattr(app, "FaceAnalysis", StandIn)
    detector = InsightFaceModels("buffalo_s", min_score=0.6, size=320)
    image = np.zeros((90, 100, 3), np.uint8)
    (face,) = detector.faces(image)
    calls = StandIn.calls
    assert calls["__init__"]["name"] == "buffalo_s"
    assert calls["__init__"]["allowed_modules"] == ["detection"]
    assert calls["prepare"]["det_thresh"] == 0.6 and calls["prepare"]["det_size"] == (320, 320)
    assert calls["get"]["img"] is image
    assert face.box == (10, 20, 40, 60) and face.score == 0.75
    np.testing.assert_array_equal(face.landmarks, StandIn.kps)
    assert detector.description()["pack"] == "buffalo_s"


def test_a_pack_without_landmarks_is_refused(monkeypatch):
    monkeypatch.setattr(app, "FaceAnalysis", StandIn)
    monkeypatch.setattr(StandIn, "kps", None)
    with pytest.raises(DataError, match="buffalo_l: its detector finds no landmarks"):
        InsightFaceModels().faces(np.zeros((90, 100, 3), np.uint8))


def test_a_pack_that_is_not_to_be_had_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"cannot be loaded .* give the name") as error:
        InsightFaceModels(str(tmp_path))  # the real one: a folder without a model
    assert "\n" not in str(error.value)

    def offline(*args, **kwargs):
        raise OSError("no route\nto host")

    monkeypatch.setattr(app, "FaceAnalysis", offline)
    with pytest.raises(DataError, match=r"buffalo_l cannot be loaded \(OSError: no route to host"):
        InsightFaceModels()
