"""Images of record sets written as another set, identity by identity."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_landmarks import LANDMARKS_FILE
from arcface_cakd.data.record_layout import MAX_EXACT
from arcface_cakd.data.record_sets import write_identity_records
from arcface_cakd.landmarks import ARCFACE_TEMPLATE
from arcface_cakd.preparation.labels_table import FORMER_LABEL, LABELS_FILE, write_labels
from arcface_cakd.preparation.record_set import RecordSet
from arcface_cakd.progress import track

logger = logging.getLogger("arcface_cakd")


@dataclass(frozen=True)
class Written:
    """What a set came to."""

    images: int
    people: int

    def __str__(self) -> str:
        return f"{self.images} images of {self.people} people"


@dataclass(frozen=True)
class Chosen:
    """Images of record sets, and whose each will be.

    Attributes:
        sets: where they are from.
        places: (M, 2) int64, of each image its set's number and its position in it.
        labels: (M,) int64, new ones; each of 0 to people - 1 occurs.
        people: how many new labels there are.
        names: of the new labels that have one.
        heading: what the names are.
    """

    sets: Sequence[RecordSet]
    places: np.ndarray
    labels: np.ndarray
    people: int
    names: Mapping[int, str]
    heading: str


def choose(images: RecordSet, positions: np.ndarray) -> Chosen:
    """Some images of one set, its people numbered anew in the order of their labels.

    Names go along; whom ``labels.tsv`` leaves without one has none in the new set, for a label in
    place of a name would make people of two such sets one. The log says so.

    Args:
        images: the set.
        positions: (M,) of the images.
    """
    former, labels = np.unique(images.labels[positions], return_inverse=True)
    places = np.stack([np.zeros(len(positions), dtype=np.int64), positions], axis=1)
    known = images.names
    names = dict(enumerate(map(known.of, former.tolist())))
    if known.heading != FORMER_LABEL:
        nameless = [new for new, label in enumerate(former.tolist()) if label not in known.names]
        for new in nameless:
            del names[new]
        if nameless:
            logger.warning(
                "%s: has no name for %d of %d labels, %d first: they have none in the new set",
                *(images.folder / LABELS_FILE, len(nameless), len(former), former[nameless[0]]),
            )
    return Chosen([images], places, labels.reshape(-1), len(former), names, known.heading)


def write_chosen(folder: Path, chosen: Chosen, description: str) -> Written:
    """Write the images as insightface lays them out, with ``labels.tsv`` and landmarks.

    People in the order of the new labels, and within a person images in the order that is given;
    encoded images are the same bytes. One image is held at a time. Landmarks are written where
    every set has them.

    Args:
        folder: to write to, see ``output.whole_set``.
        chosen: the images.
        description: what the progress display says.

    Raises:
        RecordIOError, DataError: a record is damaged, a landmark is not finite, or there are more
            images than the format can count.
    """
    people = chosen.people
    if len(chosen.labels) + people >= MAX_EXACT:
        raise DataError(
            f"{len(chosen.labels)} images and {people} people are more than the {MAX_EXACT} that "
            "insightface's layout counts exactly: take fewer"
        )
    order = np.argsort(chosen.labels, kind="stable")
    counts = np.bincount(chosen.labels, minlength=people)
    places = chosen.places[order]
    tracked = track(places, description, len(places), unit="images")

    def images(number: int) -> Iterator[bytes]:
        for _ in range(number):
            which, position = next(tracked).tolist()
            yield chosen.sets[which].encoded(position)

    write_identity_records(folder, (images(number) for number in counts.tolist()))
    write_labels(folder, chosen.names, chosen.heading)
    write_landmarks(folder, chosen.sets, places)
    return Written(len(places), people)


def write_landmarks(folder: Path, sets: Sequence[RecordSet], places: np.ndarray) -> None:
    """Write the landmarks of images, in the order of their new keys, where every set has them.

    Args:
        folder: of the new set.
        sets: where the images are from.
        places: (M, 2), see ``Chosen``.
    """
    lacking = [images.folder for images in sets if images.landmarks is None]
    if len(lacking) < len(sets) and lacking:
        logger.warning("%s: has no landmarks, so the new set has none", lacking[0])
    if lacking:
        return
    shape = (len(places), *ARCFACE_TEMPLATE.shape)
    rows = np.lib.format.open_memmap(folder / LANDMARKS_FILE, "w+", np.dtype(np.float32), shape)
    for row, (which, position) in zip(rows, places.tolist(), strict=True):
        landmarks = sets[which].landmarks
        assert landmarks is not None
        row[:] = landmarks[position]
    rows.flush()
