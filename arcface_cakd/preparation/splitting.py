"""A record set divided in two, of which no person is in both."""

import logging
from pathlib import Path

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.preparation.labels_table import LABELS_FILE
from arcface_cakd.preparation.output import check_vacant, whole_set
from arcface_cakd.preparation.record_set import RecordSet
from arcface_cakd.preparation.rewriting import Written, choose, write_chosen
from arcface_cakd.preparation.seeds import generator

logger = logging.getLogger("arcface_cakd")


def split_people(
    folder: str | Path,
    out: str | Path,
    held_out: str | Path,
    *,
    fraction: float | None = None,
    people: int | None = None,
    seed: int = 0,
    force: bool = False,
) -> tuple[Written, Written]:
    """Draw people of a record set, and write theirs and the others' images as two sets.

    In both, people are numbered from 0 on in the order of their labels, and ``labels.tsv`` says
    who they were. Encoded images are the same bytes, and landmarks go along. A person is a label:
    the log says which names are in both parts.

    Args:
        folder: of ``train.rec`` and ``train.idx``.
        out: folder of the people that were not drawn.
        held_out: folder of those that were.
        fraction: of the people to draw, above 0 and below 1; or
        people: how many to draw.
        seed: of the draw, 0 or more.
        force: whether data sets that are there may be replaced.

    Returns:
        what ``out`` and ``held_out`` came to.

    Raises:
        RecordIOError, DataError: see ``RecordSet``; fewer than two people on one side; a seed
            below 0; or a data set is there and ``force`` is false.
    """
    if (fraction is None) == (people is None):
        raise ValueError("give either fraction or people")
    if Path(out).resolve() == Path(held_out).resolve():
        raise DataError(f"{out}: the two parts must be two folders")
    for part in (out, held_out):
        check_vacant(part, force)
    images = RecordSet(folder)
    everyone = np.unique(images.labels)
    if people is None:
        assert fraction is not None
        if not 0 < fraction < 1:
            raise DataError(f"the fraction of people must be above 0 and below 1, got {fraction:g}")
        people = round(fraction * len(everyone))
    if not 2 <= people <= len(everyone) - 2:
        raise DataError(
            f"{folder}: {people} of {len(everyone)} people do not leave two or more on both sides, "
            "to tell apart: draw another number"
        )
    drawn = generator(seed).choice(everyone, people, replace=False)
    held = np.isin(images.labels, drawn)
    both = {images.names.of(label) for label in drawn.tolist()}
    both &= {images.names.of(label) for label in np.setdiff1d(everyone, drawn).tolist()}
    if both:
        logger.warning(
            "%s: %d name(s), %s first, stand for labels in both parts: where a name is one "
            "person's, that one is in both",
            *(images.folder / LABELS_FILE, len(both), min(both)),
        )
    with whole_set(out, force) as rest, whole_set(held_out, force) as part:
        return (
            write_chosen(rest, choose(images, np.flatnonzero(~held)), f"writing {out}"),
            write_chosen(part, choose(images, np.flatnonzero(held)), f"writing {held_out}"),
        )
