"""A record set written anew: people numbered from 0 on without gaps, identity by identity."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_landmarks import LANDMARKS_FILE, FaceLandmarks, find_landmarks
from arcface_cakd.data.labels import all_labels
from arcface_cakd.data.record_sets import write_identity_records
from arcface_cakd.data.records import split
from arcface_cakd.files import atomic_path
from arcface_cakd.preparation.labels_table import write_labels
from arcface_cakd.preparation.output import check_vacant, warn_of_former_landmarks
from arcface_cakd.progress import track
from arcface_cakd.recordio import MXIndexedRecordIO
from arcface_cakd.recordio.heads import read_heads
from arcface_cakd.recordio.index import RecordIndex


def renumber(folder: str | Path, out: str | Path, force: bool = False) -> tuple[int, int]:
    """Write the images of a record set as insightface lays them out, with labels 0 to people - 1.

    Every record that carries an image is taken, whatever record 0 says, and its first label; the
    order of labels stays, and within a person that of keys. Encoded images are the same bytes.
    Landmarks of the images go along. ``labels.tsv`` says what each label was.

    Args:
        folder: of ``train.rec`` and ``train.idx``.
        out: folder to write to.
        force: whether a data set that is there may be replaced.

    Returns:
        how many images and people there are.

    Raises:
        RecordIOError, DataError: a record is damaged, a label is no number of an identity, there
            is no image, landmarks do not fit, or a data set is there and ``force`` is false.
    """
    folder, out = Path(folder), Path(out)
    check_vacant(out, force)
    reader = MXIndexedRecordIO(folder / "train.idx", folder / "train.rec", "r")
    index = reader.idx
    assert isinstance(index, RecordIndex)  # whose keys are integers
    keys = index.sorted_keys
    keys = keys[read_heads(reader, keys).has_image]
    if not len(keys):
        raise DataError(f"{folder / 'train.rec'}: there is no image in it")
    labels = all_labels(reader, keys)
    order = np.argsort(labels, kind="stable")
    people, counts = np.unique(labels, return_counts=True)
    landmarks = None
    if find_landmarks(folder) is not None:
        landmarks = FaceLandmarks(folder, len(keys))
    tracked = track(keys[order].tolist(), "renumbering", unit="images")

    def images(number: int) -> Iterator[bytes]:
        for _ in range(number):
            yield split(reader.read_idx(next(tracked)))[0]

    write_identity_records(out, (images(number) for number in counts.tolist()))
    write_labels(out, [str(label) for label in people.tolist()], "former label")
    if landmarks is None:
        warn_of_former_landmarks(out)
    else:
        with atomic_path(out / LANDMARKS_FILE) as partial:
            np.save(partial, np.stack([landmarks[position] for position in order.tolist()]))
    return len(keys), len(people)
