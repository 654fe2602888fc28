"""A record set that grows, is stopped, and goes on where it was last known to be whole."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from arcface_cakd.data.errors import DataError
from arcface_cakd.files import write_text
from arcface_cakd.recordio import IRHeader, pack
from arcface_cakd.recordio.framing import frame

_STATE = "state.json"
_GROWING = ("train.rec", "train.idx", "names", "left_out")


class GrowingRecords:
    """A folder in which records, names of labels and a list of what was left out grow.

    ``save`` notes how long each file is, when all of it is on the disk; opened again, the files are
    cut there, so that what comes behind is as if nobody had stopped. The caller sees to it that one
    process at a time has it.

    Attributes:
        state: what was given to ``save`` last; None in a new one.
        images: how many records there are; their keys are 0 and up.

    Args:
        folder: made if it is missing.
        made_of: what the set is made of, in types that JSON has; it must be the same each time.

    Raises:
        DataError: it was begun from something else.
    """

    def __init__(self, folder: Path, made_of: Any):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._made_of = json.loads(json.dumps(made_of))
        self.state: dict[str, Any] | None = None
        lengths: Mapping[str, int] = {}
        self.images = 0
        if (folder / _STATE).is_file():
            kept = json.loads((folder / _STATE).read_text(encoding="utf-8"))
            if kept["made_of"] != self._made_of:
                raise DataError(
                    f"{folder}: an import of other files or settings stopped there: go on with "
                    "those, or remove the folder"
                )
            self.state, lengths, self.images = kept["state"], kept["lengths"], kept["images"]
        self._files: dict[str, IO[bytes]] = {}
        for name in _GROWING:
            file = open(folder / name, "ab")  # noqa: SIM115  # until close()
            file.truncate(lengths.get(name, 0))
            self._files[name] = file
        self._length = lengths.get("train.rec", 0)

    def add(self, encoded: bytes, label: int) -> None:
        """Append an image."""
        record = frame(pack(IRHeader(0, label, self.images, 0), encoded))
        self._files["train.rec"].write(record)
        self._files["train.idx"].write(f"{self.images}\t{self._length}\n".encode())
        self._length += len(record)
        self.images += 1

    def note(self, name: str, line: str) -> None:
        """Append a line to ``names`` or ``left_out``."""
        self._files[name].write(f"{line}\n".encode("utf-8", "backslashreplace"))

    def lines(self, name: str) -> list[str]:
        """What was noted."""
        self._files[name].flush()
        return (self.folder / name).read_bytes().decode("utf-8").split("\n")[:-1]

    def save(self, state: dict[str, Any]) -> None:
        """Remember all that was added, and ``state`` with it."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        kept = {
            "made_of": self._made_of,
            "state": state,
            "images": self.images,
            "lengths": {name: file.tell() for name, file in self._files.items()},
        }
        self.state = state
        write_text(self.folder / _STATE, json.dumps(kept))

    def close(self) -> None:
        """Close the files; where nothing was saved, the folder goes."""
        for file in self._files.values():
            with contextlib.suppress(OSError):  # a full disk
                file.close()
        if self.state is None:
            self.remove(*_GROWING)
            with contextlib.suppress(OSError):  # something else is in it
                self.folder.rmdir()

    def remove(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def finish(self) -> None:
        """Leave in the folder what belongs to the set alone."""
        for file in self._files.values():
            file.close()
        self.remove("names", "left_out", _STATE)
