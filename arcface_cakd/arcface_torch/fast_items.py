"""arcface_torch's training items, the same to the bit, read and decoded faster."""

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from arcface_cakd.arcface_torch.user_errors import exiting_on_user_error
from arcface_cakd.config import CakdConfig, ConfigError
from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_landmarks import FaceLandmarks
from arcface_cakd.data.images import decode_crop
from arcface_cakd.data.record_layout import image_keys, warn_of_unindexed
from arcface_cakd.data.records import split
from arcface_cakd.data.tensors import normalised
from arcface_cakd.distributed import is_main
from arcface_cakd.landmarks import mirror
from arcface_cakd.recordio import MXIndexedRecordIO, RecordIOError, unpack

logger = logging.getLogger("arcface_cakd")


class FaceItems(Dataset):
    """The images of ``<root_dir>/train.rec`` as the host's MXFaceDataset gives them.

    An item is ``(image, label)``: float32 (3, 112, 112) RGB in [-1, 1], flipped left to right
    where one ``torch.rand(1)``, drawn after decoding, is below 0.5; and the first label of the
    record, as int64 (). The numbers and the use of torch's random numbers are the host's to the
    bit. It may be handed to workers by fork or pickle.

    With ``landmarks`` or ``places`` the label is float64 (1 + 10 + 2,), or less where one of them
    is not asked for: the same; x and y of each landmark of the image as it is flipped; the
    image's place in the order of the keys, and 1 where it is flipped. ``labels`` takes them apart.

    Args:
        root_dir: the data set.
        keys: (N,) keys of the images, in the host's order.
        landmarks: whether the landmarks of the images are needed, see ``FaceLandmarks``.
        places: whether their places and flips are, which a teacher's cache goes by.

    Raises:
        RecordIOError: a record file is missing, cut or foreign; of an item: a damaged record.
        ConfigError: ``places`` of keys that are not those of the images as we find them.
        DataError: of an item: no image record, or an image that does not decode or is not
            112 x 112.
    """

    def __init__(
        self,
        root_dir: str | os.PathLike,
        keys: np.ndarray,
        landmarks: bool = False,
        places: bool = False,
    ):
        self.keys = keys
        self.landmarks = FaceLandmarks(Path(root_dir), len(keys)) if landmarks else None
        self.places = places
        # Landmarks and caches follow the keys: the rank of each image's own.
        rides = landmarks or places
        self._rows = np.argsort(np.argsort(keys)) if rides else np.empty(0, dtype=np.int64)
        self.reader = _open_records(root_dir)
        if places and not np.array_equal(np.sort(keys), image_keys(self.reader)[0]):
            raise ConfigError(
                f"cakd.teacher.cache: this arcface_torch takes other images of {self.reader.uri} "
                "than record 0 announces: drop the setting"
            )

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        key = int(self.keys[index])
        payload = self.reader.read_idx(key)
        try:
            encoded, label = split(payload)
            pixels = decode_crop(encoded)
            face = None if self.landmarks is None else self.landmarks[self._rows[index]]
        except DataError as error:
            raise DataError(f"{self.reader.uri}, key {key}: {error}") from error
        flip = bool(torch.rand(1) < 0.5)
        if flip:
            pixels = pixels[:, ::-1]
            face = None if face is None else mirror(face)
        planes = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        image = normalised(planes)
        riding = [] if face is None else [*face.ravel()]
        if self.places:
            riding += [self._rows[index], flip]
        if riding:
            return image, torch.tensor([int(label), *riding], dtype=torch.float64)
        return image, torch.tensor(int(label), dtype=torch.int64)


def faster_items(train_loader: Any, cfg: Any) -> Any:
    """The host's loader, over ``FaceItems`` where ``config.fast_items`` is true.

    So it is also where ``cakd.urfm.landmarks`` is ``"image"`` or ``cakd.teacher.cache`` is set, for
    landmarks, places and flips ride with the labels until ``labels`` takes them.

    Args:
        train_loader: what the host's ``get_dataloader`` returned.
        cfg: the host's config.

    Returns:
        ``train_loader`` itself where none of this is asked for, and, with a warning in the log,
        where its data is none that ``FaceItems`` stands for: DALI, synthetic images, a folder of
        images, or a fork's own transforms. Else a loader of the same class with the same
        sampler, workers and seeds, whose batches are the same to the bit.

    A damaged record file or index ends the program with one line, as do landmarks that the data
    set lacks, ``config.augment``, which only our own loader has, and a record 0 by which the host
    would leave out images, or take for one what is none; where nothing is asked for that is a
    warning.
    """
    landmarks = places = False
    with exiting_on_user_error():
        if isinstance(cfg.get("augment"), Mapping):  # else it is a fork's own
            raise ConfigError(
                "config.augment is of arcface-cakd train, and arcface_torch's loader has no place "
                "for it: drop it, or train there"
            )
        if cfg.get("cakd") is not None:
            config = CakdConfig.from_entry(cfg.cakd)
            landmarks, places = config.needs_landmarks, config.teacher["cache"] is not None
            if config.teacher["cached_views"] is not None:
                raise ConfigError(
                    "cakd.teacher.cached_views counts views that config.augment makes, which "
                    "arcface_torch's loader has no place for: drop it"
                )
    _hold_against_records(train_loader, strict=bool(cfg.get("cakd") or cfg.get("fast_items")))
    if not cfg.get("fast_items") and not landmarks and not places:
        return train_loader
    obstacle = _obstacle(train_loader)
    if obstacle and (landmarks or places):
        with exiting_on_user_error():
            if places:
                raise ConfigError(f"cakd.teacher.cache cannot be had here: {obstacle}; drop it")
            raise ConfigError(
                f'cakd.urfm.landmarks="image" cannot be had here: {obstacle}; set it to "template"'
            )
    if obstacle:
        if is_main():
            logger.warning("config.fast_items has no effect: %s", obstacle)
        return train_loader
    with exiting_on_user_error():
        dataset = train_loader.dataset
        items = FaceItems(dataset.root_dir, np.asarray(dataset.imgidx), landmarks, places)
    return type(train_loader)(
        local_rank=train_loader.local_rank,
        dataset=items,
        batch_size=train_loader.batch_size,
        sampler=train_loader.sampler,
        num_workers=train_loader.num_workers,
        collate_fn=train_loader.collate_fn,
        pin_memory=train_loader.pin_memory,
        drop_last=train_loader.drop_last,
        timeout=train_loader.timeout,
        worker_init_fn=train_loader.worker_init_fn,
        multiprocessing_context=train_loader.multiprocessing_context,
        generator=train_loader.generator,
        prefetch_factor=train_loader.prefetch_factor,
        persistent_workers=train_loader.persistent_workers,
    )


def _open_records(root_dir: str | os.PathLike) -> MXIndexedRecordIO:
    return MXIndexedRecordIO(
        os.path.join(root_dir, "train.idx"), os.path.join(root_dir, "train.rec"), "r"
    )


def _hold_against_records(loader: Any, strict: bool) -> None:
    """Say where the host takes other records for images than those that carry one.

    Its MXFaceDataset trusts record 0: it would train on a part of a set, or fail in the middle of
    an epoch. A fork that leaves out images on purpose is told what it leaves out.

    Args:
        loader: the host's.
        strict: whether to end the program where record 0 is to blame; else it is a warning.
    """
    dataset = getattr(loader, "dataset", None)
    if type(dataset).__name__ != "MXFaceDataset":
        return
    opened = getattr(dataset, "imgrec", None)
    taken, folder = getattr(dataset, "imgidx", None), getattr(dataset, "root_dir", None)
    if taken is None or folder is None:
        return
    if not strict and not isinstance(opened, MXIndexedRecordIO):
        return  # mxnet's own reader: the index is not read again for a warning
    with exiting_on_user_error() if strict else contextlib.suppress(DataError, RecordIOError):
        reader = opened if isinstance(opened, MXIndexedRecordIO) else _open_records(folder)
        images, _ = image_keys(reader)
        if is_main():
            warn_of_unindexed(reader, images)
        if np.array_equal(images, taken):  # which is quick
            return
        lost = len(np.setdiff1d(images, taken))
        extra = len(np.setdiff1d(taken, images))
        if not lost and not extra:
            return
        blamed = extra or _is_as_record_0_says(reader, taken)
        problem = (
            f"{reader.uri}: arcface_torch takes {len(taken)} records for images"
            f"{', by record 0' if blamed else ''}; {lost} images are left out and {extra} are none"
        )
        if blamed:
            problem += ": 'arcface-cakd data renumber' writes a set that it reads whole"
        if strict and blamed:
            raise DataError(problem)
        if is_main():
            logger.warning("%s", problem)


def _is_as_record_0_says(reader: MXIndexedRecordIO, taken: np.ndarray) -> bool:
    """Whether the host's keys are those that it computes from the first label of record 0."""
    header, _ = unpack(reader.read_idx(0))
    return bool(header.flag) and np.array_equal(taken, np.arange(1, int(header.label[0])))


def _obstacle(loader: Any) -> str | None:
    """What keeps ``FaceItems`` from standing for the loader's data set; None: nothing does."""
    if not isinstance(loader, DataLoader) or not hasattr(loader, "local_rank"):
        return f"a {type(loader).__name__} is not the host's DataLoaderX"
    dataset = loader.dataset
    if type(dataset).__name__ != "MXFaceDataset":
        return f"it is for train.rec, and {type(dataset).__name__} reads other data"
    if not (hasattr(dataset, "root_dir") and hasattr(dataset, "imgidx")):
        return "this MXFaceDataset has no root_dir and imgidx"
    if _settings(getattr(dataset, "transform", None)) != _HOST_TRANSFORMS:
        return "the transforms of this MXFaceDataset are not arcface_torch's"
    return None


_HALF = (0.5, 0.5, 0.5)
_HOST_TRANSFORMS = [
    ("ToPILImage", {"mode": None}),
    ("RandomHorizontalFlip", {"p": 0.5}),
    ("ToTensor", {}),
    ("Normalize", {"mean": _HALF, "std": _HALF}),
]


def _settings(transform: Any) -> list[tuple[str, dict]] | None:
    """The names of composed transforms and what tells them from others of their kind."""
    steps = getattr(transform, "transforms", None)
    if steps is None:
        return None
    found = []
    for step in steps:
        own = {k: getattr(step, k) for k in ("mode", "p", "mean", "std") if hasattr(step, k)}
        own = {k: tuple(v) if isinstance(v, list) else v for k, v in own.items()}
        found.append((type(step).__name__, own))
    return found
