"""Opens a teacher's cache; what it lacks is computed first, by all ranks."""

import contextlib
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import torch

from arcface_cakd.backbones import FaceBackbone
from arcface_cakd.data.reading import Views
from arcface_cakd.distiller import Distiller
from arcface_cakd.distributed import (
    failing_together,
    gather_objects,
    is_main,
    rank,
    world_size,
)
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.locks import try_lock
from arcface_cakd.teacher_cache.computing import Progress, blocks_of, compute
from arcface_cakd.teacher_cache.identity import difference, identity
from arcface_cakd.teacher_cache.store import (
    CacheError,
    Index,
    Shapes,
    TeacherCache,
    as_arrays,
    bytes_of,
    bytes_there,
    create_part,
    has_part,
    read_index,
    reading,
    sums_of,
    way_out,
    write_index,
    writing,
)

logger = logging.getLogger("arcface_cakd")

_LOCK = "lock"
_WAIT = 1.0  # seconds between two looks at whether another run has finished


def open_cache(
    distiller: Distiller, views: Views, *, batch_size: int, num_workers: int
) -> TeacherCache | None:
    """The cache in ``cakd.teacher.cache``, with what a step uses of the unprompted teacher.

    Arrays that the folder lacks are computed and added: by every rank its share, in blocks, from
    where a former run stopped. Where another run is about it, this one waits. A collective, with
    one folder for all ranks. No random number is drawn.

    Args:
        distiller: on the device and in the precision of the run.
        views: the training set as the run sees it, with augmentation a number of views.
        batch_size: images that the teacher sees at a time while it computes.
        num_workers: processes that decode meanwhile.

    Returns:
        None where ``cakd.teacher.cache`` is not set, and where a step uses nothing of the
        unprompted teacher, which ``without_effect`` says.

    Raises:
        CacheError: the cache is of something else, the disk is too small, the folder cannot be
            read or written, a value does not fit float16, or the ranks do not see one folder.
        RecordIOError, DataError: the training set cannot be read.
    """
    settings, parts = distiller.config.teacher, distiller.known_parts
    if settings["cache"] is None or not parts:
        return None
    teacher, folder = distiller.teacher, Path(settings["cache"])
    device = next(distiller.student.parameters()).device
    with failing_together():
        own = identity(teacher, settings, views)
        shapes = _shapes(teacher, parts, device)
    index = Index(own, len(views.images), own["number of views"], teacher.grid)
    _check_same_on_every_rank(own)

    with contextlib.ExitStack() as holding:
        looks = 0
        while not _has_all(folder, index, shapes):
            if looks == 0:
                lock = holding.enter_context(_lock(folder))
            looks += 1
            if not _take(lock):
                if is_main() and looks == 1:
                    logger.info("cakd.teacher.cache %s: waiting for a run that computes it", folder)
                time.sleep(_WAIT)
            elif not _has_all(folder, index, shapes):  # it may have been completed meanwhile
                lacking = _prepare(folder, index, shapes)
                progress = Progress(folder, tuple(lacking))
                blocks = blocks_of(index.views, index.images)
                # Rank 0's word: another rank may look when the first blocks are marked already.
                done = gather_objects(progress.done())[0]
                left = [block for block in blocks if block.number not in done]
                with failing_together():
                    compute(
                        teacher,
                        views,
                        folder,
                        parts,
                        left[rank() :: world_size()],
                        progress,
                        names=frozenset(lacking),
                        device=device,
                        batch_size=batch_size,
                        num_workers=num_workers,
                    )
                _complete(folder, lacking, progress, len(blocks))
    with failing_together():
        cache = TeacherCache(folder, tuple(shapes))
    if cache.unchecked and is_main():
        logger.warning(
            "cakd.teacher.cache %s: a former version wrote %s, without checksums: damage to its "
            "numbers cannot be seen",
            folder,
            ", ".join(cache.unchecked),
        )
    return cache


@torch.no_grad()
def _shapes(teacher: FaceBackbone, parts: tuple[str, ...], device: torch.device) -> Shapes:
    """The shape of a row of each array."""
    image = torch.zeros(1, 3, CROP_SIZE, CROP_SIZE, device=device)
    arrays = as_arrays(teacher.forward_features(image, stages="stages" in parts), parts)
    return {name: tuple(array.shape[1:]) for name, array in arrays.items()}


def _check_same_on_every_rank(own: dict) -> None:
    first, *others = gather_objects(own)
    for number, other in enumerate(others, 1):
        differs = difference(first, other)
        if differs:
            raise CacheError(
                f"cakd.teacher.cache: rank 0 has {differs} than rank {number}: put the same files "
                "and the same version of arcface_cakd on every machine"
            )


def _has_all(folder: Path, index: Index, shapes: Shapes) -> bool:
    """Whether the cache is complete for this run; a collective.

    Raises:
        CacheError: the folder holds something else, or only some ranks see it.
    """
    with failing_together():
        there = read_index(folder)
        if there is None:
            _check_free(folder)
        else:
            differs = difference(there.identity, index.identity)
            if differs:
                raise CacheError(f"cakd.teacher.cache {folder} is of {differs}: {way_out(folder)}")
        found = there is not None and shapes.keys() <= there.parts.keys()
    seen = gather_objects(found)
    if seen[0] and not all(seen):
        raise _not_one_folder(folder, seen.index(False))
    return seen[0]


def _check_free(folder: Path) -> None:
    """A folder without an index may hold nothing: our files could meet the user's own."""
    with contextlib.suppress(FileNotFoundError), reading(folder):
        other = next((p for p in folder.iterdir() if p.name != _LOCK and p.name[0] != "."), None)
        # Another run may have begun a cache between the two looks.
        if other is not None and read_index(folder) is None:
            raise CacheError(
                f"cakd.teacher.cache {folder} holds {other.name} and no index of a cache: name a "
                "new or empty folder"
            )


def _not_one_folder(folder: Path, number: int) -> CacheError:
    return CacheError(
        f"cakd.teacher.cache {folder}: rank {number} does not see what rank 0 wrote there: name a "
        "folder that all machines share"
    )


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[IO | None]:
    """The file that rank 0 of the run which computes holds locked; it goes with the process.

    No ``FolderLock``, which refuses whoever comes second: here that one waits, and then reads.
    """
    file = None
    with failing_together(), writing(folder):
        if is_main():
            folder.mkdir(parents=True, exist_ok=True)
            file = open(folder / _LOCK, "a")  # noqa: SIM115, closed below
    try:
        yield file
    finally:
        if file is not None:
            file.close()


def _take(lock: IO | None) -> bool:
    """Whether this run is the one that computes from here on; a collective."""
    return gather_objects(lock is None or try_lock(lock))[0]


def _prepare(folder: Path, index: Index, shapes: Shapes) -> Shapes:
    """Make the files of the arrays that are not complete, and return those; a collective.

    Raises:
        CacheError: they do not fit on the disk, cannot be made, or a rank does not see them.
    """
    lacking: Shapes = {}
    with failing_together(), writing(folder):
        if is_main():
            there = read_index(folder)
            if there is None:
                write_index(folder, index)
                there = index
            lacking = {name: s for name, s in shapes.items() if name not in there.parts}
            _make_room(folder, index, lacking)
    lacking = gather_objects(lacking)[0]
    with failing_together():
        here = all(has_part(folder, index, *item) for item in lacking.items())
    seen = gather_objects(here)
    if not all(seen):
        raise _not_one_folder(folder, seen.index(False))
    return lacking


def _make_room(folder: Path, index: Index, lacking: Shapes) -> None:
    progress, blocks = Progress(folder, tuple(lacking)), blocks_of(index.views, index.images)
    done = progress.done()
    goes_on = bool(done) and all(has_part(folder, index, *item) for item in lacking.items())
    whole = sum(bytes_of(index, shape) for shape in lacking.values())
    kept = sum(bytes_there(folder, name) for name in lacking) if goes_on else 0
    free = shutil.disk_usage(folder).free
    logger.info(
        "cakd.teacher.cache %s: %s of %d images, both flips%s: takes %s of the %s that are free; "
        "%d of %d blocks to compute",
        folder,
        ", ".join(lacking),
        index.images,
        f", {index.views} views" if index.views > 1 else "",
        _size(whole),
        _size(free),
        len(blocks) - (len(done) if goes_on else 0),
        len(blocks),
    )
    if whole - kept > free:
        raise CacheError(
            f"cakd.teacher.cache {folder} needs {_size(whole - kept)} and {_size(free)} are free: "
            "make room, or name a folder on another disk"
        )
    if not goes_on:
        progress.clear()
        for name, shape in lacking.items():
            create_part(folder, index, name, shape)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"


def _complete(folder: Path, computed: Shapes, progress: Progress, blocks: int) -> None:
    """Enter in the index what has been computed; a collective.

    Raises:
        CacheError: some of so many ``blocks`` is not there, or the index cannot be written.
    """
    with failing_together(), writing(folder):
        if is_main():
            there = read_index(folder)
            if there is None or len(progress.done()) < blocks:
                raise CacheError(
                    f"cakd.teacher.cache {folder}: what the other ranks computed is not there: "
                    "name a folder that all machines share"
                )
            there.parts |= computed | {sums_of(name): () for name in computed}
            write_index(folder, there)
            progress.clear()
