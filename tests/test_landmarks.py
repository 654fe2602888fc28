"""The template is insightface's; alignment is skimage's, found another way."""

import numpy as np
import pytest
from skimage.transform import estimate_transform

from arcface_cakd.landmarks import (
    ARCFACE_TEMPLATE,
    CROP_SIZE,
    IMAGE_CENTER,
    estimate_similarity,
    invert_affine,
    mirror,
    transform_points,
)


def test_template_is_insightfaces():
    face_align = pytest.importorskip("insightface.utils.face_align")
    np.testing.assert_array_equal(ARCFACE_TEMPLATE, face_align.arcface_dst)
    assert ARCFACE_TEMPLATE.dtype == np.float32


def test_constants_cannot_be_changed_by_accident():
    for constant in (ARCFACE_TEMPLATE, IMAGE_CENTER):
        with pytest.raises(ValueError, match="read-only"):
            constant[0] = 0


def test_image_center_is_the_mean_of_the_pixels():
    rows, columns = np.mgrid[0:CROP_SIZE, 0:CROP_SIZE]
    np.testing.assert_array_equal(IMAGE_CENTER, [columns.mean(), rows.mean()])


@pytest.mark.parametrize("count", [2, 5, 40])
@pytest.mark.parametrize("seed", range(4))
def test_similarity_equals_skimages(count, seed):
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(count, 2)) * 30
    angle, scale = rng.uniform(-3, 3), rng.uniform(0.3, 3)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    target = scale * source @ turn.T + rng.normal(size=2) * 50 + rng.normal(size=(count, 2))
    reference = estimate_transform("similarity", source, target)
    np.testing.assert_allclose(
        estimate_similarity(source, target), reference.params[:2], rtol=1e-9, atol=1e-9
    )


def test_similarity_does_not_reflect():
    points = np.random.default_rng(0).normal(size=(6, 2))
    matrix = estimate_similarity(points, points * (-1, 1))
    assert np.linalg.det(matrix[:, :2]) >= 0


@pytest.mark.parametrize(
    ("source", "target"),
    [(np.ones((5, 2)), ARCFACE_TEMPLATE), (np.ones((4, 2)), ARCFACE_TEMPLATE), ([1, 2], [3, 4])],
)
def test_similarity_refuses_what_it_cannot_use(source, target):
    with pytest.raises(ValueError, match=r"source points|point sets"):
        estimate_similarity(source, target)


@pytest.mark.parametrize("seed", range(3))
def test_inverse_brings_points_back(seed):
    rng = np.random.default_rng(seed)
    matrix, points = rng.normal(size=(2, 3)), rng.normal(size=(7, 2))
    there = transform_points(matrix, points)
    homogeneous = np.column_stack([points, np.ones(7)])
    np.testing.assert_allclose(there, [matrix @ p for p in homogeneous])
    np.testing.assert_allclose(transform_points(invert_affine(matrix), there), points)


def test_mirroring_moves_points_and_swaps_sides():
    eye, other, nose, mouth, corner = [[10, 20], [70, 21], [40, 50], [15, 80], [66, 82]]
    expected = [[41, 21], [101, 20], [71, 50], [45, 82], [96, 80]]
    given = np.array([eye, other, nose, mouth, corner], dtype=np.float32)
    assert mirror(given).tolist() == expected
    assert given[0].tolist() == eye  # left as it was
    faces = ARCFACE_TEMPLATE + np.random.default_rng(0).normal(0, 8, (9, 5, 2))
    np.testing.assert_allclose(mirror(mirror(faces)), faces, atol=1e-4)
    np.testing.assert_array_equal(mirror(faces)[3], mirror(faces[3]))
