"""Faces that ranges are found with, and files compared on."""

import os
from pathlib import Path

import numpy as np
from torch import nn

from arcface_cakd.data import DataError
from arcface_cakd.data.bins import decode_face, load_bin
from arcface_cakd.data.images import decode_image
from arcface_cakd.data.loader import open_images
from arcface_cakd.evaluation import embed
from arcface_cakd.export.errors import ExportError
from arcface_cakd.landmarks import CROP_SIZE

COUNT = 256
_LOOKED_AT = 16
_ALIKE = 0.9999


def calibration_faces(path: str | os.PathLike, count: int = COUNT) -> np.ndarray:
    """Faces of a set, spread over all of it, in random order.

    Args:
        path: a ``.bin`` set, a ``train.rec``, or a folder that training takes.
        count: how many, if there are so many.

    Returns:
        uint8 (N, 112, 112, 3) RGB; the same for the same set.

    Raises:
        ExportError: no such set.
        DataError, RecordIOError: it cannot be read, or holds images that are no crops.
    """
    path = Path(path)
    if path.suffix == ".bin":
        encoded, _ = load_bin(path)
        return np.stack([decode_face(encoded[i]) for i in _spread(len(encoded), count)])
    if path.suffix == ".rec" and path.name != "train.rec":
        raise ExportError(f"{path}: a record file must be called train.rec, with train.idx beside")
    folder = path.parent if path.suffix == ".rec" else path
    if not folder.is_dir():
        raise ExportError(f"{path}: no such .bin set, train.rec or folder of faces")
    images = open_images(folder, labelled=False)
    faces = []
    for position in _spread(len(images), count):
        face = decode_image(images.encoded(int(position))[0])
        if face.shape != (CROP_SIZE, CROP_SIZE, 3):
            raise DataError(
                f"{images.describe(int(position))}: {face.shape[1]} x {face.shape[0]}, not an "
                "aligned face of 112 x 112"
            )
        faces.append(face)
    return np.stack(faces)


def check_faces(model: nn.Module, faces: np.ndarray) -> None:
    """See that pictures differ for a network, as faces of several people do.

    Args:
        model: maps images (B, 3, 112, 112) to embeddings (B, E).
        faces: uint8 (N, 112, 112, 3) RGB.

    Raises:
        ExportError: all have the same embedding, but for roundings.
    """
    embeddings = embed(model, faces[:_LOOKED_AT], flip=False)
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    if len(units) > 1 and (units[1:] @ units[0]).min() > _ALIKE:
        raise ExportError(
            "the calibration set's pictures are all alike to this network: give aligned faces "
            "of many people, such as it was trained on"
        )


def _spread(total: int, count: int) -> np.ndarray:
    """``count`` of ``total`` places, at even distances, in random order."""
    places = np.unique(np.linspace(0, total - 1, min(count, total)).astype(np.int64))
    return np.random.default_rng(0).permutation(places)
