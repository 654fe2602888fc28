"""Aligned crops of which some are still to come: kept so that the work goes on after a stop."""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from arcface_cakd.data.errors import DataError
from arcface_cakd.locks import try_lock
from arcface_cakd.preparation.align.crops_table import beside_crops
from arcface_cakd.preparation.align.outcome import Outcome
from arcface_cakd.preparation.align.photographs import Photograph

logger = logging.getLogger("arcface_cakd")

_JOURNAL = ".journal.jsonl"


class Unfinished:
    """Context: the folder beside ``out`` where crops are until all are there.

    A journal says what was done, a line for a photograph, and first by what settings; with
    others, the work begins anew. A line is written when the crops are, so whatever a kill leaves
    half-written is made again.

    Attributes:
        folder: where the crops are.

    Args:
        out: the folder that it becomes.
        settings: on which the crops hang; JSON's values.

    Raises:
        DataError: another process is at work there.
    """

    def __init__(self, out: Path, settings: Mapping[str, object]):
        self.folder = out.with_name(f".{out.name}.unfinished")
        self._out = out
        self._settings = json.loads(json.dumps(settings))
        self._done: dict[str, tuple[list[int], Outcome]] = {}

    def __enter__(self) -> "Unfinished":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._journal = open(self.folder / _JOURNAL, "a+", encoding="utf-8")
        # No FolderLock, whose file would be in the way of a folder that is renamed at the end.
        if not try_lock(self._journal):
            self._journal.close()
            raise DataError(f"{self._out}: another process is aligning into it")
        self._take_up()
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._journal.close()
        if self.folder.exists():
            if self._done:
                logger.info(
                    "%s: %d photographs are done: the same command goes on with the others",
                    self._out,
                    len(self._done),
                )
            else:
                self.discard()

    def has(self, photograph: Photograph) -> bool:
        """Whether that photograph was done, as it is now."""
        stamp, outcome = self._done.get(photograph.name, (None, None))
        return (
            outcome is not None
            and stamp == _stamp(photograph)
            and all(_size(self.folder / crop.file) == crop.bytes for crop in outcome.crops)
        )

    def outcome(self, photograph: Photograph) -> Outcome:
        """What became of a photograph that was done."""
        return self._done[photograph.name][1]

    def keep(self, photograph: Photograph, outcome: Outcome, encoded: Sequence[bytes]) -> None:
        """Write a photograph's crops, encoded, and that it was done."""
        self._forget(photograph.name)
        for crop, jpeg in zip(outcome.crops, encoded, strict=True):
            path = self.folder / crop.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg)
        stamp = _stamp(photograph)
        self._write({"photograph": photograph.name, "stamp": stamp, **outcome.to_json()})
        self._done[photograph.name] = stamp, outcome

    def finish(self) -> None:
        """Put the folder where ``out`` is to be, in place of what is there.

        What ``aligned.tsv`` does not name goes: crops of photographs that were taken away since.
        """
        journal = self.folder / _JOURNAL
        for path in beside_crops(self.folder):
            if path != journal:
                (path.rmdir if path.is_dir() else path.unlink)()
        journal.unlink()
        os.sync()  # once for all: what appears is on the disk
        former = self._out.with_name(f".{self._out.name}.{os.getpid()}.former")
        if self._out.exists():
            self._out.rename(former)
        self.folder.rename(self._out)
        shutil.rmtree(former, ignore_errors=True)

    def discard(self) -> None:
        """Remove all that was done."""
        shutil.rmtree(self.folder)

    def _take_up(self) -> None:
        self._journal.seek(0)
        lines = self._journal.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        if whole and json.loads(whole[0]) == self._settings:
            for line in whole[1:]:
                entry = json.loads(line)
                self._done[entry["photograph"]] = entry["stamp"], Outcome.from_json(entry)
            self._journal.truncate(sum(len(line.encode()) for line in whole))
            logger.info("%s: goes on: %d photographs are done", self._out, len(self._done))
            return
        if whole:
            logger.info("%s: was begun with other settings: begins anew", self._out)
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _JOURNAL:
                path.unlink()
        self._journal.truncate(0)
        self._write(self._settings)

    def _forget(self, name: str) -> None:
        if name in self._done:
            for crop in self._done.pop(name)[1].crops:
                (self.folder / crop.file).unlink(missing_ok=True)

    def _write(self, entry: object) -> None:
        self._journal.write(json.dumps(entry) + "\n")
        self._journal.flush()


def _stamp(photograph: Photograph) -> list[int]:
    """What tells whether a photograph is still the same."""
    try:
        found = os.stat(photograph.path)
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
