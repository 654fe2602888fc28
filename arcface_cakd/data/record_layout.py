"""Which records of a file are images, and what ``property`` says of them."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.recordio import (
    IRHeader,
    MissingKeyError,
    MXIndexedRecordIO,
    RecordIOError,
    unpack,
)
from arcface_cakd.recordio.index import RecordIndex
from arcface_cakd.recordio.scan import scan
from arcface_cakd.recordio.unindexed import glimpse_unindexed

logger = logging.getLogger("arcface_cakd")

_LONGEST_PROPERTY = 4096  # bytes that are looked at
MAX_EXACT = 2**24  # labels are float32: integers up to here are exact


def image_keys(reader: MXIndexedRecordIO) -> tuple[np.ndarray, np.ndarray]:
    """The keys of images and of identity headers, both int64, ascending.

    Where record 0 carries an image, or there is no record 0 and the last one carries an image,
    every key is an image, as im2rec writes them. Else record 0 is insightface's: its first label
    is n + 1, its second n + 1 + the number of identities; images are the keys 1 to n, identity
    headers the others. Labels are float32 and beyond 2^24 rounded: where they are, the first
    record without an image and the last key are the bounds.

    Raises:
        RecordIOError: record 0 is missing from a set that needs it, a record that tells the
            bounds is damaged, or keys that record 0 announces are not there.
        DataError: record 0 makes no sense, or does not fit the records.
    """
    index = reader.idx
    assert isinstance(index, RecordIndex)  # whose keys are integers
    known = index.sorted_keys
    none = np.zeros(0, dtype=np.int64)
    last = int(known[-1]) if len(known) else -1
    if 0 not in index:
        if last >= 0 and _record(reader, last)[1]:
            return known, none
        raise MissingKeyError(
            "record 0, which tells what is an image, is not there: cut, or no set of images",
            reader.idx_path,
            0,
        )
    header, image = _record(reader, 0)
    if header.flag == 0 or image:
        return known, none
    ends = np.asarray(header.label, dtype=np.float64)
    place = f"{reader.uri}, key 0"
    if (
        not np.all(np.isfinite(ends))
        or ends[0] < 1
        or np.any(np.diff(ends[:2]) < 0)
        or ends[:2].max() > 2**40
    ):
        raise DataError(f"{place}: labels {ends[:2].tolist()} tell no range of keys")
    end = last + 1
    if len(ends) > 1:
        if end > ends[1] + _rounding(ends[1]):
            raise _unfit(
                place, f"announces the keys 1 to {ends[1] - 1:.0f}, and the index has up to {last}"
            )
        if end < ends[1] - _rounding(ends[1]):
            end = int(ends[1])
    _check_complete(known, max(end, int(ends[0] - _rounding(ends[0]))), reader.idx_path)

    def carries(key: int) -> bool:
        return len(_record(reader, key)[1]) > 0

    first = first_header(float(ends[0]), end, carries, place)
    return np.arange(1, first, dtype=np.int64), np.arange(first, end, dtype=np.int64)


def warn_of_unindexed(reader: MXIndexedRecordIO, images: np.ndarray) -> None:
    """Say in the log that the index leaves out records of the file, as far as one look tells.

    That may be meant, and is not where an index was cut. Where record 0 says how many there are,
    ``image_keys`` has held the index against it.

    Args:
        reader: the records.
        images: (N,) the keys that are taken for images, N at least 1.
    """
    if len(images) < len(reader.idx):
        return
    ranges = glimpse_unindexed(reader)
    left = int((ranges[:, 1] - ranges[:, 0]).sum())
    # Of insightface's sets whose index was cut down to the images on purpose, heads are left.
    if left and _may_be_an_image(reader, *map(int, ranges[0])):
        each = (len(reader.mapped()) - left) / len(images)
        logger.warning(
            "%s: has %d records, and %s holds more: %d bytes, about %d records, are left out, "
            "the first at byte %d: %s",
            reader.idx_path,
            len(images),
            reader.uri,
            left,
            max(1, round(left / each)),
            ranges[0, 0],
            index_remedy(reader.uri),
        )


def _may_be_an_image(reader: MXIndexedRecordIO, begin: int, end: int) -> bool:
    for _, record in scan(reader.uri, begin, end):
        try:
            return isinstance(record, RecordIOError) or len(unpack(record)[1]) > 0
        except RecordIOError:
            return True
    return False


def index_remedy(rec: str | Path) -> str:
    """What to do about an index that lacks records, for messages."""
    return (
        f"'arcface-cakd data index {rec} --force' writes it anew; where they are left out on "
        f"purpose, 'arcface-cakd data renumber {Path(rec).parent} OUT' writes a set without them"
    )


def first_header(stated: float, end: int, carries: Callable[[int], bool], place: str) -> int:
    """The first key that is an identity's header and no image.

    Args:
        stated: what record 0 says, a float32.
        end: one more than the last key.
        carries: whether the record under a key carries an image; asked for a few keys.
        place: of record 0, for messages.

    Raises:
        DataError: the records around it say otherwise.
    """
    low = max(1, int(stated - _rounding(stated)))
    high = min(end, int(stated + _rounding(stated)))
    while low < high:
        middle = (low + high) // 2
        if carries(middle):
            low = middle + 1
        else:
            high = middle
    if low > 1 and not carries(low - 1):
        raise _unfit(place, f"takes key {low - 1} for an image, and it carries none")
    if low < end and carries(low):
        raise _unfit(place, f"takes key {low} for an identity's header, and it carries an image")
    return low


def _record(reader: MXIndexedRecordIO, key: int) -> tuple[IRHeader, bytes]:
    payload = reader.read_idx(key)
    try:
        return unpack(payload)
    except RecordIOError as error:
        raise RecordIOError(error.problem, reader.uri, key, reader.idx[key]) from error


def _rounding(stated: float) -> int:
    """How far a count may be from the float32 that it was rounded to; 0 where it is exact."""
    return 0 if stated < MAX_EXACT else int(np.spacing(np.float32(stated)))


def _unfit(place: str, what: str) -> DataError:
    return DataError(
        f"{place}: record 0 {what}: damaged, or records were added; 'arcface-cakd data renumber' "
        "writes a set of all records that carry an image"
    )


def _check_complete(known: np.ndarray, end: int, idx_path: str) -> None:
    """Raise MissingKeyError unless 1 to ``end`` - 1 are known."""
    announced = int(np.searchsorted(known, end) - np.searchsorted(known, 1))
    if announced == end - 1:
        return
    found = known[(known >= 1) & (known < end)]
    gaps = np.flatnonzero(found != np.arange(1, len(found) + 1))
    raise MissingKeyError(
        f"the index lacks {end - 1 - announced} of the {end - 1} keys that record 0 "
        "announces, this one first: cut, or not the index of this file",
        idx_path,
        int(gaps[0]) + 1 if len(gaps) else len(found) + 1,
    )


def read_property(folder: Path) -> int | None:
    """The number of identities in ``<folder>/property``, None where there is no such file.

    Raises:
        DataError: the file does not say ``identities,112,112``.
    """
    path = folder / "property"
    if not path.is_file():
        return None
    try:
        with open(path, "rb") as file:
            text = file.read(_LONGEST_PROPERTY).decode("utf-8", "replace").strip()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    line = text.splitlines()[0] if text else ""
    said = re.fullmatch(rf"\s*([0-9]{{1,18}})\s*,\s*{CROP_SIZE}\s*,\s*{CROP_SIZE}\s*", line)
    if said is None or int(said[1]) < 1:
        raise DataError(f"{path}: must say 'identities,112,112', says {text[:40]!r}: mend it")
    if int(said[1]) > MAX_EXACT:
        raise DataError(
            f"{path}: says {said[1]} identities, and labels, which are float32, tell at most "
            f"{MAX_EXACT} apart: mend it"
        )
    return int(said[1])
