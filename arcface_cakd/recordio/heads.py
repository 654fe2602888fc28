"""The heads of many records at once: labels, and which carry an image."""

from typing import NamedTuple

import numpy as np

from arcface_cakd.recordio.framing import MAGIC, MAX_LENGTH, WHOLE, RecordIOError
from arcface_cakd.recordio.header import HEADER_SIZE, unpack
from arcface_cakd.recordio.index import RecordIndex
from arcface_cakd.recordio.record_files import MXIndexedRecordIO

_MAGIC = np.frombuffer(MAGIC, dtype="<u4")[0]
# Words of a record from its first byte on: the magic, cflag and length, then the payload.
_LENGTH, _FLAG, _LABEL, _LABELS = 1, 2, 3, 2 + HEADER_SIZE // 4


class RecordHeads(NamedTuple):
    """What the heads of N records say.

    labels: (N,) float32, the first label where a record has several. has_image: (N,) bool,
    whether anything follows the header and the labels.
    """

    labels: np.ndarray
    has_image: np.ndarray


def read_heads(reader: MXIndexedRecordIO, keys: np.ndarray) -> RecordHeads:
    """The heads of the records under ``keys``, without reading the images.

    Args:
        reader: of integer keys.
        keys: (N,) integers.

    Raises:
        MissingKeyError: the index has no such key.
        RecordIOError: a record that is cut, damaged, or too short for its header and labels.
    """
    index = reader.idx
    assert isinstance(index, RecordIndex)  # whose keys are integers
    keys = np.asarray(keys, dtype=np.int64)
    data = np.frombuffer(reader.mapped(), dtype=np.uint8)
    words = data[: len(data) // 4 * 4].view("<u4")
    offsets = index.offsets[index.positions(keys)]
    within = (offsets >= 0) & (offsets % 4 == 0) & (offsets + 8 + HEADER_SIZE <= len(data))
    start = np.where(within, offsets // 4, 0)
    if not within.any():
        words = np.zeros(_LABELS + 1, dtype="<u4")
    length = (words[start + _LENGTH] & MAX_LENGTH).astype(np.int64)
    flag = words[start + _FLAG].astype(np.int64)
    header = HEADER_SIZE + 4 * flag
    plain = (
        within
        & (words[start] == _MAGIC)
        & (words[start + _LENGTH] >> 29 == WHOLE)
        & (length >= header)
        & (offsets + 8 + length <= len(data))
    )
    first = np.minimum(start + _LABELS, len(words) - 1)  # of the last record, where it has none
    labels = np.where(flag > 0, words[first], words[start + _LABEL]).view("<f4").astype(np.float32)
    has_image = length > header
    # Records of many parts, and those to which something happened: one by one.
    for i in np.flatnonzero(~plain).tolist():
        key = int(keys[i])
        try:
            head, image = unpack(reader.read_idx(key))
        except RecordIOError as error:
            raise RecordIOError(error.problem, reader.uri, key, int(offsets[i])) from error
        labels[i] = head.label[0] if head.flag else head.label
        has_image[i] = len(image) > 0
    return RecordHeads(labels, has_image)
