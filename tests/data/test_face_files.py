import cv2
import numpy as np
import pytest
from helpers.people_faces import crop, photograph, save
from skimage.transform import estimate_transform

from arcface_cakd.data import DataError
from arcface_cakd.data.face_files import FaceFiles, align
from arcface_cakd.landmarks import ARCFACE_TEMPLATE


def aligned_slowly(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Bilinear, black outside, pixel by pixel; the similarity by numpy's least squares."""
    # x' = a x - b y + c, y' = b x + a y + d, from the crop's template to the image.
    rows, target = [], []
    for (x, y), (u, v) in zip(landmarks, ARCFACE_TEMPLATE.astype(np.float64), strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        target += [u, v]
    a, b, c, d = np.linalg.lstsq(np.array(rows), np.array(target), rcond=None)[0]
    back = np.linalg.inv(np.array([[a, -b, c], [b, a, d], [0, 0, 1]]))
    height, width = image.shape[:2]
    out = np.zeros((112, 112, 3))
    for y in range(112):
        for x in range(112):
            u, v, _ = back @ [x, y, 1]
            for row in (int(np.floor(v)), int(np.floor(v)) + 1):
                for column in (int(np.floor(u)), int(np.floor(u)) + 1):
                    if 0 <= row < height and 0 <= column < width:
                        weight = (1 - abs(u - column)) * (1 - abs(v - row))
                        out[y, x] += weight * image[row, column]
    return out


@pytest.mark.parametrize("seed", [0, 1])
def test_aligning_is_a_similarity_bilinear_and_black_beyond_the_border(seed):
    picture, landmarks = photograph(crop(seed, 0), seed)
    landmarks = landmarks + np.random.default_rng(seed).normal(0, 2, (5, 2))
    found = align(picture, landmarks)
    assert found.shape == (112, 112, 3) and found.dtype == np.uint8
    # OpenCV before 5 rounds places to a 32nd of a pixel.
    assert np.abs(found - aligned_slowly(picture, landmarks)).max() <= 5
    corner = align(picture[60:, 60:], landmarks - 60)  # the crop reaches beyond the picture
    assert (corner == 0).any()
    assert np.abs(corner - aligned_slowly(picture[60:, 60:], landmarks - 60)).max() <= 5


def test_the_similarity_is_the_hosts():
    """eval_ijbc.py's, of scikit-image and OpenCV: the very pixels."""
    for seed in range(4):
        picture, landmarks = photograph(crop(seed, 0), seed)
        landmarks = landmarks + np.random.default_rng(seed).normal(0, 2, (5, 2))
        similarity = estimate_transform("similarity", landmarks, ARCFACE_TEMPLATE)
        theirs = cv2.warpAffine(picture, similarity.params[:2], (112, 112), borderValue=0.0)
        assert np.abs(align(picture, landmarks).astype(int) - theirs).max() <= 1


def test_files_are_read_by_slices_in_order(tmp_path):
    paths = [save(tmp_path / f"{k}.png", crop(k, 0)) for k in range(5)]
    faces = FaceFiles(paths)
    assert len(faces) == 5
    assert (faces[1:3] == np.stack([crop(1, 0), crop(2, 0)])).all()
    assert faces[3:100].shape == (2, 112, 112, 3)
    pictures = [photograph(crop(k, 0), k) for k in range(3)]
    paths = [save(tmp_path / f"p{k}.png", pictures[k][0]) for k in range(3)]
    aligned = FaceFiles(paths, np.stack([points for _, points in pictures]))
    assert (aligned[0:2] == np.stack([align(*pictures[0]), align(*pictures[1])])).all()


def test_what_cannot_be_read_or_aligned_is_named(tmp_path):
    path = save(tmp_path / "a.png", crop(0, 0))
    with pytest.raises(DataError, match=r"b\.png: no such image, and 1 others"):
        FaceFiles([path, tmp_path / "b.png", tmp_path / "none" / "c.png"])
    for landmarks in (np.zeros((5, 2)), np.full((5, 2), np.nan)):
        with pytest.raises(DataError, match=r"a\.png: its five landmarks are"):
            FaceFiles([path], landmarks[None])
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.png: the image does not decode"):
        FaceFiles([path])[0:1]
    save(path, crop(0, 0)[:90])
    with pytest.raises(DataError, match=r"a\.png: .* neither 112 x 112 nor square"):
        FaceFiles([path])[0:1]
