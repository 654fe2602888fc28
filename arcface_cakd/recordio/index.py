"""The ``.idx`` file: which byte offset a key has."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from arcface_cakd.recordio.framing import MissingKeyError, RecordIOError

_BLOCK = 1 << 18  # what is made of it stays in the caches; no line is as long
_MAX_DIGITS = 18  # what an int64 holds whatever the digits are
_TAB, _NEWLINE = 9, 10
_INTEGER = re.compile(rb"-?[0-9]{1,18}")


class RecordIndex(Mapping):
    """Integer keys and the byte offsets of their records, as arrays.

    Iterates over the keys in the order of the file, whatever that is. Two int64 arrays hold
    it, one where the keys have no gaps, so that an index of millions stays small.

    Args:
        keys: (N,) int64 in the order of the file, or a range.
        offsets: (N,) int64 byte offsets.
        path: the ``.idx`` file, for messages.

    Raises:
        RecordIOError: a key occurs twice, or two keys share an offset.
    """

    def __init__(self, keys: np.ndarray | range, offsets: np.ndarray, path: str | Path):
        self.path = path
        self._file_order = None
        if not isinstance(keys, range) and np.any(keys[1:] <= keys[:-1]):
            self._file_order = keys
            order = np.argsort(keys, kind="stable")
            keys, offsets = keys[order], offsets[order]
            twice = np.flatnonzero(keys[1:] == keys[:-1])
            if len(twice):
                key = int(keys[twice[0]])
                raise RecordIOError(
                    "the key occurs twice in the index: damaged", path, key, int(offsets[twice[0]])
                )
        if np.any(offsets[1:] <= offsets[:-1]):
            order = np.argsort(offsets, kind="stable")
            twice = np.flatnonzero(np.diff(offsets[order]) == 0)
            if len(twice):
                first, second = (int(keys[order[twice[0] + i]]) for i in (0, 1))
                raise RecordIOError(
                    f"keys {first} and {second} have the same byte offset: damaged",
                    path,
                    first,
                    int(offsets[order[twice[0]]]),
                )
        self._first = int(keys[0]) if len(keys) else 0
        gapless = len(keys) == 0 or int(keys[-1]) - self._first + 1 == len(keys)
        self._keys = None if gapless else np.asarray(keys)
        self._offsets = offsets

    def __getitem__(self, key) -> int:
        return int(self._offsets[self.positions(key)])

    def __iter__(self) -> Iterator[int]:
        order = self.sorted_keys if self._file_order is None else self._file_order
        return iter(order.tolist())

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def sorted_keys(self) -> np.ndarray:
        """(N,) int64, ascending."""
        if self._keys is not None:
            return self._keys
        return np.arange(self._first, self._first + len(self), dtype=np.int64)

    @property
    def offsets(self) -> np.ndarray:
        """(N,) int64 byte offsets, in the order of ``sorted_keys``."""
        return self._offsets

    def positions(self, keys):
        """Where ``keys`` (a key or an array of them) stand in ``sorted_keys``.

        Raises:
            MissingKeyError: one of the keys is not there.
        """
        if self._keys is None and isinstance(
            keys, int | np.integer
        ):  # the usual case, at little cost
            position = keys - self._first
            if 0 <= position < len(self._offsets):
                return position
        asked = np.asarray(keys)
        if asked.size and (asked.dtype.kind not in "iu" or not len(self)):
            raise self._missing(asked)
        if self._keys is None:
            positions = asked - self._first
            wrong = (positions < 0) | (positions >= len(self))
        else:
            positions = np.minimum(np.searchsorted(self._keys, asked), len(self) - 1)
            wrong = self._keys[positions] != asked
        if np.any(wrong):
            raise self._missing(asked[wrong])
        return positions

    def _missing(self, keys: np.ndarray) -> MissingKeyError:
        return MissingKeyError("the index has no such key", self.path, keys.ravel()[0].item())


def read_index(
    path: str | Path, key_type: Callable[[str], Any] = int
) -> RecordIndex | dict[Any, int]:
    """Read an ``.idx`` file, lines of ``key<tab>byte offset`` in any order.

    Returns:
        a ``RecordIndex`` for ``key_type=int``, else a dict.

    Raises:
        RecordIOError: a line of another form (with its byte offset in the index), or what
            ``RecordIndex`` rejects.
    """
    if key_type is int:
        lines = _IntegerLines()
        for keys, offsets in _blocks(path, key_type):
            lines.add(keys, offsets)
        return RecordIndex(lines.keys, lines.offsets, path)
    index: dict[Any, int] = {}
    for keys, offsets in _blocks(path, key_type):
        for key, offset in zip(keys, offsets, strict=True):
            if key in index:
                raise RecordIOError("the key occurs twice in the index: damaged", path, key, offset)
            index[key] = offset
    return index


class _IntegerLines:
    """The lines of an index so far: keys that have no gaps as a range, which takes no memory."""

    def __init__(self):
        self.keys: np.ndarray | range = range(0)
        self.offsets = np.zeros(0, dtype=np.int64)

    def add(self, keys: np.ndarray, offsets: np.ndarray) -> None:
        _extend(self.offsets, offsets)
        if isinstance(self.keys, range):
            first = int(keys[0])
            before = self.keys or range(first, first)
            if first == before.stop and np.all(np.diff(keys) == 1):
                self.keys = range(before.start, first + len(keys))
                return
            self.keys = np.array(before, dtype=np.int64)
        _extend(self.keys, keys)


def _extend(array: np.ndarray, more: np.ndarray) -> None:
    """Append in place: joined at the end, both would be in memory twice."""
    filled = len(array)
    array.resize(filled + len(more), refcheck=False)
    array[filled:] = more


def _blocks(path, key_type) -> Iterator[tuple[Any, Any]]:
    """Keys and offsets, some lines at a time: int64 arrays where keys are integers, else lists."""
    done = 0
    with open(path, "rb") as file:
        rest = b""
        while block := file.read(_BLOCK):
            lines, newline, rest = (rest + block).rpartition(b"\n")
            if newline:
                yield _parse(lines + newline, done, path, key_type)
                done += len(lines) + 1
            if len(rest) > _BLOCK:
                raise _not_a_line(rest, done, path)
        if rest:
            yield _parse(rest + b"\n", done, path, key_type)


def _parse(lines: bytes, start: int, path, key_type) -> tuple[Any, Any]:
    numbers = _parse_plain(lines) if key_type is int else None
    if numbers is not None:
        return numbers[0::2], numbers[1::2]
    keys, offsets = [], []
    for line in lines.split(b"\n")[:-1]:
        fields = line.rstrip(b"\r").split(b"\t")
        try:
            if len(fields) != 2 or not _INTEGER.fullmatch(fields[1]):
                raise ValueError
            if key_type is int and not _INTEGER.fullmatch(fields[0]):
                raise ValueError
            keys.append(key_type(fields[0].decode()))
        except ValueError as error:
            raise _not_a_line(line, start, path) from error
        offsets.append(int(fields[1]))
        start += len(line) + 1
    if key_type is int:
        return np.array(keys, dtype=np.int64), np.array(offsets, dtype=np.int64)
    return keys, offsets


def _not_a_line(line: bytes, start: int, path) -> RecordIOError:
    return RecordIOError(
        f"not a line of 'key<tab>offset': {line[:40]!r}; cut, damaged or not an index",
        path,
        offset=start,
    )


def _parse_plain(lines: bytes) -> np.ndarray | None:
    """Keys and offsets in turn, or None unless every line is digits, tab, digits, newline."""
    text = np.frombuffer(lines, dtype=np.uint8)
    breaks = np.flatnonzero(text - np.uint8(ord("0")) > 9)  # wraps around below "0"
    tabs, newlines = text[breaks[0::2]], text[breaks[1::2]]
    if len(tabs) != len(newlines) or np.any(tabs != _TAB) or np.any(newlines != _NEWLINE):
        return None
    digits = np.diff(breaks, prepend=-1) - 1
    if np.any(digits < 1) or np.any(digits > _MAX_DIGITS):
        return None
    return np.fromstring(lines, dtype=np.int64, sep=" ")
