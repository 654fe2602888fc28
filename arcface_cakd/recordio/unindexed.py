"""Records of a file that its index does not name."""

import contextlib
from itertools import pairwise

import numpy as np

from arcface_cakd.recordio.framing import RecordIOError, read_record
from arcface_cakd.recordio.index import RecordIndex
from arcface_cakd.recordio.record_files import MXIndexedRecordIO

# What is looked at where not all is: on a cold disk a record costs a seek.
_LOOKED_AT = 2**10


def unindexed_ranges(ends: np.ndarray, begins: np.ndarray, size: int) -> np.ndarray:
    """Where a file has bytes between records that the index names.

    Args:
        ends: (N,) int64, where records end, -1 where that is not known; 0 for the file's beginning.
        begins: (N,) int64, where the next one in the index begins, or the file ends.
        size: of the file.

    Returns:
        (G, 2) int64, first byte and the byte behind, in the order that was given.
    """
    begins = np.minimum(begins, size)  # damaged lines may say anything
    left = (ends >= 0) & (ends < begins)
    return np.stack([ends[left], begins[left]], axis=1)


def glimpse_unindexed(reader: MXIndexedRecordIO) -> np.ndarray:
    """Such ranges as far as one look tells, at little cost whatever the size; see there.

    It looks at the last record, and in each of 1,024 parts of the file at the one whose next in the
    index is farthest away. So an index shows that was cut or lacks a run of lines; a line here and
    there of a large one may not.

    Args:
        reader: of integer keys, one at least.
    """
    index, buffer = reader.idx, reader.mapped()
    assert isinstance(index, RecordIndex)  # whose keys are integers
    offsets = index.offsets
    if np.any(offsets[1:] < offsets[:-1]):
        offsets = np.sort(offsets)
    steps, last = np.diff(offsets), len(offsets) - 1
    bounds = np.linspace(0, last, min(_LOOKED_AT, last) + 1).astype(np.int64).tolist()
    places = [begin + int(steps[begin:end].argmax()) for begin, end in pairwise(bounds)]
    ends = np.full(len(places) + 2, -1, dtype=np.int64)
    ends[0] = 0
    for i, place in enumerate([*places, last], start=1):
        with contextlib.suppress(RecordIOError):  # which is said where the record is used
            _, ends[i] = read_record(buffer, int(offsets[place]), reader.uri)
    begins = [offsets[0], *(offsets[place + 1] for place in places), len(buffer)]
    return unindexed_ranges(ends, np.array(begins, dtype=np.int64), len(buffer))
