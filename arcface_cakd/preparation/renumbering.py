"""A record set written anew: people numbered from 0 on without gaps, identity by identity."""

import logging
from pathlib import Path

import numpy as np

from arcface_cakd.preparation.labels_table import FORMER_LABEL, LABELS_FILE
from arcface_cakd.preparation.output import check_vacant, whole_set
from arcface_cakd.preparation.record_set import RecordSet
from arcface_cakd.preparation.rewriting import Chosen, Written, write_chosen

logger = logging.getLogger("arcface_cakd")


def renumber(folder: str | Path, out: str | Path, force: bool = False) -> Written:
    """Write the images of a record set as insightface lays them out, with labels 0 to people - 1.

    Every record that carries an image is taken, whatever record 0 says, and its first label; the
    order of labels stays, and within a person that of keys. Encoded images are the same bytes.
    Landmarks of the images go along. ``labels.tsv`` says what each label was; names that the set
    has do not go along, and the log says so.

    Args:
        folder: of ``train.rec`` and ``train.idx``.
        out: folder to write to.
        force: whether a data set that is there may be replaced.

    Raises:
        RecordIOError, DataError: a record is damaged, a label is no number of an identity, there
            is no image, landmarks do not fit, or a data set is there and ``force`` is false.
    """
    check_vacant(out, force)
    images = RecordSet(folder, every=True)
    people, labels = np.unique(images.labels, return_inverse=True)
    places = np.stack([np.zeros(len(images), dtype=np.int64), np.arange(len(images))], axis=1)
    names = {new: str(label) for new, label in enumerate(people.tolist())}
    chosen = Chosen([images], places, labels.reshape(-1), len(people), names, FORMER_LABEL)
    if images.names.names and images.names.heading != FORMER_LABEL:
        logger.warning(
            "%s: its names stay there: the new one has the former labels in their place",
            images.folder / LABELS_FILE,
        )
    with whole_set(out, force) as new:
        return write_chosen(new, chosen, "renumbering")
