"""The files of a teacher's cache: an index, and two arrays for each part of its features.

``index.json`` says what the cache is of and which parts are complete; ``<part>.npy`` holds, as
float16 (views, images, 2, ...), a row for each view of each image, unflipped and flipped, images
in the order of their keys, and ``<part>.crc32.npy`` the checksum of each row, uint32 (views,
images, 2). While a part is computed, ``done-<rank>.json`` names what is written.
"""

import contextlib
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator
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
from arcface_cakd.files import DISK_IS_FULL, open_own, sync, write_text

INDEX = "index.json"
Shapes = dict[str, tuple[int, ...]]  # of a row of each array, by name
FLIPS = 2
_STAGE = "stage"
_ROW, _SUM = np.dtype(np.float16), np.dtype(np.uint32)
# What a folder may hold that a message advises to delete.
_OURS = re.compile(
    r"lock|(index|done-\d+)\.json|\.(index|done-\d+)\..+\.partial\.json"
    rf"|(embedding|tokens|{_STAGE}_\d+)(\.crc32)?\.npy"
)


class CacheError(ArcfaceCakdError):
    """A teacher's cache that cannot be used or made; the message names the folder."""


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turns an OSError of what is read in a cache into a ``CacheError``, but where it is absent."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CacheError(
            f"cakd.teacher.cache {error.filename or folder} cannot be read "
            f"({error.strerror or error}): name a folder that this run can read"
        ) from error


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns an OSError of what is written to a cache into a ``CacheError`` that names it."""
    try:
        yield
    except OSError as error:
        way = "make it writable, or name another folder"
        if error.errno in DISK_IS_FULL:
            way = "make room, and the next run goes on from here, or name a folder on another disk"
        raise CacheError(
            f"cakd.teacher.cache {folder} lacks what this run needs and cannot be written "
            f"({error.strerror or error}): {way}"
        ) from error


def way_out(folder: Path) -> str:
    """What to do about a cache that cannot be used; nobody is told to delete files of his own."""
    with reading(folder):
        other = next((p.name for p in folder.iterdir() if not _OURS.fullmatch(p.name)), None)
    if other is None:
        return "delete the folder, or name another"
    return f"name another folder, as this one holds {other} too"


@dataclass
class Index:
    """``index.json``.

    Attributes:
        identity: what the cache is of, see ``identity``.
        images: of the training set, N.
        views: of each image.
        grid: (H, W) of the tokens, None of a teacher that gives embeddings only.
        parts: shape of a row of each complete part, by name; and that of its checksums, by
            ``sums_of``, unless a version wrote it that had none.
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
        CacheError: it is damaged, or cannot be read.
    """
    path = folder / INDEX
    try:
        with reading(folder):
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
            f"{path}: no index of a teacher's cache: name another folder in cakd.teacher.cache"
        ) from error


def write_index(folder: Path, index: Index) -> None:
    """Write ``index.json``, beside and renamed."""
    write_text(folder / INDEX, json.dumps(vars(index), indent=1) + "\n")


def part_path(folder: Path, part: str) -> Path:
    """The array of a part."""
    return folder / f"{part}.npy"


def sums_of(part: str) -> str:
    """The name of the array with the checksums of a part's rows."""
    return f"{part}.crc32"


def bytes_of(index: Index, shape: tuple[int, ...]) -> int:
    """What a part with rows of that shape takes on the disk, but for its files' headers."""
    return math.prod(index.rows) * (math.prod(shape) * _ROW.itemsize + _SUM.itemsize)


def bytes_there(folder: Path, part: str) -> int:
    """What the files of a part take on the disk now."""
    return sum(part_path(folder, name).stat().st_blocks * 512 for name in (part, sums_of(part)))


def create_part(folder: Path, index: Index, part: str, shape: tuple[int, ...]) -> None:
    """Make the arrays of a part at their full length, without their numbers."""
    _create(folder, part, (*index.rows, *shape), _ROW)
    _create(folder, sums_of(part), index.rows, _SUM)


def has_part(folder: Path, index: Index, part: str, shape: tuple[int, ...]) -> bool:
    """Whether the arrays of a part are there at their full length.

    Raises:
        CacheError: one is there and cannot be read.
    """
    arrays = _mapped(folder, part), _mapped(folder, sums_of(part))
    shapes = [None if array is None else array.shape for array in arrays]
    return shapes == [(*index.rows, *shape), index.rows]


def write_rows(folder: Path, part: str, view: int, position: int, rows: np.ndarray) -> None:
    """Put the rows of consecutive images, float16 (B, 2, ...), in their place, and their checksums.

    By writing and not through a map: on a full disk that is an error and no crash.
    """
    _write(folder, part, view, position, rows)
    sums = _checksums(rows.reshape(-1, *rows.shape[2:])).reshape(rows.shape[:2])
    _write(folder, sums_of(part), view, position, sums)


def sync_parts(folder: Path, parts: Iterable[str]) -> None:
    """Wait until what was written of these is on the disk."""
    for part in parts:
        sync(part_path(folder, part))
        sync(part_path(folder, sums_of(part)))


def _create(folder: Path, name: str, shape: tuple[int, ...], kind: np.dtype) -> None:
    with open_own(part_path(folder, name), "wb") as file:
        header = npy.header_data_from_array_1_0(np.empty(0, dtype=kind))
        npy.write_array_header_1_0(file, header | {"shape": shape})
        file.truncate(file.tell() + math.prod(shape) * kind.itemsize)


def _write(folder: Path, name: str, view: int, position: int, rows: np.ndarray) -> None:
    with open_own(part_path(folder, name), "r+b") as file:
        version = npy.read_magic(file)
        assert version == (1, 0)
        (_, images, _, *_), _, _ = npy.read_array_header_1_0(file)
        file.seek((view * images + position) * rows[0].nbytes, 1)
        file.write(np.ascontiguousarray(rows).data)


def _checksums(rows: np.ndarray) -> np.ndarray:
    """CRC-32 of each row, uint32 (B,)."""
    return np.array([zlib.crc32(row) for row in np.ascontiguousarray(rows)], dtype=_SUM)


def _mapped(folder: Path, name: str) -> np.ndarray | None:
    """An array; None where it is missing or cut."""
    path = part_path(folder, name)
    try:
        return map_array(path)
    except ValueError as error:
        reason = error.__cause__
        if isinstance(reason, OSError) and not isinstance(reason, FileNotFoundError):
            with reading(folder):
                raise reason from None
        return None


def _complete(folder: Path, index: Index, name: str, kind: np.dtype) -> np.ndarray:
    """An array of those that the index says are complete."""
    array = _mapped(folder, name)
    if array is None:
        raise CacheError(f"{part_path(folder, name)}: missing or cut: {way_out(folder)}")
    if array.shape != (*index.rows, *index.parts[name]) or array.dtype != kind:
        raise CacheError(
            f"{part_path(folder, name)}: {array.dtype} {array.shape}, not what the index says: "
            f"{way_out(folder)}"
        )
    return array


class TeacherCache:
    """Reads what is known of a teacher's features. It may be handed to workers.

    Args:
        folder: of the cache.
        parts: those to read.

    Attributes:
        grid: (H, W) of the tokens, or None.
        unchecked: those of which no checksums are there, as a former version wrote none.

    Raises:
        CacheError: a file is missing, cut, or cannot be read.
    """

    def __init__(self, folder: Path, parts: tuple[str, ...]):
        self._arguments = folder, parts
        self._folder = folder
        index = read_index(folder)
        missing = set(parts) - set(index.parts if index else ())
        if index is None or missing:
            raise CacheError(
                f"{folder}: no complete cache of a teacher's {', '.join(sorted(missing))}: name "
                "it in cakd.teacher.cache of a run, which computes it"
            )
        self.grid = index.grid
        self._arrays = {part: _complete(folder, index, part, _ROW) for part in parts}
        self._sums = {
            part: _complete(folder, index, sums_of(part), _SUM)
            for part in parts
            if sums_of(part) in index.parts
        }
        self.unchecked = tuple(part for part in parts if part not in self._sums)

    def read(self, positions: np.ndarray, flips: np.ndarray, view: int) -> dict[str, np.ndarray]:
        """The rows of some images, float16 (B, ...), by part, held against their checksums.

        Args:
            positions: int64 (B,), places of the images in the order of their keys.
            flips: bool (B,), which of them are flipped.
            view: which view of them; 0 without augmentation.

        Raises:
            CacheError: a row is not what was written.
        """
        places = view, positions, flips.astype(np.int64)
        found = {part: array[places] for part, array in self._arrays.items()}
        for part, sums in self._sums.items():
            right = _checksums(found[part]) == sums[places]
            if not right.all():
                raise CacheError(
                    f"{part_path(self._folder, part)}: damaged, as the row of image "
                    f"{positions[right.argmin()]} does not have its checksum: "
                    f"{way_out(self._folder)}"
                )
        return found

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
