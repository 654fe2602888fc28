"""Face images and their identities in a record file, as insightface and im2rec write them."""

import logging
import struct
from pathlib import Path

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.labels import LabelSurvey, identity, survey
from arcface_cakd.data.record_layout import image_keys, read_property, warn_of_unindexed
from arcface_cakd.recordio import MXIndexedRecordIO, RecordIOError
from arcface_cakd.recordio.block_digests import BlockDigests
from arcface_cakd.recordio.header import HEADER_SIZE

logger = logging.getLogger("arcface_cakd")

_FLAG_AND_LABEL = struct.Struct("<If")
_FIRST_LABEL = struct.Struct("<f")


class FaceRecords:
    """The images of ``<folder>/train.rec``, read through ``train.idx``.

    Which records are images: see ``image_keys``. Where the caller does not know the number of
    identities, the labels are read (all, or of a large set a sample) and held against
    ``property`` and record 0; what does not fit is a warning, or an error where labels go beyond
    the number that is stated. Records that the index leaves out are a warning too.

    Attributes:
        keys: (N,) int64 ascending, the keys of the images; what order and flips hang on.
        num_classes: classes of a margin softmax over the labels: one more than the highest label,
            or as many as record 0 has headers of identities where that is more. Of a set whose
            labels are not all read, the number in ``property``, else in record 0. None where labels
            are not read.
        num_people: how many identities have images; None where that was not counted.

    Args:
        folder: the data set.
        num_classes: how many identities there are, where the caller knows.
        labelled: whether labels are read; where not, each is 0, whatever the record says.
        checked: whether records are held against ``train.sha256`` when they are read.

    Raises:
        RecordIOError: a file is missing, cut or foreign, or lacks a key that record 0 announces.
        DataError: ``property`` or record 0 makes no sense, there is no image, or a label is not
            one of the identities that they state.
    """

    def __init__(
        self,
        folder: str | Path,
        num_classes: int | None = None,
        *,
        labelled: bool = True,
        checked: bool = False,
    ):
        folder = Path(folder)
        self.path = folder / "train.rec"
        self.digests = BlockDigests(self.path) if checked else None
        self.reader = MXIndexedRecordIO(folder / "train.idx", self.path, "r")
        self.keys, self.identity_keys = image_keys(self.reader)
        if not len(self.keys):
            raise DataError(f"{self.path}: there is no image in it")
        warn_of_unindexed(self.reader, self.keys)
        self.num_people: int | None = None
        self.num_classes: int | None = None
        if labelled:
            self.num_classes = num_classes or self._count_identities(folder)

    def __len__(self) -> int:
        return len(self.keys)

    def encoded(self, position: int) -> tuple[bytes, int]:
        """The encoded image and the label of ``keys[position]``.

        Raises:
            RecordIOError: the record is damaged.
            DataError: it is no image record, or its label is not the number of an identity.
        """
        key = int(self.keys[position])
        payload = self.reader.read_idx(key)
        if self.digests is not None:
            self._check(key)
        encoded, label = split(payload)
        return encoded, 0 if self.num_classes is None else identity(label, self.num_classes)

    def _check(self, key: int) -> None:
        """Hold the record that was just read against its blocks' digests."""
        assert self.digests is not None
        begin, end = self.reader.idx[key], self.reader.tell()
        damage = self.digests.damage(self.reader.mapped(), begin, end)
        if damage is not None:
            raise RecordIOError(damage.problem, self.path, key, damage.offset)

    def describe(self, position: int) -> str:
        """The place of an image, for messages."""
        return f"{self.path}, key {self.keys[position]}"

    def _count_identities(self, folder: Path) -> int:
        stated = read_property(folder)
        headers = len(self.identity_keys)
        labels = survey(self.reader, self.keys, everything=not (stated or headers))
        misfit = property_misfit(folder, stated, headers, labels)
        if labels.highest >= (stated or headers or labels.highest + 1):
            raise DataError(misfit or _beyond_headers(folder, headers, labels))
        if misfit:
            logger.warning("%s", misfit)
        if not labels.complete:
            self.num_people = headers or None
            return stated or headers
        self.num_people = labels.people
        classes = max(labels.highest + 1, headers)
        if classes != labels.people:
            logger.warning("%s", _differ(folder, classes, labels))
        return classes


def split(payload: bytes) -> tuple[bytes, float]:
    """The encoded image and the label, the first one where there are several.

    Does what ``recordio.unpack`` does, at less cost.

    Raises:
        DataError: the payload is too short to be an image record.
    """
    try:
        flag, label = _FLAG_AND_LABEL.unpack_from(payload)
        if flag:
            label = _FIRST_LABEL.unpack_from(payload, HEADER_SIZE)[0]
    except struct.error:
        raise DataError("no image record: too short for its header and labels") from None
    return payload[HEADER_SIZE + 4 * flag :], label


def property_misfit(
    folder: Path, stated: int | None, headers: int, labels: LabelSurvey
) -> str | None:
    """What is wrong with the number of identities in ``property``, None where nothing is.

    Args:
        folder: the data set.
        stated: what ``property`` says, None where it is not there.
        headers: how many identities record 0 announces, 0 where it says nothing of them.
        labels: of the images.
    """
    if stated is None:
        return None
    says = f"{folder / 'property'}: says {stated} identities, but labels are {labels.range()}"
    needed = max(labels.highest + 1, headers)
    if labels.highest >= stated:
        advice = (
            f"number them from 0 on ('arcface-cakd data renumber {folder} OUT'), or write "
            f"'{needed},112,112' into it"
        )
        if labels.lowest == 1 and labels.highest == stated:
            return f"{says}, which begin at 1: {advice}, and class 0 is of nobody"
        return f"{says}: {advice}"
    if labels.complete and stated != needed:
        return f"{says}: {needed} are taken; write '{needed},112,112' into it"
    if not labels.complete and headers and stated != headers:
        return (
            f"{says} and record 0 announces {headers} identities: {stated} are taken; if that is "
            f"wrong, write '{headers},112,112' into it"
        )
    # By far too few for a sample of this size to have missed the others.
    if not labels.complete and (
        labels.highest + 1 < 0.9 * stated or 10 * labels.people < min(stated, labels.read)
    ):
        return (
            f"{says}, {labels.people} different ones among {labels.read} that were read: {stated} "
            "are taken; if that is wrong, write the right number into it, or number the "
            f"identities from 0 on ('arcface-cakd data renumber {folder} OUT')"
        )
    return None


def _beyond_headers(folder: Path, headers: int, labels: LabelSurvey) -> str:
    return (
        f"{folder / 'train.rec'}: record 0 announces {headers} identities, but labels are "
        f"{labels.range()}: number them from 0 on ('arcface-cakd data renumber {folder} OUT'), or "
        f"write '{labels.highest + 1},112,112' into {folder / 'property'}"
    )


def _differ(folder: Path, classes: int, labels: LabelSurvey) -> str:
    begin = ", which begin at 1" if labels.lowest == 1 else ""
    return (
        f"{folder / 'train.rec'}: {classes} classes for {labels.people} people, as labels are "
        f"{labels.range()}{begin}: 'arcface-cakd data renumber {folder} OUT' numbers the people "
        "from 0 on without gaps"
    )
