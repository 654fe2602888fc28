"""Readers and writers of record files, with mxnet's names and signatures."""

import contextlib
import mmap
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arcface_cakd.errors import ArcfaceCakdWarning
from arcface_cakd.files import partial_beside, put_in_place
from arcface_cakd.recordio.framing import MissingKeyError, RecordIOError, frame, read_record
from arcface_cakd.recordio.index import RecordIndex, read_index


class MXRecordIO:
    """A record file, read or written in sequence.

    A reader is memory-mapped. It may be handed to other processes, by fork or pickle; there it
    starts again at the beginning.

    A writer's file appears at ``uri`` whole, at ``close()``; until then it grows beside it. A
    writer that is dropped without ``close()``, or whose ``with`` block raises, leaves nothing
    behind, and whatever stood at ``uri`` stays. It belongs to the process that made it.

    Args:
        uri: the ``.rec`` file.
        flag: "r" to read, "w" to write.

    Raises:
        RecordIOError: no such file, or one that cannot be opened.
        ValueError: another flag.
    """

    def __init__(self, uri: str | os.PathLike, flag: str):
        if flag not in ("r", "w"):
            raise ValueError(f"flag must be 'r' or 'w', got {flag!r}")
        self.uri = os.fspath(uri)
        self.flag = flag
        self.writable = flag == "w"
        self.is_open = False
        self.open()

    def open(self) -> None:
        """Open the file; a writer starts it anew."""
        self.pid = os.getpid()
        self._position = 0
        if self.writable:
            self._outputs = self._open_outputs()
        else:
            self._buffer = _map(self.uri)
        self.is_open = True

    def close(self) -> None:
        """Close the file; a writer's appears in its place."""
        if not self.is_open:
            return
        self.is_open = False
        if self.writable:
            self._check_owner()
            _all_in_place(self._outputs)
        else:
            self._buffer = None

    def reset(self) -> None:
        """Back to the first record; a writer drops what it has written."""
        if self.writable:
            self._discard()
        if self.writable or not self.is_open:
            self.open()
        self._position = 0

    def read(self) -> bytes | None:
        """The next payload, or None at the end of the file.

        Raises:
            RecordIOError: the record is cut or damaged (see ``framing.read_record``).
        """
        buffer = self._readable()
        if self._position == len(buffer):
            return None
        payload, self._position = read_record(buffer, self._position, self.uri)
        return payload

    def write(self, buf: bytes) -> None:
        """Append a payload.

        Raises:
            RecordIOError: too long for the format, or not a writer of this process.
        """
        if not self.writable or not self.is_open:
            raise RecordIOError("not open for writing", self.uri)
        self._check_owner()
        record = frame(bytes(buf))
        self._outputs[0].file.write(record)
        self._position += len(record)

    def tell(self) -> int:
        """Byte offset where the next record is read or written."""
        return self._position

    def mapped(self):
        """All bytes of a reader's file, a memory map or bytes."""
        return self._readable()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None and self.writable:
            self._discard()
        else:
            self.close()

    def __del__(self):
        # A forked copy of a writer is not the writer.
        if getattr(self, "is_open", False) and self.writable and self.pid == os.getpid():
            self._discard()
            warnings.warn(
                f"{self.uri}: discarded, because its writer was never closed; call close()",
                ArcfaceCakdWarning,
                stacklevel=2,
            )

    def __getstate__(self) -> dict:
        if self.writable:
            raise TypeError(f"{self.uri}: a writer belongs to its process and cannot be pickled")
        return {**self.__dict__, "_buffer": None, "_position": 0}

    def _open_outputs(self) -> list["_Output"]:
        return [_Output(self.uri)]

    def _discard(self) -> None:
        if self.is_open and self.pid == os.getpid():
            for output in self._outputs:
                output.discard()
        self.is_open = False

    def _check_owner(self) -> None:
        if self.pid != os.getpid():
            raise RecordIOError("this writer belongs to another process", self.uri)

    def _readable(self):
        if self.writable or not self.is_open:
            raise RecordIOError("not open for reading", self.uri)
        if self.pid != os.getpid():  # forked or unpickled
            self.pid, self._position = os.getpid(), 0
        if self._buffer is None:  # unpickled
            self._buffer = _map(self.uri)
        return self._buffer


class MXIndexedRecordIO(MXRecordIO):
    """A record file with an index: payloads by key.

    Besides what ``MXRecordIO`` says: ``read_idx`` may be called from many threads at once; the
    index of integer keys is held in arrays, so millions of records cost little.

    Attributes:
        idx: mapping of key to byte offset.
        keys: list of the keys in the order of the index file, made when it is first asked for.

    Args:
        idx_path: the ``.idx`` file.
        uri: the ``.rec`` file.
        flag: "r" to read, "w" to write.
        key_type: type of the keys.

    Raises:
        RecordIOError: as ``MXRecordIO``, and for an index that is missing, is none, or holds a
            key or a byte offset twice.
    """

    def __init__(
        self,
        idx_path: str | os.PathLike,
        uri: str | os.PathLike,
        flag: str,
        key_type: Callable[[str], Any] = int,
    ):
        self.idx_path = os.fspath(idx_path)
        self.key_type = key_type
        self._idx: RecordIndex | dict[Any, int] | None = None
        self._keys: list | None = None
        super().__init__(uri, flag)

    def open(self) -> None:
        super().open()
        self._keys = None
        if self.writable:
            self._written: dict[Any, int] = {}
            self._idx = self._written
        else:
            try:
                self._idx = read_index(self.idx_path, self.key_type)
            except OSError as error:
                remedy = f": 'arcface-cakd data index {self.uri}' rebuilds it"
                raise _cannot_open(
                    self.idx_path, error, f"the index of {self.uri}", remedy
                ) from error

    @property
    def idx(self) -> RecordIndex | dict[Any, int]:
        if self._idx is None:  # unpickled
            self._idx = read_index(self.idx_path, self.key_type)
        return self._idx

    @property
    def keys(self) -> list:
        if self.writable:
            return list(self._written)
        if self._keys is None:
            self._keys = list(self.idx)
        return self._keys

    def seek(self, idx) -> None:
        """Make the record of that key the next one to ``read()``.

        Raises:
            MissingKeyError: there is none.
        """
        self._readable()
        self._position = self._offset(idx)

    def read_idx(self, idx) -> bytes:
        """The payload of that key; ``read()`` goes on behind it.

        Raises:
            MissingKeyError: the index has no such key.
            RecordIOError: the record is cut or damaged (see ``framing.read_record``).
        """
        buffer = self._readable()
        payload, self._position = read_record(
            buffer, self._offset(idx), self.uri, idx, self._is_indexed
        )
        return payload

    def write_idx(self, idx, buf: bytes) -> None:
        """Append a payload under a key.

        Raises:
            RecordIOError: the key is taken, and as ``write``.
        """
        key = self.key_type(idx)
        if key in self.idx:
            raise RecordIOError("the key is already written", self.uri, key)
        position = self.tell()
        self.write(buf)
        self._outputs[1].file.write(f"{key}\t{position}\n".encode())
        self._written[key] = position

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_idx": None, "_keys": None}

    def _open_outputs(self) -> list["_Output"]:
        return [_Output(self.uri), _Output(self.idx_path)]

    def _offset(self, key) -> int:
        try:
            return self.idx[key]
        except MissingKeyError as error:
            if not isinstance(key, int) or key != 0:
                raise
            # Which is where arcface_torch looks first, of whatever set.
            problem = (
                f"{error.problem}; where the set has images and begins at another key, "
                "'arcface-cakd data renumber' writes one that arcface_torch reads"
            )
            raise MissingKeyError(problem, error.path, 0) from None
        except RecordIOError:
            raise
        except KeyError:
            raise MissingKeyError("the index has no such key", self.idx_path, key) from None

    def _is_indexed(self, offset: int) -> bool:
        index = self.idx
        if isinstance(index, RecordIndex):
            return bool((index.offsets == offset).any())
        return offset in index.values()


class _Output:
    """A file that grows beside its place.

    Not ``files.atomic_path``: that is a block, and removes the partial file when a forked
    copy of it is collected; a writer lives until ``close()`` and must not.
    """

    def __init__(self, path: str):
        self.path = Path(path)
        try:
            self.partial = partial_beside(self.path)
            self.file = open(self.partial, "wb", buffering=1 << 20)  # noqa: SIM115
        except OSError as error:
            raise _cannot_open(path, error, "a place to write") from error

    def discard(self) -> None:
        with contextlib.suppress(OSError):  # a full disk fails to flush what is thrown away
            self.file.close()
        self.partial.unlink(missing_ok=True)


def _all_in_place(outputs: list[_Output]) -> None:
    try:
        for output in outputs:
            output.file.close()
        # An interruption between the two must not leave new records under an old index.
        for output in outputs[1:]:
            output.path.unlink(missing_ok=True)
        for output in outputs:
            put_in_place(output.partial, output.path)
    except OSError as error:
        raise RecordIOError(f"cannot be written: {error.strerror}", outputs[0].path) from error
    finally:
        for output in outputs:
            output.discard()


def _map(path: str):
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:  # which mmap refuses
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise _cannot_open(path, error, "a record file") from error


def _cannot_open(path: str, error: OSError, expected: str, remedy: str = "") -> RecordIOError:
    if isinstance(error, FileNotFoundError):
        return RecordIOError(f"no such file, where {expected} should be{remedy}", path)
    return RecordIOError(f"cannot be opened as {expected}: {error.strerror}", path)
