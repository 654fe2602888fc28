"""Whether all of a data set can be read: every record, every image, every file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from arcface_cakd.data.bins import decode_face, load_bin, pairs_problem
from arcface_cakd.data.crop_landmarks import crop_landmarks
from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_landmarks import FaceLandmarks, find_landmarks
from arcface_cakd.data.folder import identity_folders
from arcface_cakd.data.image_tree import image_tree
from arcface_cakd.data.images import decode_crop
from arcface_cakd.data.inspection import landmarks_of, open_records, parts_of
from arcface_cakd.data.labels import LabelSurvey, identity
from arcface_cakd.data.record_layout import MAX_EXACT, image_keys, index_remedy, read_property
from arcface_cakd.data.records import property_misfit, split
from arcface_cakd.progress import track
from arcface_cakd.recordio import RecordIOError, unpack
from arcface_cakd.recordio.block_digests import BlockDigests, digests_path
from arcface_cakd.recordio.index import RecordIndex
from arcface_cakd.recordio.scan import scan
from arcface_cakd.recordio.unindexed import unindexed_ranges

Damage = dict[str, Any]
_BLOCK = 2**16  # keys that are Python's numbers at a time


def verify(path: str | Path, *, labelled: bool = True) -> tuple[int, list[Damage]]:
    """Read and decode all of a data set.

    Every record that carries an image is decoded, whatever record 0 says; a file that cannot be
    read as a whole is a damage, and the others are read.

    Args:
        path, labelled: as in ``inspect``.

    Returns:
        how many items were read, and for each damaged one ``path``, ``key`` (a record's key, an
        image's number in a ``.bin``, else None), ``byte`` (offset in the file, or None) and
        ``problem``.

    Raises:
        DataError: no such path, or a file of another kind.
    """
    count, damages = 0, []
    for kind, item in parts_of(path, labelled=labelled):
        try:
            for damage in _VERIFIERS[kind](item):
                count += 1
                if damage is not None:
                    damages.append(damage)
        except DataError as error:
            damages.append(_damage(item, None, None, error))
    return count, damages


class _Labels:
    """Labels that were seen."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def check(self, payload: bytes, allowed: int, must_be_image: bool) -> None:
        """Decode an image record and note its label.

        Raises:
            DataError: all that is wrong with it.
        """
        encoded, label = split(payload)
        if not len(encoded) and not must_be_image:
            unpack(payload)
            return
        problems = []
        try:
            self.seen.add(identity(label, allowed))
        except DataError as error:
            problems.append(str(error))
        try:
            decode_crop(encoded, strict=True)
        except DataError as error:
            problems.append(str(error))
        if problems:
            raise DataError("; ".join(problems))

    def misfit(self, folder: Path, stated: int | None, headers: int, unread: int) -> str | None:
        """What is wrong with ``property``, which labels of ``unread`` records may account for."""
        if not self.seen or (stated and stated <= max(self.seen) + 1 + unread):
            return None
        found = LabelSurvey(min(self.seen), max(self.seen), len(self.seen), 0, complete=True)
        return property_misfit(folder, stated, headers, found)


def _verify_records(path: Path) -> Iterator[Damage | None]:
    try:
        reader = open_records(path)
    except RecordIOError as error:
        yield _damage(Path(error.path or path), None, error.offset, error)
        if path.is_file():
            yield from _verify_unindexed(path)
        return
    if digests_path(path).is_file():
        yield from _verify_digests(path)
    index = reader.idx
    assert isinstance(index, RecordIndex)  # whose keys are integers
    keys = index.sorted_keys
    announced = np.zeros(len(keys), dtype=bool)
    ends = np.full(len(keys), -1, dtype=np.int64)
    stated, headers, fits = None, 0, False
    try:
        images, identity_keys = image_keys(reader)
        announced[index.positions(images)] = True
        headers = len(identity_keys)
        fits = True
    except (DataError, RecordIOError) as error:
        yield _damage(path, getattr(error, "key", 0), None, error)
    property_file = path.parent / "property"
    try:
        stated = read_property(path.parent)
    except DataError as error:
        yield _damage(property_file, None, None, error)
    labels, damaged = _Labels(), 0
    tracked = track(_pairs(keys, announced), f"verifying {path.name}", len(keys), unit="records")
    for position, (key, must_be_image) in enumerate(tracked):
        try:
            payload = reader.read_idx(key)
            ends[position] = reader.tell()
            labels.check(payload, stated or MAX_EXACT, must_be_image)
        except (DataError, RecordIOError) as error:
            damaged += 1
            yield _damage(path, key, index[key], error)
        else:
            yield None
    if fits:  # else what the index lacks is a part of what was said
        order, size = np.argsort(index.offsets), len(reader.mapped())
        begins = np.append(index.offsets[order], size)
        after = np.concatenate([[0], ends[order]])
        yield from _verify_index(path, unindexed_ranges(after, begins, size))
    misfit = labels.misfit(path.parent, stated, headers, damaged)
    if misfit:
        yield _damage(property_file, None, None, DataError(misfit))
    landmarks = landmarks_of(path)
    if landmarks is not None:
        count = int(announced.sum())
        yield from _verify_landmarks(landmarks, lambda: FaceLandmarks(path.parent, count))


def _verify_index(path: Path, ranges: np.ndarray) -> Iterator[Damage]:
    """One damage for all records that the index lacks, however many places they are in."""
    if not len(ranges):
        return
    lacking = 0
    for begin, end in track(ranges.tolist(), "counting what the index lacks", unit="places"):
        for offset, record in scan(path, begin, end):
            if isinstance(record, RecordIOError):  # which no index can name
                yield _damage(path, None, offset, record)
            else:
                lacking += 1
    if not lacking:
        return
    places = f", in {len(ranges)} places" if len(ranges) > 1 else ""
    problem = f"the index lacks {lacking} records, this one first{places}: {index_remedy(path)}"
    yield _damage(path, None, int(ranges[0, 0]), DataError(problem))


def _verify_digests(path: Path) -> Iterator[Damage]:
    try:
        damages = BlockDigests(path).damages()
    except RecordIOError as error:
        damages = [error]
    for damage in damages:
        yield _damage(Path(damage.path or path), None, damage.offset, damage)


def _pairs(keys: np.ndarray, flags: np.ndarray) -> Iterator[tuple[int, bool]]:
    for start in range(0, len(keys), _BLOCK):
        block = slice(start, start + _BLOCK)
        yield from zip(keys[block].tolist(), flags[block].tolist(), strict=True)


def _verify_unindexed(path: Path) -> Iterator[Damage | None]:
    labels = _Labels()
    for offset, payload in track(scan(path), f"verifying {path.name}", unit="records"):
        try:
            if isinstance(payload, RecordIOError):
                raise payload
            labels.check(payload, MAX_EXACT, must_be_image=False)
        except (DataError, RecordIOError) as error:
            yield _damage(path, None, offset, error)
        else:
            yield None


def _verify_landmarks(path: Path, opened: Callable[[], FaceLandmarks]) -> Iterator[Damage | None]:
    try:
        landmarks = opened()
    except (DataError, RecordIOError) as error:
        yield _damage(path, None, None, error)
        return
    for row in track(range(len(landmarks)), f"verifying {path.name}", unit="rows"):
        try:
            landmarks[row]
        except DataError as error:
            yield _damage(path, None, None, error)


def _verify_bin(path: Path) -> Iterator[Damage | None]:
    encoded, issame = load_bin(path)
    if problem := pairs_problem(issame):
        yield _damage(path, None, None, DataError(problem))
    for i, item in enumerate(track(encoded, f"verifying {path.name}", unit="images")):
        try:
            decode_face(item)
        except DataError as error:
            yield _damage(path, i, None, error)
        else:
            yield None


def _verify_folder(path: Path) -> Iterator[Damage | None]:
    found = identity_folders(path)
    found.warn_of_left_out()
    yield from _verify_images(path, [file for _, images in found.identities for file in images])


def _verify_tree(path: Path) -> Iterator[Damage | None]:
    yield from _verify_images(path, image_tree(path)[0])


def _verify_images(folder: Path, files: list[Path]) -> Iterator[Damage | None]:
    for file in track(files, f"verifying {folder.name}", unit="images"):
        try:
            decode_crop(file.read_bytes(), strict=True)
        except (DataError, OSError) as error:
            yield _damage(file, None, None, error)
        else:
            yield None
    landmarks = find_landmarks(folder)
    if landmarks is not None:
        yield from _verify_landmarks(landmarks, lambda: crop_landmarks(folder, files))


def _damage(path: Path, key, offset: int | None, error: Exception) -> Damage:
    if isinstance(error, RecordIOError):
        problem = error.problem
    elif isinstance(error, OSError):
        problem = f"cannot be read: {error.strerror}"
    else:
        problem = str(error).removeprefix(f"{path}: ")  # the place is told apart
        problem = problem.removeprefix(f"{path}, key {key}: ")
    return {"path": str(path), "key": key, "byte": offset, "problem": problem}


_VERIFIERS = {
    "rec": _verify_records,
    "bin": _verify_bin,
    "folder": _verify_folder,
    "tree": _verify_tree,
}
