"""Whole batches of images, read and decoded at once, in a worker or here."""

from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from arcface_cakd.data.augmentation import Augmentation
from arcface_cakd.data.draws import epoch_flips, view_draws
from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_landmarks import FaceLandmarks
from arcface_cakd.data.folder import FaceFolder
from arcface_cakd.data.image_tree import ImageTree
from arcface_cakd.data.images import CROP, decode_crop
from arcface_cakd.data.records import FaceRecords
from arcface_cakd.data.tensors import normalised
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.landmarks import mirror
from arcface_cakd.recordio import RecordIOError

FaceImages = FaceRecords | FaceFolder | ImageTree


class KnownFeatures(Protocol):
    """What is known of every image beforehand, such as a teacher's cache."""

    def read(self, positions: np.ndarray, flips: np.ndarray, view: int) -> dict[str, np.ndarray]:
        """Arrays (B, ...), by name.

        Args:
            positions: int64 (B,), places of the images among the keys.
            flips: bool (B,), which of them are flipped.
            view: which view of the images.
        """
        ...


class Views:
    """How the images of a data set are seen: augmented or not, flipped or not.

    Args:
        images: the data set.
        seed: of flips and augmentation.
        augmentation: what may happen to an image, or None.
        count: how many views of an image there are: epoch e sees view e modulo that one.
            None: each epoch its own.
    """

    def __init__(
        self,
        images: FaceImages,
        seed: int,
        augmentation: Augmentation | None = None,
        count: int | None = None,
    ):
        self.images = images
        self.seed = seed
        self.augmentation = augmentation
        self.count = count

    def view(self, epoch: int) -> int:
        """The view that an epoch sees; 0 without augmentation, by which alone views differ."""
        if self.augmentation is None:
            return 0
        return epoch if self.count is None else epoch % self.count

    def flips(self, positions: np.ndarray, epoch: int) -> np.ndarray:
        """Which of the images at these places an epoch sees flipped, bool (B,)."""
        return epoch_flips(self.images.keys[positions], self.seed, epoch)

    def read(
        self, positions: np.ndarray, view: int, flips: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pixels, uint8 (B, 3, 112, 112) RGB, and labels, int64 (B,).

        Args:
            positions: (B,) places of the images among the keys.
            view: which view of them.
            flips: bool (B,), which of them to flip, after augmentation.

        Raises:
            RecordIOError, DataError: an image cannot be had; the message names its place.
        """
        height, width, channels = CROP
        planes = np.empty((len(positions), channels, height, width), dtype=np.uint8)
        labels = np.empty(len(positions), dtype=np.int64)
        augmentation, drawn = self.augmentation, np.empty((len(positions), 0))
        if augmentation is not None:
            keys = self.images.keys[positions]
            drawn = view_draws(keys, self.seed, view, augmentation.draws)
        crop = np.empty(CROP, dtype=np.uint8)
        for i, position in enumerate(positions.tolist()):
            try:
                encoded, labels[i] = self.images.encoded(position)
                pixels = decode_crop(encoded, out=crop)
            except RecordIOError:
                raise  # names the place itself
            except DataError as error:
                raise DataError(f"{self.images.describe(position)}: {error}") from error
            if augmentation is not None:
                pixels = augmentation(pixels, drawn[i])
            planes[i] = (pixels[:, ::-1] if flips[i] else pixels).transpose(2, 0, 1)
        return planes, labels


class BatchReader(Dataset):
    """The batches of ``FaceLoader``, each by an epoch and the places of its images.

    A mistake in the data is returned, not raised, as an exception of a worker would come out as
    many lines.
    """

    def __init__(self, views: Views, landmarks: FaceLandmarks | None):
        self._views = views
        self._landmarks = landmarks
        self.known: KnownFeatures | None = None

    def __getitem__(self, batch: tuple[int, np.ndarray]):
        epoch, positions = batch
        view, flips = self._views.view(epoch), self._views.flips(positions, epoch)
        try:
            planes, labels = self._views.read(positions, view, flips)
            found: list[Any] = [normalised(torch.from_numpy(planes)), torch.from_numpy(labels)]
            if self._landmarks is not None:
                found.append(torch.from_numpy(self._faces(positions, flips)))
            if self.known is not None:
                known = self.known.read(positions, flips, view)
                found += [None] if self._landmarks is None else []
                found.append({name: torch.from_numpy(rows) for name, rows in known.items()})
        except ArcfaceCakdError as error:
            return error
        return tuple(found)

    def _faces(self, positions: np.ndarray, flips: np.ndarray) -> np.ndarray:
        """The landmarks of the images as they are flipped, float32 (B, 5, 2)."""
        assert self._landmarks is not None
        faces = []
        for position, flip in zip(positions.tolist(), flips, strict=True):
            try:
                face = self._landmarks[position]
            except DataError as error:
                where = self._views.images.describe(position)
                raise DataError(f"{where}: {error}") from error
            faces.append(mirror(face) if flip else face)
        return np.stack(faces)
