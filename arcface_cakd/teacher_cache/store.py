"""The files of a teacher's cache: an index, and an array for each part of its features.

``index.json`` says what the cache is of and which parts are complete; ``<part>.npy`` holds, as
float16 (views, images, 2, ...), a row for each view of each image, unflipped and flipped, images
in the order of their keys. While a part is computed, ``done-<rank>.json`` names what is written.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from arcface_cakd.arrays import map_array
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.features import FaceFeatures
from arcface_cakd.files import open_own, sync, write_text

INDEX = "index.json"
Shapes = dict[str, tuple[int, ...]]  # of a row of each array, by name
FLIPS = 2
_STAGE = "stage"


class CacheError(ArcfaceCakdError):
    """A teacher's cache that cannot be used or made; the message names the folder."""


@dataclass
class Index:
    """``index.json``.

    Attributes:
        identity: what the cache is of, see ``identity``.
        images: of the training set, N.
        views: of each image.
        grid: (H, W) of the tokens, None of a teacher that gives embeddings only.
        parts: shape of a row of each complete part, by name.
    """

    identity: dict[str, Any]
    images: int
    views: int
    grid: tuple[int, int] | None
    parts: Shapes = field(default_factory=dict)

    @property
    def rows(self) -> tuple[int, int, int]:
        """The axes before a row's own."""
        return self.views, self.images, FLIPS


def read_index(folder: Path) -> Index | None:
    """The index of a cache, None where there is none.

    Raises:
        CacheError: it is damaged.
    """
    path = folder / INDEX
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["parts"] = {name: tuple(shape) for name, shape in content["parts"].items()}
        content["grid"] = None if content["grid"] is None else tuple(content["grid"])
        index = Index(**content)
        if not isinstance(index.identity, dict):
            raise TypeError
        return index
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CacheError(
            f"{path}: no index of a teacher's cache: delete the folder, or name another in "
            "cakd.teacher.cache"
        ) from error


def write_index(folder: Path, index: Index) -> None:
    """Write ``index.json``, beside and renamed."""
    write_text(folder / INDEX, json.dumps(vars(index), indent=1) + "\n")


def part_path(folder: Path, part: str) -> Path:
    """The array of a part."""
    return folder / f"{part}.npy"


def bytes_of(index: Index, shape: tuple[int, ...]) -> int:
    """What an array with rows of that shape takes on the disk, but for its header."""
    return math.prod(index.rows) * math.prod(shape) * np.dtype(np.float16).itemsize


def create_part(folder: Path, index: Index, part: str, shape: tuple[int, ...]) -> None:
    """Make the array of a part at its full length, without its numbers."""
    with open_own(part_path(folder, part), "wb") as file:
        _write_header(file, index, shape)
        file.truncate(file.tell() + bytes_of(index, shape))


def has_part(folder: Path, index: Index, part: str, shape: tuple[int, ...]) -> bool:
    """Whether the array of a part is there at its full length."""
    try:
        return _mapped(folder, part).shape == (*index.rows, *shape)
    except CacheError:
        return False


def write_rows(folder: Path, part: str, view: int, position: int, rows: np.ndarray) -> None:
    """Put the rows of consecutive images, float16 (B, 2, ...), in their place in the file.

    By writing and not through a map: on a full disk that is an error and no crash.
    """
    path = part_path(folder, part)
    with open_own(path, "r+b") as file:
        version = npy.read_magic(file)
        assert version == (1, 0)
        (_, images, _, *_), _, _ = npy.read_array_header_1_0(file)
        file.seek((view * images + position) * rows[0].nbytes, 1)
        file.write(np.ascontiguousarray(rows).data)


def sync_parts(folder: Path, parts: Iterable[str]) -> None:
    """Wait until what was written of these is on the disk."""
    for part in parts:
        sync(part_path(folder, part))


def _write_header(file, index: Index, shape: tuple[int, ...]) -> None:
    header = npy.header_data_from_array_1_0(np.empty(0, dtype=np.float16))
    npy.write_array_header_1_0(file, header | {"shape": (*index.rows, *shape)})


def _mapped(folder: Path, part: str) -> np.ndarray:
    path = part_path(folder, part)
    try:
        return map_array(path)
    except ValueError as error:
        raise CacheError(
            f"{path}: missing or cut: delete the folder, and it will be computed anew"
        ) from error


class TeacherCache:
    """Reads what is known of a teacher's features. It may be handed to workers.

    Args:
        folder: of the cache.
        parts: those to read.

    Attributes:
        grid: (H, W) of the tokens, or None.

    Raises:
        CacheError: a file is missing or cut.
    """

    def __init__(self, folder: Path, parts: tuple[str, ...]):
        self._arguments = folder, parts
        index = read_index(folder)
        missing = set(parts) - set(index.parts if index else ())
        if index is None or missing:
            raise CacheError(
                f"{folder}: no complete cache of a teacher's {', '.join(sorted(missing))}: name "
                "it in cakd.teacher.cache of a run, which computes it"
            )
        self.grid = index.grid
        self._arrays = {}
        for part in parts:
            array = _mapped(folder, part)
            if array.shape != (*index.rows, *index.parts[part]) or array.dtype != np.float16:
                raise CacheError(
                    f"{part_path(folder, part)}: {array.dtype} {array.shape}, not what the index "
                    "says: delete the folder, and it will be computed anew"
                )
            self._arrays[part] = array

    def read(self, positions: np.ndarray, flips: np.ndarray, view: int) -> dict[str, np.ndarray]:
        """The rows of some images, float16 (B, ...), by part.

        Args:
            positions: int64 (B,), places of the images in the order of their keys.
            flips: bool (B,), which of them are flipped.
            view: which view of them; 0 without augmentation.
        """
        flipped = flips.astype(np.int64)
        return {part: array[view, positions, flipped] for part, array in self._arrays.items()}

    def __reduce__(self):
        # A mapped array would be pickled with all that it maps.
        return type(self), self._arguments


def as_arrays(features: FaceFeatures, parts: tuple[str, ...]) -> dict[str, Tensor]:
    """The parts of features as a cache keeps them: ``stages`` one by one, as ``stage_<i>``.

    Args:
        parts: some of ``embedding``, ``tokens`` and ``stages``.
    """
    found: dict[str, Tensor] = {}
    for part in parts:
        if part == "stages":
            found |= {f"{_STAGE}_{i}": stage for i, stage in enumerate(features.stages)}
        else:
            found[part] = getattr(features, part)
    return found


def as_features(
    known: dict[str, Tensor], grid: tuple[int, int] | None, device: torch.device | str = "cpu"
) -> FaceFeatures:
    """What was read, as the teacher's features of a batch: float32, on ``device``.

    Args:
        known: float16 (B, ...), by part.
        grid: (H, W) of the tokens, where they are among them.
    """
    found = {name: rows.to(device, non_blocking=True).float() for name, rows in known.items()}
    stages = sorted((int(name.split("_")[1]), name) for name in found if name.startswith(_STAGE))
    tokens = found.get("tokens")
    return FaceFeatures(
        embedding=found["embedding"],
        tokens=tokens,
        grid=None if tokens is None else grid,
        stages=tuple(found[name] for _, name in stages),
    )
