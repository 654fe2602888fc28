"""Aligned crops, against float64 algebra, insightface and photographs that are a formula."""

import warnings

import cv2
import numpy as np
import pytest
from helpers.photographs import made_face, placed

from arcface_cakd.landmarks import ARCFACE_TEMPLATE
from arcface_cakd.preparation.align.crops import aligned_crop

TEMPLATE = ARCFACE_TEMPLATE.astype(np.float64)


def least_squares(source: np.ndarray) -> np.ndarray:
    """The similarity (2, 3) that takes points nearest to the template, by normal equations."""
    rows, right = [], []
    for (x, y), (u, v) in zip(source, TEMPLATE, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        right += [u, v]
    (a, b, tx, ty), *_ = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)
    return np.array([[a, -b, tx], [b, a, ty]])


def face_at(scale: float, degrees: float, centre, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Landmarks of a face that is the template, turned and enlarged."""
    turn = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (TEMPLATE - 55.5) @ linear.T + centre
    return points + noise * scale * np.random.default_rng(seed).standard_normal((5, 2))


def waves(width: int, height: int, period: float) -> np.ndarray:
    """A photograph whose channels are waves along x, along y, and along both; float64."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return wave_at(x, y, period)


def wave_at(x, y, period: float) -> np.ndarray:
    turn = 2 * np.pi / period
    both = [np.sin(turn * x), np.cos(turn * y), np.sin(turn * (x + y) / np.sqrt(2))]
    return 127 + 100 * np.stack(both, axis=-1)


@pytest.mark.parametrize("scale", [0.4, 1.9, 2.0, 3.3, 6.5])
@pytest.mark.parametrize("degrees", [25, -140])
def test_a_crop_shows_what_lies_where_its_pixels_come_from(scale, degrees):
    width, height = int(100 + 120 * scale), int(80 + 120 * scale)
    landmarks = face_at(scale, degrees, (0.48 * width, 0.49 * height), noise=1.5)
    period = 40 * scale
    crop = aligned_crop(waves(width, height, period).round().astype(np.uint8), landmarks)

    matrix = least_squares(landmarks)
    expected = np.column_stack([landmarks, np.ones(5)]) @ matrix.T
    np.testing.assert_allclose(crop.landmarks, expected, atol=1e-4)
    assert crop.side == pytest.approx(112 / np.hypot(*matrix[:, 0]), rel=1e-9)
    u, v = np.meshgrid(np.arange(112), np.arange(112))
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    x, y, _ = np.einsum("ij,jhw->ihw", inverse, np.stack([u, v, np.ones_like(u)]))
    inside = (x > 8) & (x < width - 9) & (y > 8) & (y < height - 9)
    assert inside.mean() > 0.7
    off = np.abs(crop.image - wave_at(x, y, period))[inside]
    assert off.max() < 3, off.max()


@pytest.mark.skipif(cv2.__version__ < "5", reason="OpenCV 4 rounds places to a 32nd of a pixel")
def test_faces_that_are_not_large_come_out_as_insightfaces_own_crops():
    face_align = pytest.importorskip("insightface.utils.face_align")
    photograph = np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8)
    for seed, scale in enumerate((0.5, 1.0, 1.8)):
        landmarks = face_at(scale, 20 * seed, (260, 190), noise=2, seed=seed).astype(np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scikit-image, whose method has a new name
            theirs = face_align.norm_crop(photograph, landmarks)
        ours = aligned_crop(photograph, landmarks).image
        assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_large_faces_are_not_sampled_at_single_pixels():
    face_align = pytest.importorskip("insightface.utils.face_align")
    scale, period = 6.0, 240.0
    landmarks = face_at(scale, 15, (500, 480)).astype(np.float32)
    clean = waves(1000, 960, period)
    noisy = clean + 25 * np.random.default_rng(0).standard_normal(clean.shape)
    photograph = noisy.clip(0, 255).astype(np.uint8)
    clean_crop = aligned_crop(clean.astype(np.uint8), landmarks).image.astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = face_align.norm_crop(photograph, landmarks)
    errors = [
        np.abs(image - clean_crop).mean()
        for image in (theirs, aligned_crop(photograph, landmarks).image)
    ]
    assert errors[1] < 0.4 * errors[0], errors


def test_beside_the_photograph_a_crop_is_black():
    for scale in (1.0, 4.0):
        photograph = np.full((500, 600, 3), 200, dtype=np.uint8)
        crop = aligned_crop(photograph, face_at(scale, 0, (0.0, 250.0))).image
        assert crop[:, :54].max() == 0 and (crop[:, 58:] == 200).all()


def test_a_made_face_comes_back_from_a_photograph():
    face, landmarks = made_face(3)
    for scale, degrees in ((1.4, -20), (5.0, 35)):
        photograph = np.zeros((900, 900, 3), dtype=np.uint8)
        true = placed(face, landmarks, (450, 440), scale, degrees, photograph)
        # The face as made lies as its landmarks do, which are not exactly the template.
        expected = aligned_crop(face, landmarks)
        crop = aligned_crop(photograph, true)
        np.testing.assert_allclose(crop.landmarks, expected.landmarks, atol=1e-3)
        middle = np.s_[20:100, 20:92]
        off = np.abs(crop.image[middle].astype(float) - expected.image[middle])
        assert off.mean() < 3


def test_landmarks_that_are_no_faces_are_refused():
    photograph = np.zeros((100, 100, 3), np.uint8)
    with pytest.raises(ValueError, match="all source points are the same"):
        aligned_crop(photograph, np.full((5, 2), 40.0))
    # As complex numbers at right angles to the template: no turn brings them nearer to it.
    template = (TEMPLATE - TEMPLATE.mean(axis=0)) @ [1, 1j]
    points = np.random.default_rng(0).standard_normal((5, 2)) @ [1, 1j]
    points -= points.mean()
    points -= template * np.vdot(template, points) / np.vdot(template, template)
    landmarks = 50 + 20 * np.column_stack([points.real, points.imag])
    with pytest.raises(ValueError, match="the landmarks lie as no face's do"):
        aligned_crop(photograph, landmarks)
