"""Labels as numbers of identities, and how many people a record file shows."""

from dataclasses import dataclass

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.record_layout import MAX_EXACT
from arcface_cakd.progress import track
from arcface_cakd.recordio import MXIndexedRecordIO
from arcface_cakd.recordio.heads import read_heads

# Of more images than this, a sample of labels is read, if another number says how many people
# there are: on a cold disk a label costs as much as its image.
_READ_ALL = 2**18
_SAMPLE = 2**14
_BLOCK = 2**16


def identity(label: float, num_classes: int) -> int:
    """A label as the number of an identity.

    Raises:
        DataError: it is not one of 0 to ``num_classes`` - 1.
    """
    if not 0 <= label < num_classes or label != int(label):
        where = f"label {label:g} is not one of 0 to {num_classes - 1}"
        if label >= num_classes and label < MAX_EXACT and label == int(label):
            raise DataError(
                f"{where}: set num_classes (and property, where there is one) to {int(label) + 1} "
                "or more, or number the identities from 0 on ('arcface-cakd data renumber')"
            )
        raise DataError(f"{where}: mend the data set")
    return int(label)


@dataclass(frozen=True)
class LabelSurvey:
    """What the labels of a record file are.

    Attributes:
        lowest, highest: of the labels that were read.
        people: how many different labels those are.
        read: how many labels were read.
        complete: whether those are all.
    """

    lowest: int
    highest: int
    people: int
    read: int
    complete: bool

    def range(self) -> str:
        """The labels, for messages."""
        return f"{self.lowest} to {self.highest}"


def all_labels(reader: MXIndexedRecordIO, keys: np.ndarray) -> np.ndarray:
    """The labels under ``keys`` (N,), int64 (N,).

    Raises:
        RecordIOError: a record is damaged.
        DataError: a label is not the number of an identity.
    """
    labels = np.empty(len(keys), dtype=np.int64)
    starts = range(0, len(keys), _BLOCK)
    for start in track(starts, "reading labels", unit=f"blocks of {_BLOCK}"):
        block = slice(start, start + _BLOCK)
        found = read_heads(reader, keys[block]).labels
        with np.errstate(invalid="ignore"):  # comparisons with NaN
            wrong = ~((found >= 0) & (found < MAX_EXACT) & (found == np.floor(found)))
        if wrong.any():
            first = int(np.argmax(wrong))
            try:
                identity(float(found[first]), MAX_EXACT)
            except DataError as error:
                raise DataError(f"{reader.uri}, key {keys[block][first]}: {error}") from error
        labels[block] = found.astype(np.int64)
    return labels


def survey(reader: MXIndexedRecordIO, keys: np.ndarray, everything: bool) -> LabelSurvey:
    """Read the labels of images, of a large set a sample that is spread evenly.

    Args:
        reader: the records.
        keys: (N,) of the images, N at least 1.
        everything: read every label, however many there are.

    Raises:
        RecordIOError, DataError: see ``all_labels``.
    """
    complete = everything or len(keys) <= _READ_ALL
    if not complete:
        keys = keys[np.linspace(0, len(keys) - 1, _SAMPLE).astype(np.int64)]
    labels = all_labels(reader, keys)
    return LabelSurvey(
        lowest=int(labels.min()),
        highest=int(labels.max()),
        people=len(np.unique(labels)),
        read=len(labels),
        complete=complete,
    )
