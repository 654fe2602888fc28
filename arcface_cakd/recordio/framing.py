"""How payloads lie in a ``.rec`` file, and what of that can be checked.

A record is one or more parts. A part is ``u32 magic, u32 cflag << 29 | length``, then ``length``
bytes, then zeros up to a multiple of 4. A payload that holds the magic at a multiple of 4 is
split there and the magic dropped; so a whole file has the magic at multiples of 4 exactly where
parts begin, which is what most checks below lean on.
"""

import struct
from collections.abc import Callable
from pathlib import Path

from arcface_cakd.errors import ArcfaceCakdError

MAGIC = struct.pack("<I", 0xCED7230A)
MAX_LENGTH = (1 << 29) - 1
WHOLE, FIRST, MIDDLE, LAST = range(4)

_HEAD = struct.Struct("<4sI")
_BEGINNING, _CONTINUING = (WHOLE, FIRST), (MIDDLE, LAST)


class RecordIOError(ArcfaceCakdError):
    """A record file that cannot be read or written as asked.

    Attributes:
        problem: what is wrong, without the place.
        path: the file, or None for a payload that came from elsewhere.
        key: the key that was asked for, or None where records are read in sequence.
        offset: byte offset in ``path`` where the fault shows, or None where no byte is to blame.
    """

    def __init__(self, problem: str, path=None, key=None, offset: int | None = None):
        place = "record" if path is None else str(path)
        if key is not None:
            place += f", key {key}"
        if offset is not None:
            place += f", byte {offset}"
        super().__init__(f"{place}: {problem}")
        self.problem, self.path, self.key, self.offset = problem, path, key, offset

    def __reduce__(self):
        return type(self), (self.problem, self.path, self.key, self.offset)

    __str__ = Exception.__str__  # KeyError, a base of MissingKeyError, would print a repr


class MissingKeyError(RecordIOError, KeyError):
    """A key that the index does not hold (a ``KeyError``, as mxnet raises)."""


def frame(payload: bytes) -> bytes:
    """The bytes of one record, equal to those that mxnet writes.

    Raises:
        RecordIOError: the payload is longer than the format can say (2^29 - 1 bytes).
    """
    if len(payload) > MAX_LENGTH:
        raise RecordIOError(f"a record holds at most {MAX_LENGTH} bytes, got {len(payload)}")
    pieces: list[bytes] = []
    begin = 0
    for position in _aligned_magics(payload):
        cflag = FIRST if begin == 0 else MIDDLE
        pieces += _HEAD.pack(MAGIC, cflag << 29 | position - begin), payload[begin:position]
        begin = position + 4
    cflag = LAST if begin else WHOLE
    length = len(payload) - begin
    pieces += _HEAD.pack(MAGIC, cflag << 29 | length), payload[begin:], bytes(-length % 4)
    return b"".join(pieces)


def read_record(
    buffer,
    offset: int,
    path: str | Path,
    key=None,
    is_indexed: Callable[[int], bool] | None = None,
) -> tuple[bytes, int]:
    """The payload of the record at ``offset``, and the offset where the next one begins.

    Checked: alignment, magic, order of the parts, lengths inside the file, zero padding, no
    other part swallowed, and another record (or the end of the file) right behind. So damage to
    a head is found, save one kind: a length that differs within the padding adds or drops zero
    bytes at the end of the payload. The format has no checksum: damage inside a payload is not
    found here.

    Args:
        buffer: the whole file, bytes or mmap.
        offset: byte offset of the record.
        path: the file's name and
        key: the key that was asked for, both for messages.
        is_indexed: whether a byte offset is in the index; it vouches for the place where the
            record ends when the head there is damaged.

    Raises:
        RecordIOError: one of the checks failed.
    """
    parts = []
    position, legal = offset, _BEGINNING
    while True:
        cflag, part, end = _read_part(buffer, position, path, key)
        if cflag not in legal:
            kind = "beginning" if legal is _BEGINNING else "continuation"
            raise RecordIOError(f"no {kind} of a record (cflag {cflag})", path, key, position)
        parts.append(part)
        position, legal = end, _CONTINUING
        if cflag in (WHOLE, LAST):
            break
    if (
        position != len(buffer)
        and not _begins_record(buffer, position)
        and not (is_indexed and is_indexed(position))
    ):
        raise RecordIOError(
            f"the record ends at byte {position}, where no other begins: damaged", path, key, offset
        )
    return (parts[0] if len(parts) == 1 else MAGIC.join(parts)), position


def _read_part(buffer, offset: int, path, key) -> tuple[int, bytes, int]:
    if offset < 0 or offset % 4 or offset + 8 > len(buffer):
        raise RecordIOError(
            f"no record can be here, the file has {len(buffer)} bytes: cut, or not the file of "
            "this index",
            path,
            key,
            offset,
        )
    magic, word = _HEAD.unpack_from(buffer, offset)
    if magic != MAGIC:
        raise RecordIOError(
            "no record begins here: damaged, or not the file of this index", path, key, offset
        )
    cflag, length = word >> 29, word & MAX_LENGTH
    begin = offset + 8
    end = begin + length
    next_part = end + -length % 4
    if next_part > len(buffer):
        raise RecordIOError(
            f"the record needs {next_part - len(buffer)} bytes more than the file has: cut or "
            "damaged",
            path,
            key,
            offset,
        )
    part = buffer[begin:end]
    ragged = cflag in (FIRST, MIDDLE) and length % 4
    if ragged or any(buffer[end:next_part]) or next(_aligned_magics(part), None) is not None:
        raise RecordIOError(f"wrong length {length} in the record's head", path, key, offset)
    return cflag, part, next_part


def _aligned_magics(payload: bytes):
    """Positions of the magic at multiples of 4."""
    position = payload.find(MAGIC)
    while position >= 0:
        if position % 4 == 0:
            yield position
        position = payload.find(MAGIC, position + 1)


def next_beginning(buffer, offset: int) -> int:
    """The first offset from ``offset`` on where a record can begin, else the end of the buffer."""
    position = buffer.find(MAGIC, offset)
    while position >= 0:
        if position % 4 == 0 and _begins_record(buffer, position):
            return position
        position = buffer.find(MAGIC, position + 1)
    return len(buffer)


def _begins_record(buffer, offset: int) -> bool:
    if offset + 8 > len(buffer):
        return False
    magic, word = _HEAD.unpack_from(buffer, offset)
    return magic == MAGIC and word >> 29 in _BEGINNING
