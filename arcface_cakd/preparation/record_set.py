"""A record set as preparation takes it: images, labels, the people's names, landmarks."""

from pathlib import Path

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_landmarks import FaceLandmarks, find_landmarks
from arcface_cakd.data.labels import all_labels
from arcface_cakd.data.record_layout import image_keys, warn_of_unindexed
from arcface_cakd.data.records import split
from arcface_cakd.preparation.labels_table import FORMER_LABEL, LabelNames, read_labels
from arcface_cakd.recordio import MXIndexedRecordIO
from arcface_cakd.recordio.heads import read_heads
from arcface_cakd.recordio.index import RecordIndex


class RecordSet:
    """The images of ``<folder>/train.rec``.

    Attributes:
        folder: of the set.
        keys: (N,) int64, ascending.
        labels: (N,) int64, the first label of each image.
        names: what ``labels.tsv`` says of the labels; else each label is its own name.
        landmarks: of the images, None where the set has none.

    Args:
        folder: the data set.
        every: take every record that carries an image, whatever record 0 says.

    Raises:
        RecordIOError: a file is missing, cut or foreign.
        DataError: no image, a label that is no number of an identity, record 0 makes no sense, or
            landmarks or ``labels.tsv`` do not fit.
    """

    def __init__(self, folder: str | Path, *, every: bool = False):
        self.folder = Path(folder)
        self.path = self.folder / "train.rec"
        if not self.path.exists() and not self.path.with_suffix(".idx").exists():
            raise DataError(
                f"{self.path}: no such file: give the folder of a record set; 'arcface-cakd data "
                "pack' makes one of people's folders"
            )
        self._reader = MXIndexedRecordIO(self.path.with_suffix(".idx"), self.path, "r")
        if every:
            index = self._reader.idx
            assert isinstance(index, RecordIndex)  # whose keys are integers
            keys = index.sorted_keys
            self.keys = keys[read_heads(self._reader, keys).has_image]
        else:
            self.keys, _ = image_keys(self._reader)
            keys = self.keys
        if not len(self.keys):
            raise DataError(f"{self.path}: there is no image in it")
        warn_of_unindexed(self._reader, keys)
        self.labels = all_labels(self._reader, self.keys)
        self.names = read_labels(self.folder) or LabelNames(FORMER_LABEL, {})
        self.landmarks: FaceLandmarks | None = None
        if find_landmarks(self.folder) is not None:
            self.landmarks = FaceLandmarks(self.folder, len(self.keys))

    def __len__(self) -> int:
        return len(self.keys)

    def encoded(self, position: int) -> bytes:
        """The encoded image of ``keys[position]``; may be called from many threads.

        Raises:
            RecordIOError: the record is damaged.
        """
        return split(self._reader.read_idx(int(self.keys[position])))[0]

    def describe(self, position: int) -> str:
        """The place of an image, for messages."""
        return f"{self.path}, key {self.keys[position]}"

    def verification_sets(self) -> list[str]:
        """Names of the ``.bin`` sets beside the records."""
        return sorted(path.name for path in self.folder.glob("*.bin"))
