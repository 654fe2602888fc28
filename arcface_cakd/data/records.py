"""Face images and their identities in a record file, as insightface and im2rec write them."""

import struct
from pathlib import Path

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.progress import track
from arcface_cakd.recordio import MissingKeyError, MXIndexedRecordIO, RecordIOError, unpack
from arcface_cakd.recordio.index import RecordIndex

MAX_EXACT = 2**24  # labels are float32: integers up to here are exact

_FLAG_AND_LABEL = struct.Struct("<If")
_FIRST_LABEL = struct.Struct("<f")
_HEADER_SIZE = 24


class FaceRecords:
    """The images of ``<folder>/train.rec``, read through ``train.idx``.

    Record 0 tells the kind. In an insightface set its flag is above 0 and its first label n + 1:
    the images are the keys 1 to n, identity headers follow. In an im2rec set its flag is 0 and
    every key is an image.

    Attributes:
        keys: (N,) int64 ascending, the keys of the images; what order and flips hang on.
        num_classes: identities, from ``property`` where it is there, else from record 0, else
            counted by reading every label; None where labels are not read.

    Args:
        folder: the data set.
        num_classes: how many identities there are, where the caller knows.
        labelled: whether labels are read; where not, each is 0, whatever the record says.

    Raises:
        RecordIOError: a file is missing, cut or foreign, or lacks a key that record 0 announces.
        DataError: ``property`` or record 0 makes no sense.
    """

    def __init__(
        self, folder: str | Path, num_classes: int | None = None, *, labelled: bool = True
    ):
        folder = Path(folder)
        self.path = folder / "train.rec"
        self.reader = MXIndexedRecordIO(folder / "train.idx", self.path, "r")
        self.keys, self.identity_keys = image_keys(self.reader)
        self.num_classes: int | None = None
        if labelled:
            self.num_classes = num_classes or read_property(folder) or self._count_identities()

    def __len__(self) -> int:
        return len(self.keys)

    def encoded(self, position: int) -> tuple[bytes, int]:
        """The encoded image and the label of ``keys[position]``.

        Raises:
            RecordIOError: the record is damaged.
            DataError: it is no image record, or its label is not the number of an identity.
        """
        key = int(self.keys[position])
        encoded, label = split(self.reader.read_idx(key))
        return encoded, 0 if self.num_classes is None else identity(label, self.num_classes)

    def describe(self, position: int) -> str:
        """The place of an image, for messages."""
        return f"{self.path}, key {self.keys[position]}"

    def _count_identities(self) -> int:
        if len(self.identity_keys):
            return len(self.identity_keys)
        highest = 0
        for key in track(self.keys.tolist(), "counting identities", unit="records"):
            payload = self.reader.read_idx(key)
            try:
                highest = max(highest, identity(split(payload)[1], MAX_EXACT))
            except DataError as error:
                raise DataError(f"{self.path}, key {key}: {error}") from error
        return highest + 1


def split(payload: bytes) -> tuple[bytes, float]:
    """The encoded image and the label, the first one where there are several.

    Does what ``recordio.unpack`` does, at less cost.

    Raises:
        DataError: the payload is too short to be an image record.
    """
    try:
        flag, label = _FLAG_AND_LABEL.unpack_from(payload)
        if flag:
            label = _FIRST_LABEL.unpack_from(payload, _HEADER_SIZE)[0]
    except struct.error:
        raise DataError("no image record: too short for its header and labels") from None
    return payload[_HEADER_SIZE + 4 * flag :], label


def identity(label: float, num_classes: int) -> int:
    """A label as the number of an identity.

    Raises:
        DataError: it is not one of 0 to ``num_classes`` - 1.
    """
    if not 0 <= label < num_classes or label != int(label):
        raise DataError(
            f"label {label:g} is not one of 0 to {num_classes - 1}: set num_classes to the number "
            "of identities, or mend the data set"
        )
    return int(label)


def image_keys(reader: MXIndexedRecordIO) -> tuple[np.ndarray, np.ndarray]:
    """The keys of images and of identity headers, as record 0 tells; both int64, ascending.

    Raises:
        RecordIOError: record 0 is missing or damaged, or announces keys that are not there.
        DataError: record 0 makes no sense.
    """
    try:
        header, _ = unpack(reader.read_idx(0))
    except MissingKeyError as error:
        raise MissingKeyError(
            "record 0, which tells what is an image, is not there: cut, or no set of images",
            error.path,
            0,
        ) from error
    except RecordIOError as error:
        raise RecordIOError(error.problem, reader.uri, 0, reader.idx[0]) from error
    index = reader.idx
    assert isinstance(index, RecordIndex)  # whose keys are integers
    if header.flag == 0:
        return index.sorted_keys, np.zeros(0, dtype=np.int64)
    ends = np.asarray(header.label, dtype=np.float64)
    if not np.all(np.isfinite(ends)) or ends[0] < 1 or np.any(np.diff(ends) < 0):
        raise DataError(f"{reader.uri}, key 0: labels {ends[:2].tolist()} tell no range of keys")
    # Beyond MAX_EXACT these are rounded; arcface_torch takes them as they are, and so do we.
    first_header = int(ends[0])
    last = int(ends[1]) if len(ends) > 1 else first_header
    if last > 2**40:
        raise DataError(f"{reader.uri}, key 0: labels {ends[:2].tolist()} tell no range of keys")
    known = index.sorted_keys
    announced = int(np.searchsorted(known, last) - np.searchsorted(known, 1))
    if announced != last - 1:
        found = known[(known >= 1) & (known < last)]
        gaps = np.flatnonzero(found != np.arange(1, len(found) + 1))
        raise MissingKeyError(
            f"the index lacks {last - 1 - announced} of the {last - 1} keys that record 0 "
            "announces, this one first: cut, or not the index of this file",
            reader.idx_path,
            int(gaps[0]) + 1 if len(gaps) else len(found) + 1,
        )
    return (
        np.arange(1, first_header, dtype=np.int64),
        np.arange(first_header, last, dtype=np.int64),
    )


def read_property(folder: Path) -> int | None:
    """The number of identities in ``<folder>/property``, None where there is no such file.

    Raises:
        DataError: the file does not say ``identities,112,112``.
    """
    path = folder / "property"
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    fields = text.splitlines()[0].split(",") if text else []
    try:
        identities, *size = (int(field) for field in fields)
    except ValueError:
        identities, size = 0, []
    if identities < 1 or size != [CROP_SIZE, CROP_SIZE]:
        raise DataError(f"{path}: must say 'identities,112,112', says {text[:40]!r}: mend it")
    return identities
