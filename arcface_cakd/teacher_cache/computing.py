"""Computes a teacher's features of every image, in blocks, so that a stopped run can go on."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from arcface_cakd.backbones import FaceBackbone
from arcface_cakd.data.one_pass import OnePass
from arcface_cakd.data.reading import Views
from arcface_cakd.data.tensors import normalised
from arcface_cakd.distributed import is_main, rank
from arcface_cakd.files import write_text
from arcface_cakd.progress import track
from arcface_cakd.teacher_cache.store import (
    CacheError,
    as_arrays,
    sync_parts,
    write_rows,
    writing,
)

BLOCK = 512  # images of a view that are computed, written and then marked as done


@dataclass(frozen=True)
class Block:
    """Consecutive images of a view: ``start`` up to ``stop``."""

    number: int
    view: int
    start: int
    stop: int


def blocks_of(views: int, images: int) -> list[Block]:
    """All images of all views."""
    starts = [(view, start) for view in range(views) for start in range(0, images, BLOCK)]
    return [
        Block(number, view, start, min(start + BLOCK, images))
        for number, (view, start) in enumerate(starts)
    ]


class Progress:
    """Which blocks are done: each rank marks its own, and all are read.

    Args:
        folder: of the cache.
        names: of the arrays that are computed; what was marked of others does not count.
    """

    def __init__(self, folder: Path, names: tuple[str, ...]):
        self._folder = folder
        self._names = sorted(names)
        self._path = folder / f"done-{rank()}.json"
        self._own: list[int] = []

    def done(self) -> set[int]:
        """The numbers of the blocks that some rank of this run or an earlier one has written."""
        found: set[int] = set()
        for path in self._folder.glob("done-*.json"):
            content = self._read(path)
            if content is not None:
                found |= set(content)
        self._own = self._read(self._path) or []
        return found

    def mark(self, number: int) -> None:
        """Add a block, which has been written."""
        self._own.append(number)
        content = {"arrays": self._names, "block": BLOCK, "blocks": self._own}
        write_text(self._path, json.dumps(content))

    def clear(self) -> None:
        """Forget everything, of every rank."""
        for path in self._folder.glob("done-*.json"):
            path.unlink(missing_ok=True)

    def _read(self, path: Path) -> list[int] | None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            same = content["arrays"] == self._names and content["block"] == BLOCK
            return [int(number) for number in content["blocks"]] if same else None
        except (ValueError, LookupError, TypeError, OSError):
            return None


def compute(
    teacher: FaceBackbone,
    views: Views,
    folder: Path,
    parts: tuple[str, ...],
    blocks: list[Block],
    progress: Progress,
    *,
    names: frozenset[str],
    device: torch.device,
    batch_size: int,
    num_workers: int,
) -> None:
    """Compute, write and mark these blocks, of both flips. No collective.

    Args:
        teacher: on ``device``, in eval mode.
        views: the training set.
        folder: with the arrays of ``names``.
        parts: what the arrays are of, see ``as_arrays``.
        blocks: this rank's share.
        progress: where they are marked.
        names: of the arrays to write.
        device: where the teacher computes.
        batch_size: images that the teacher sees at a time, each in both flips after the other.
        num_workers: processes that decode.

    Raises:
        CacheError: a value that float16 does not hold, or the folder cannot be written.
        RecordIOError, DataError: an image cannot be read.
    """
    batches = [
        (block, np.arange(start, min(start + batch_size, block.stop)))
        for block in blocks
        for start in range(block.start, block.stop, batch_size)
    ]
    told = [(block.view, positions) for block, positions in batches]
    loader = OnePass(views, told, num_workers)
    shown = track(loader, "the teacher's cache", unit="batches") if is_main() else loader
    for (block, positions), (planes, _) in zip(batches, shown, strict=True):
        images = normalised(planes.to(device))
        for name, rows in _both_flips(teacher, images, parts).items():
            if name not in names:
                continue
            _check_fits(rows, name, views, positions)
            with writing(folder):
                write_rows(folder, name, block.view, int(positions[0]), rows.numpy())
        if positions[-1] + 1 == block.stop:
            with writing(folder):
                sync_parts(folder, names)
                progress.mark(block.number)


@torch.no_grad()
def _both_flips(teacher: FaceBackbone, images: Tensor, parts: tuple[str, ...]) -> dict[str, Tensor]:
    """Rows (B, 2, ...) by name, on the CPU, in float16 with what that makes of them."""
    plain, flipped = (
        as_arrays(teacher.forward_features(side, stages="stages" in parts), parts)
        for side in (images, images.flip(-1))
    )
    return {
        name: torch.stack([rows, flipped[name]], dim=1).half().cpu() for name, rows in plain.items()
    }


def _check_fits(rows: Tensor, name: str, views: Views, positions: np.ndarray) -> None:
    fits = rows.flatten(1).isfinite().all(1)
    if not fits.all():
        where = views.images.describe(int(positions[int(fits.int().argmin())]))
        raise CacheError(
            f"{where}: the teacher's {name} is not finite in float16, which ends at 65504: such a "
            "teacher cannot be cached, drop cakd.teacher.cache"
        )
