"""The digest that a file of tensors carries: SHA-256 of all of it, as the comment of its zip.

Readers of zips, torch's among them, pass over a comment, so that such a file is one as
``torch.save`` writes it. What is older, or of others, has the checksums (CRC-32) of the zip
alone: they cover each record's content and not what stands between.
"""

import hashlib
import os
import struct
import zipfile
from typing import IO, Any, cast

import torch

from arcface_cakd.errors import ArcfaceCakdError

_MARK = b"sha256:"
_COMMENT = len(_MARK) + 2 * hashlib.sha256().digest_size
_END = b"PK\x05\x06"  # of the zip's last structure, 22 bytes whose last two count the comment's
_END_SIZE = 22
_BLOCK = 1 << 20


class DamagedFile(ArcfaceCakdError):
    """A file of tensors that is not what was written; the message says why, without its path."""


def write_tensors(path: str | os.PathLike, content: Any) -> None:
    """``torch.save`` to ``path`` itself, with a digest in the file; for an ``atomic_path``.

    Equal content gives equal bytes: given a path, torch would write the file's name into it, and
    so this machine's and a process number.

    Raises:
        OSError: the file cannot be written, as on a full disk.
    """
    try:
        with open(path, "wb") as file:
            sealing = _Sealing(file)
            try:
                torch.save(content, cast(IO[bytes], sealing))  # of which it uses two methods
            except RuntimeError:
                # torch, told of it, goes on to its own, about a position in the file.
                if sealing.failure is not None:
                    raise sealing.failure from None
                raise
            sealing.end()
    except OSError as error:  # of a write or of closing the file, which know no name
        error.filename = str(path)
        raise


def check_seal(path: str | os.PathLike) -> bool:
    """Hold a zip of tensors against the digest that it carries.

    Returns:
        whether it carries one.

    Raises:
        DamagedFile: it is another than that of the file.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(size - _END_SIZE - _COMMENT, 0)
        file.seek(start)
        tail = file.read()
        if tail[-_END_SIZE:].startswith(_END) and tail.endswith(b"\0\0"):  # no comment
            return False
        comment = tail[_END_SIZE:]
        if not tail.startswith(_END) or not comment.startswith(_MARK):
            raise DamagedFile("it is cut, or its end is damaged")
        file.seek(0)
        digest = hashlib.sha256()
        left = size - _COMMENT
        while left:
            block = file.read(min(left, _BLOCK))
            if not block:
                raise DamagedFile("it was cut while it was read")
            digest.update(block)
            left -= len(block)
    if comment != _MARK + digest.hexdigest().encode():
        raise DamagedFile("it is not what was written: its SHA-256 is not the one that it carries")
    return True


def check_checksums(archive: zipfile.ZipFile) -> None:
    """Hold the records of a zip against its checksums; nothing is kept of what is read.

    Raises:
        DamagedFile: one has another, or cannot be read.
    """
    try:
        damaged = archive.testzip()
    except Exception as error:  # heads that make no sense end in errors of many kinds
        raise DamagedFile(f"its records cannot be read ({error})") from error
    if damaged is not None:
        raise DamagedFile(f"its record {damaged[:60]!r} does not have the checksum that it should")


class _Sealing:
    """A file that digests what is written to it, but for the last two bytes, which change."""

    def __init__(self, file: IO[bytes]):
        self.failure: OSError | None = None
        self._file = file
        self._digest = hashlib.sha256()
        self._held = b""

    def write(self, data: memoryview) -> int:
        try:
            written = self._file.write(data)
        except OSError as error:
            self.failure = error
            raise
        if len(data) < 2:
            self._held += bytes(data)
            self._digest.update(self._held[:-2])
            self._held = self._held[-2:]
        else:
            self._digest.update(self._held)
            self._digest.update(data[:-2])
            self._held = bytes(data[-2:])
        return written

    def flush(self) -> None:
        self._file.flush()

    def end(self) -> None:
        """Write the comment and its length."""
        assert self._held == b"\0\0", "torch has written a comment of its own"
        length = struct.pack("<H", _COMMENT)
        self._digest.update(length)
        self._file.seek(-2, os.SEEK_END)
        self._file.write(length + _MARK + self._digest.hexdigest().encode())
