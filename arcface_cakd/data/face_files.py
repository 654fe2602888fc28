"""Faces in files of their own, read when they are asked for, aligned where landmarks are given."""

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from arcface_cakd.data.bins import decode_face
from arcface_cakd.data.errors import DataError
from arcface_cakd.data.folder import without_known
from arcface_cakd.data.image_files import read_encoded, some_of
from arcface_cakd.data.image_tree import image_tree
from arcface_cakd.data.images import CROP, decode_image
from arcface_cakd.landmarks import ARCFACE_TEMPLATE, CROP_SIZE, estimate_similarity
from arcface_cakd.recordio import codec

logger = logging.getLogger("arcface_cakd")

_DECODERS = min(8, os.cpu_count() or 1)


class FaceFiles:
    """Face crops, decoded slice by slice: what ``evaluation.embed`` takes.

    ``faces[a:b]`` is uint8 (b - a, 112, 112, 3) RGB.

    Args:
        paths: of the N images.
        landmarks: (N, 5, 2) in pixels of the images, in the order of ``ARCFACE_TEMPLATE``, to
            which each image is aligned. None: the images are crops, 112 x 112, or square and are
            resized as ``read_bin`` does.

    Attributes:
        paths: of the images.
        digests: (N, 32) uint8, the SHA-256 of each file that was read; zeros of another.
        resized: (N,) bool, whether an image was read that had not the size of a crop, and was
            resized.

    Raises:
        DataError: a file is not there, or landmarks from which no face can be aligned.
    """

    def __init__(self, paths: Sequence[str | Path], landmarks: np.ndarray | None = None):
        self.paths = [os.fspath(path) for path in paths]
        self.landmarks = landmarks
        self.digests = np.zeros((len(self.paths), hashlib.sha256().digest_size), dtype=np.uint8)
        self.resized = np.zeros(len(self.paths), dtype=bool)
        if missing := _missing(self.paths):
            more = f", and {len(missing) - 1} others" if len(missing) > 1 else ""
            raise DataError(
                f"{missing[0]}: no such image{more}: the lists name what is not there; unpack the "
                "set's images anew"
            )
        if landmarks is not None:
            _check_landmarks(self.paths, landmarks)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, part: slice) -> np.ndarray:
        places = range(len(self.paths))[part]
        faces = np.empty((len(places), *CROP), dtype=np.uint8)

        def read(row: int) -> None:
            faces[row] = self._face(places[row])

        with ThreadPoolExecutor(_DECODERS) as pool:  # decoders let go of the interpreter's lock
            for _ in pool.map(read, range(len(places))):
                pass
        return faces

    def _face(self, place: int) -> np.ndarray:
        try:
            encoded = read_encoded(self.paths[place])
            digest = hashlib.sha256(encoded).digest()
            self.digests[place] = np.frombuffer(digest, dtype=np.uint8)
            image = decode_image(encoded)
            if self.landmarks is not None:
                return align(image, self.landmarks[place])
            if image.shape == CROP:
                return image
            self.resized[place] = True
            return decode_face(encoded)
        except DataError as error:
            raise DataError(f"{self.paths[place]}: {error}") from error

    def warn_of_resized(self, what: object) -> None:
        """Say in the log how many images were resized, if any were.

        Args:
            what: the images' name.
        """
        if count := np.count_nonzero(self.resized):
            first = self.paths[int(np.argmax(self.resized))]
            logger.warning(
                "%s: %d of %d images are not 112 x 112 and were resized, the first is %s",
                *(what, count, len(self), first),
            )


def images_below(folder: Path) -> list[Path]:
    """The images below a folder, at any depth, in order of path; the log says what is left out.

    Raises:
        DataError: see ``image_tree``.
    """
    images, others = image_tree(folder)
    if others := without_known(others):
        named = some_of(others, folder)
        logger.warning("%s: left out: %d that are no images (%s)", folder, len(others), named)
    return images


def image_sizes(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """(height, width) of images, from their headers alone.

    Raises:
        DataError: one cannot be read, or is no image.
    """

    def size(path: Path) -> tuple[int, int]:
        try:
            return codec.image_size(read_encoded(path))
        except (DataError, ValueError) as error:
            raise DataError(f"{path}: {error}") from error

    with ThreadPoolExecutor(_DECODERS) as pool:
        return list(pool.map(size, paths))


def align(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The crop in which five landmarks come nearest to their places in the ArcFace template.

    A similarity transform, bilinear, black beyond the image's border: the pixels are those of
    arcface_torch's ``eval_ijbc.py``. Images that are much larger than the crop are no smoother for
    it, as there.

    Args:
        image: uint8 (H, W, 3).
        landmarks: (5, 2) in its pixels, integers at pixel centres.

    Returns:
        uint8 (112, 112, 3).
    """
    matrix = estimate_similarity(landmarks, ARCFACE_TEMPLATE)
    return cv2.warpAffine(image, matrix, (CROP_SIZE, CROP_SIZE), borderValue=0.0)


def _missing(paths: Sequence[str]) -> list[str]:
    """Those that are no files, by one listing of each folder rather than a question for each."""
    there: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in there:
            try:
                there[folder] = set(os.listdir(folder or "."))
            except OSError:
                there[folder] = set()
        if name not in there[folder]:
            missing.append(path)
    return missing


def _check_landmarks(paths: Sequence[str], landmarks: np.ndarray) -> None:
    if landmarks.shape != (len(paths), 5, 2):
        raise DataError(f"landmarks must be ({len(paths)}, 5, 2), got {landmarks.shape}")
    usable = np.isfinite(landmarks).all(axis=(1, 2)) & (np.ptp(landmarks, axis=1) > 0).any(axis=1)
    if not usable.all():
        first = int(np.argmin(usable))
        raise DataError(
            f"{paths[first]}: its five landmarks are one point, or no numbers: no face can be "
            "aligned by them; detect them anew"
        )
