"""``train.sha256``: digests of a record file, block by block, and of its index as a whole.

The format of records has no checksum: damage inside of an image is an image that decodes to
something else, or not. A line is ``<SHA-256> <file> <first byte> <bytes>``; the blocks of a file
follow each other.
"""

import hashlib
import mmap
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcface_cakd.files import write_text
from arcface_cakd.recordio.framing import RecordIOError

BLOCK = 1 << 20
_LINE = re.compile(rb"([0-9a-f]{64}) (\S+) ([0-9]{1,18}) ([0-9]{1,18})")


def digests_path(rec: str | os.PathLike) -> Path:
    """Where the digests of a record file are: ``train.sha256`` for ``train.rec``."""
    return Path(rec).with_suffix(".sha256")


def write_digests(rec: str | os.PathLike) -> Path:
    """Write the digests of a record file and of the index beside it, as they are now.

    Raises:
        RecordIOError: one of the two cannot be read.
    """
    rec = Path(rec)
    lines = [*_lines(rec, BLOCK), *_lines(rec.with_suffix(".idx"), 1 << 62)]
    write_text(digests_path(rec), "".join(lines))
    return digests_path(rec)


def renew_index_digest(rec: str | os.PathLike) -> None:
    """Write the digest of the index anew, where there are digests; the records' stay."""
    path, index = digests_path(rec), Path(rec).with_suffix(".idx")
    if path.is_file():
        name = f" {index.name} "
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if name not in line]
        write_text(path, "".join([*kept, *_lines(index, 1 << 62)]))


@dataclass(frozen=True)
class Block:
    """Consecutive bytes of a file, and their SHA-256 in hex."""

    start: int
    size: int
    sha256: str


class BlockDigests:
    """What ``train.sha256`` says, held against the files.

    Blocks of the record file are looked at when one of their bytes is asked for, once in a
    process and its forks.

    Args:
        rec: the record file.

    Raises:
        RecordIOError: there are no digests, they are damaged, or of files of another size.
    """

    def __init__(self, rec: str | os.PathLike):
        self.rec = Path(rec)
        self._files = _read(self.rec)
        for name, blocks in self._files.items():
            path, size = self.rec.with_name(name), sum(block.size for block in blocks)
            try:
                found = path.stat().st_size
            except OSError as error:
                raise RecordIOError(f"cannot be read: {error.strerror}", path) from error
            if found != size:
                raise RecordIOError(
                    f"has {found} bytes, and {digests_path(self.rec).name} is of {size}: cut, or "
                    "another file",
                    path,
                )
        self._blocks = self._files[self.rec.name]
        # Of this process and its forks, which do not each read all of the file for it.
        self._seen = np.frombuffer(mmap.mmap(-1, len(self._blocks)), dtype=np.uint8)

    def damage(self, buffer, start: int, end: int) -> RecordIOError | None:
        """What is wrong with the blocks that hold these bytes of the record file, if anything is.

        Args:
            buffer: the whole record file, bytes or mmap.
            start: the first byte.
            end: the one behind the last.
        """
        for number in range(start // BLOCK, min(-(-end // BLOCK), len(self._blocks))):
            if self._seen[number]:
                continue
            block = self._blocks[number]
            content = buffer[block.start : block.start + block.size]
            if hashlib.sha256(content).hexdigest() != block.sha256:
                return _damaged(self.rec, block)
            self._seen[number] = 1
        return None

    def __reduce__(self):
        return type(self), (self.rec,)

    def damages(self) -> list[RecordIOError]:
        """All that is wrong, of both files."""
        found = []
        for name, blocks in self._files.items():
            path = self.rec.with_name(name)
            with open(path, "rb") as file:
                for block in blocks:
                    if _sha256(file, block.size) != block.sha256:
                        found.append(_damaged(path, block))
        return found


def _damaged(path: Path, block: Block) -> RecordIOError:
    return RecordIOError(
        f"{block.size} bytes from here on are not those that {path.with_suffix('.sha256').name} "
        "is of: damaged, or written since",
        path,
        offset=block.start,
    )


def _lines(path: Path, most: int) -> list[str]:
    lines: list[str] = []
    start = 0
    try:
        with open(path, "rb") as file:
            left = os.fstat(file.fileno()).st_size
            while left or not lines:
                size = min(left, most)
                lines.append(f"{_sha256(file, size)} {path.name} {start} {size}\n")
                start, left = start + size, left - size
    except OSError as error:
        raise RecordIOError(f"cannot be read: {error.strerror}", path) from error
    return lines


def _sha256(file, size: int) -> str:
    digest = hashlib.sha256()
    while size and (part := file.read(min(size, BLOCK))):
        digest.update(part)
        size -= len(part)
    return digest.hexdigest()


def _read(rec: Path) -> dict[str, list[Block]]:
    path = digests_path(rec)
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise RecordIOError(
            f"cannot be read: {error.strerror}; 'arcface-cakd data digest {rec}' writes it", path
        ) from error
    files: dict[str, list[Block]] = {rec.name: [], rec.with_suffix(".idx").name: []}
    for number, line in enumerate(lines, start=1):
        said = _LINE.fullmatch(line)
        blocks = None if said is None else files.get(os.fsdecode(said[2]))
        begin = sum((blocks[-1].start, blocks[-1].size)) if blocks else 0
        if said is None or blocks is None or int(said[3]) != begin:
            raise RecordIOError(f"line {number} is no digest of the next block: damaged", path)
        blocks.append(Block(begin, int(said[4]), said[1].decode()))
    whole = files[rec.name]
    if not all(files.values()) or any(block.size != BLOCK for block in whole[:-1]):
        raise RecordIOError(f"lacks blocks, or has others than of {BLOCK} bytes: damaged", path)
    return files
