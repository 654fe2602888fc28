"""Batches of face images for training, the same for any number of workers and ranks."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from arcface_cakd.data.augmentation import Augmentation
from arcface_cakd.data.crop_landmarks import crop_landmarks
from arcface_cakd.data.draws import epoch_order
from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_landmarks import FaceLandmarks
from arcface_cakd.data.folder import FaceFolder
from arcface_cakd.data.image_tree import ImageTree
from arcface_cakd.data.reading import BatchReader, FaceImages, KnownFeatures, Views
from arcface_cakd.data.records import FaceRecords
from arcface_cakd.errors import ArcfaceCakdError


def get_dataloader(
    rec: str | Path,
    batch_size: int,
    *,
    seed: int,
    num_workers: int,
    rank: int = 0,
    world_size: int = 1,
    num_classes: int | None = None,
    landmarks: bool = False,
    augmentation: Augmentation | None = None,
    num_views: int | None = None,
    labelled: bool = True,
    checked: bool = False,
) -> "FaceLoader":
    """Open a training set.

    Args:
        rec: folder of ``train.rec`` and ``train.idx`` (insightface or im2rec), or of one folder
            of 112 x 112 images per identity.
        batch_size: images per rank and batch.
        seed: of order and flips.
        num_workers: processes that read and decode; 0 does it in this one.
        rank: this process's number out of
        world_size: how many processes share each global batch.
        num_classes: identities that the labels may name; None: as many as the data set has.
        landmarks: whether batches have the landmarks of their images, see ``FaceLandmarks``, and
            of a folder of images ``crop_landmarks``.
        augmentation: what may happen to each image, a function of (seed, epoch, key); or None.
        num_views: with augmentation, how many views there are of an image: epoch e sees view
            e modulo ``num_views``. None: each epoch its own.
        labelled: whether labels are read; see ``open_images``.
        checked: whether records are held against ``train.sha256`` when they are read.

    Raises:
        RecordIOError: a record file is missing, cut or foreign.
        DataError: no data set, one that is smaller than a global batch, or one without landmarks.
    """
    images = open_images(rec, num_classes, labelled=labelled, checked=checked)
    points = _landmarks_of(rec, images) if landmarks else None
    views = Views(images, seed, augmentation, num_views)
    return FaceLoader(views, batch_size, num_workers, rank, world_size, points)


def open_images(
    folder: str | Path,
    num_classes: int | None = None,
    *,
    labelled: bool = True,
    checked: bool = False,
) -> FaceImages:
    """The images of a folder: its record file, if it holds one, else its folders of images.

    Args:
        folder: the data set.
        num_classes: identities, where the caller knows.
        labelled: whether labels are read. Where not, each is 0, and the images of a folder may
            lie at any depth: all that is below it is one set.
        checked: whether records are held against ``train.sha256`` when they are read; a folder
            of images has none.

    Raises:
        RecordIOError, DataError: as ``FaceRecords``, ``FaceFolder`` and ``ImageTree``.
    """
    if any((Path(folder) / name).exists() for name in ("train.rec", "train.idx")):
        return FaceRecords(folder, num_classes, labelled=labelled, checked=checked)
    if checked:
        raise DataError(
            f"{folder}: check_records is for a train.rec, whose train.sha256 it reads: drop it, or "
            "pack the folder"
        )
    return FaceFolder(folder, num_classes) if labelled else ImageTree(folder)


def _landmarks_of(folder: str | Path, images: FaceImages) -> FaceLandmarks:
    if isinstance(images, FaceRecords):
        return FaceLandmarks(folder, len(images))
    return crop_landmarks(folder, images.paths)


class FaceLoader:
    """Iterates over the batches of one rank.

    Yields ``(images, labels)``: float32 (B, 3, 112, 112) RGB in [-1, 1], augmented where that is
    asked for, each flipped left to right with probability one half, and int64 (B,); with
    ``landmarks`` also those, float32 (B, 5, 2) in pixels, flipped with their images. After
    ``attach`` it yields ``(images, labels, landmarks or None, known)``.

    In an epoch, the images stand in an order drawn from (seed, epoch, record); global batch k is
    places k * G to (k + 1) * G of it, G = batch_size * world_size, of which rank r has the r-th
    part. What fills no global batch is left out. Worker processes are started once and kept.

    Attributes:
        views: the images, and how an epoch sees them.
        num_images: images of the data set.
        num_classes: identities; None where labels are not read, and each is 0.
        num_people: how many of them have images; None where that was not counted.

    Raises:
        RecordIOError, DataError: while iterating, for a damaged record, an image that does not
            decode or has another size, or a label that no identity has; whatever
            ``num_workers`` is.
    """

    def __init__(
        self,
        views: Views,
        batch_size: int,
        num_workers: int,
        rank: int = 0,
        world_size: int = 1,
        landmarks: FaceLandmarks | None = None,
    ):
        images = views.images
        self.views = views
        self.num_images = len(images)
        self.num_classes = images.num_classes
        self.num_people = images.num_people
        self._batches = _Batches(images.keys, batch_size, views.seed, rank, world_size)
        self._reader = BatchReader(views, landmarks)
        if not len(self):
            raise DataError(
                f"the data set has {self.num_images} images, less than a batch of {batch_size} "
                f"on each of {world_size} ranks: make batch_size smaller"
            )
        self._loader = DataLoader(
            self._reader,
            batch_size=None,  # an "index" is a whole batch
            sampler=self._batches,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=_as_it_is,
            worker_init_fn=_outlive_a_signal,
        )

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch that the next iteration goes through, from a batch of it on.

        Raises:
            ValueError: the epoch has no such batch.
        """
        if not 0 <= start_batch <= len(self):
            raise ValueError(f"start_batch must be 0 to {len(self)}, got {start_batch}")
        self._batches.epoch, self._batches.start = epoch, start_batch

    def attach(self, known: KnownFeatures) -> None:
        """Let each batch bring what is known of its images: a dict of tensors (B, ...), by name.

        Workers read it. Called before the first iteration, which starts them.
        """
        self._reader.known = known

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self._batches.count

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for batch in self._loader:
            # Raised in a worker, it would come out as many lines that end in a traceback.
            if isinstance(batch, ArcfaceCakdError):
                try:
                    raise batch
                finally:
                    # The error would hold this frame and the frame the error; ended by the
                    # collector of such cycles, workers are waited for in vain, 5 s each.
                    del batch
            yield batch


class _Batches:
    """The places of one rank's batches, as the sampler of a DataLoader."""

    def __init__(self, keys: np.ndarray, batch_size: int, seed: int, rank: int, world_size: int):
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be 0 to {world_size - 1}, got {rank}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._keys, self._batch_size, self._seed = keys, batch_size, seed
        self._rank, self._world_size = rank, world_size
        self.count = len(keys) // (batch_size * world_size)
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return self.count - self.start

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        epoch = self.epoch
        order = epoch_order(self._keys, self._seed, epoch)
        for batch in range(self.start, self.count):
            begin = (batch * self._world_size + self._rank) * self._batch_size
            yield epoch, order[begin : begin + self._batch_size]


def _as_it_is(batch):
    return batch


def _outlive_a_signal(worker: int) -> None:
    """Pass over the first SIGTERM, which torch's workers die of and their parent with them.

    Batch systems send it to every process of a job, and a run that finishes its step needs its
    workers; they end with it. A second one, as of who wants to be rid of a stuck worker, is obeyed.
    """
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
