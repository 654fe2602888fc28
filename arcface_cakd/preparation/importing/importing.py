"""A data set of another format written as records: resumable, the same bytes, the same order."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.images import decode_crop
from arcface_cakd.data.people_names import warn_of_alike
from arcface_cakd.data.record_layout import MAX_EXACT
from arcface_cakd.data.record_sets import property_text
from arcface_cakd.data.text_lines import table_field
from arcface_cakd.files import write_text
from arcface_cakd.locks import FolderLock
from arcface_cakd.preparation.importing.growing import GrowingRecords
from arcface_cakd.preparation.importing.source import Sample, Source, as_number
from arcface_cakd.preparation.labels_table import write_labels
from arcface_cakd.preparation.output import check_vacant, move_set
from arcface_cakd.preparation.record_set import RecordSet
from arcface_cakd.preparation.rewriting import Written
from arcface_cakd.progress import track
from arcface_cakd.recordio.block_digests import write_digests
from arcface_cakd.workers import map_in_threads

logger = logging.getLogger("arcface_cakd")

Labels = Literal["auto", "numbers", "names"]

UNFINISHED = ".import"
_SAVE_EVERY = 4096  # samples
_NAMED = 20  # bad samples that the log names; the list in the folder has all
_HOPELESS = 100  # so many bad samples without a good one end an import


@dataclass(frozen=True)
class Imported(Written):
    """What an import came to.

    Attributes:
        skipped: samples that were left out.
        resumed: images that an earlier import had written.
    """

    skipped: int
    resumed: int


def import_set(
    source: Source,
    out: str | Path,
    *,
    labels: Labels = "auto",
    skip_bad: bool = False,
    force: bool = False,
) -> Imported:
    """Write a data set of another format as ``train.rec``, ``train.idx`` and ``property``.

    Images are the same bytes in the same order, laid out as im2rec does: the keys 0 and up. Every
    image is decoded once, on all cores, to be sure of it. Labels that are numbers stay; names are
    numbered in the order in which they come, and ``labels.tsv`` says which is whose.

    Until it is whole, the set grows in ``<out>/.import``. Stopped, also by a kill, an import of the
    same files goes on there, and its result is the same to the byte.

    Args:
        source: see ``formats.open_source``.
        out: folder to write to.
        labels: "numbers", "names", or "auto": what the first label is.
        skip_bad: leave out what is damaged or has no label; its list is ``left_out.tsv``.
        force: whether a data set that is there may be replaced.

    Raises:
        DataError: a data set is there, unless ``force``; samples are bad, unless ``skip_bad`` (what
            was written is kept, and the same with ``skip_bad`` finishes it); another import was
            begun there.
        FolderInUseError: another process is at it.
    """
    out = Path(out)
    check_vacant(out, force)
    made_of = {
        "format": source.kind,
        "files": [[str(path.absolute()), _size(path)] for path in source.files],
        "labels": labels,
        "settings": source.settings,
    }
    with contextlib.ExitStack() as stack:
        stack.callback(FolderLock(out).release)
        growing = GrowingRecords(out / UNFINISHED, made_of)
        stack.callback(growing.close)
        job = _Import(growing, source, labels)
        resumed = growing.images
        if resumed:
            logger.info("%s: goes on behind %d images", growing.folder, resumed)
        job.run()
        job.refuse_bad(skip_bad)
        written = job.finish(out)
    return Imported(written.images, written.people, job.bad, resumed)


class _Import:
    """The state of an import, and its steps."""

    def __init__(self, growing: GrowingRecords, source: Source, labels: Labels):
        self.growing, self.source = growing, source
        state = growing.state or {}
        self.file, self.number = state.get("file", 0), state.get("number", 0)
        self.seen, self.bad = state.get("seen", 0), state.get("bad", 0)
        self.labels: Labels = state.get("labels", labels)
        self.highest = state.get("highest", -1)
        self.numbers = {name: number for number, name in enumerate(growing.lines("names"))}

    def run(self) -> None:
        """Write what is not yet written."""
        total = self.source.count()
        left = None if total is None else total - self.seen
        checked = map_in_threads(_check, self._samples())
        for file, number, sample in track(checked, "importing", left, unit="images"):
            self._add(sample)
            self.file, self.number = file, number + 1
            self.seen += 1
            # Here alone, where all files agree: an interruption may come anywhere.
            if self.seen % _SAVE_EVERY == 0:
                self._save()
        self._save()

    def refuse_bad(self, skip_bad: bool) -> None:
        if self.bad and not skip_bad:
            first = self.growing.lines("left_out")[0]
            raise DataError(
                f"{first} ({self.bad} of {self.seen} samples cannot be taken, named in "
                f"{self.growing.folder / 'left_out'}): mend them and import anew, or finish "
                "without them with --skip-bad"
            )
        if self.bad and not self.growing.images:
            first = self.growing.lines("left_out")[0]
            raise DataError(f"{first}; all {self.bad} samples are bad: mend the data set")
        if not self.growing.images:
            raise DataError(f"{self.source.files[0]}: there is no image in it")

    def finish(self, out: Path) -> Written:
        """Put the set in place."""
        folder = self.growing.folder
        write_text(folder / "property", property_text(self.highest + 1))
        names = dict(enumerate(list(self.numbers) or self.source.label_names or []))
        names = {label: name for label, name in names.items() if name.strip()}
        warn_of_alike(out, names.values())
        if names:
            write_labels(folder, names, "name")
        if self.bad:
            lines = self.growing.lines("left_out")
            write_text(folder / "left_out.tsv", "".join(f"{line}\n" for line in lines))
        people = len(np.unique(RecordSet(folder).labels))
        if people < 2:
            logger.warning("%s: one person alone, and there must be others to tell it from", out)
        self.growing.finish()
        write_digests(folder / "train.rec")
        move_set(folder, out)
        folder.rmdir()
        return Written(self.growing.images, people)

    def _samples(self) -> Iterator[tuple[int, int, Sample]]:
        for file in range(self.file, len(self.source.files)):
            skip = self.number if file == self.file else 0
            for number, sample in enumerate(self.source.read(file, skip), start=skip):
                yield file, number, sample

    def _add(self, sample: Sample) -> None:
        problem = sample.problem
        if problem is None:
            try:
                label = self._number(sample.label)
            except ValueError as error:
                problem = str(error)
            else:
                self.growing.add(sample.encoded, label)
                self.highest = max(self.highest, label)
                return
        self.bad += 1
        line = table_field(f"{sample.place}: {problem}")
        self.growing.note("left_out", line)
        if self.bad <= _NAMED:
            logger.warning("%s", line)
        if self.bad >= _HOPELESS and not self.growing.images:
            raise DataError(f"{line}; the first {self.bad} samples are all bad: mend the data set")

    def _number(self, label: int | str) -> int:
        number = as_number(label)
        if self.labels == "auto":
            self.labels = "names" if number is None else "numbers"
        if number == -1:  # as Hugging Face's datasets and others mark it
            raise ValueError("its label is -1, which means that it has none")
        known = self.source.label_names
        if known and isinstance(label, int) and not 0 <= label < len(known):
            raise ValueError(f"its label {label} is none of the {len(known)} that have a name")
        if self.labels == "names":
            if known and isinstance(label, int):
                label = known[label]
            name = table_field(str(label))
            if name not in self.numbers:
                self.numbers[name] = len(self.numbers)
                self.growing.note("names", name)
            number = self.numbers[name]
        elif number is None:
            raise ValueError(
                f"its label {str(label)[:40]!r} is no number, as the first is; --labels names "
                "takes all for names"
            )
        if not 0 <= number < MAX_EXACT:
            anew = "; --labels names numbers people anew" if number >= 0 else ""
            raise ValueError(
                f"its label {number} is not one of 0 to {MAX_EXACT - 1}, which records can hold"
                + anew
            )
        return number

    def _save(self) -> None:
        names = ("file", "number", "seen", "bad", "labels", "highest")
        self.growing.save({name: getattr(self, name) for name in names})


def _check(item: tuple[int, int, Sample]) -> tuple[int, int, Sample]:
    """A sample, decoded to be sure of it; where it does not decode, that is its problem."""
    file, number, sample = item
    if sample.problem is not None:
        return item
    try:
        decode_crop(sample.encoded, strict=True)
    except DataError as error:
        return file, number, Sample(sample.place, problem=str(error))
    return item


def _size(path: Path) -> int:
    return (path / "data.mdb" if path.is_dir() else path).stat().st_size
