"""Several record sets made one."""

import itertools
import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.people_names import warn_of_alike
from arcface_cakd.preparation.labels_table import FORMER_LABEL, LABELS_FILE
from arcface_cakd.preparation.output import check_vacant, whole_set
from arcface_cakd.preparation.record_set import RecordSet
from arcface_cakd.preparation.rewriting import Chosen, Written, write_chosen

logger = logging.getLogger("arcface_cakd")

By = Literal["names", "offsets"]


@dataclass(frozen=True)
class Merged(Written):
    """What a merger came to.

    Attributes:
        joined: people that more than one set has.
    """

    joined: int


def merge(
    folders: Sequence[str | Path], out: str | Path, *, by: By = "names", force: bool = False
) -> Merged:
    """Write the images of several record sets as one.

    People come in the order of the sets, and within a set of their labels; who is in several
    stands where the first has them. Encoded images are the same bytes, and landmarks go along
    where every set has them. The log names whom one set has under two labels, and names that are
    nearly one.

    Args:
        folders: of two sets or more.
        out: folder to write to.
        by: "names": who has the same name in the sets' ``labels.tsv`` is one person, also within
            a set; "offsets": each label of each set is a person.
        force: whether a data set that is there may be replaced.

    Raises:
        RecordIOError, DataError: see ``RecordSet``; a set without names where they are needed; or
            a data set is there and ``force`` is false.
    """
    check_vacant(out, force)
    if len({Path(folder).resolve() for folder in folders}) < max(2, len(folders)):
        raise DataError("merging takes two sets or more, each of them once")
    sets = [RecordSet(folder) for folder in folders]
    people = [np.unique(images.labels) for images in sets]
    pairs = list(zip(sets, people, strict=True))
    who: list[list[Hashable]]  # equal where they are one person
    if by == "names":
        for images, own in pairs:
            _refuse_nameless(images, own)
            _warn_of_joined(images, own)
        heading = sets[0].names.heading
        names = [[images.names.of(label) for label in own.tolist()] for images, own in pairs]
        warn_of_alike(out, dict.fromkeys(itertools.chain(*names)))
        who = [list(own) for own in names]
    else:
        heading = "set/name"
        names = [
            [f"{images.folder}/{images.names.of(label)}" for label in own.tolist()]
            for images, own in pairs
        ]
        who = [[(number, label) for label in own.tolist()] for number, own in enumerate(people)]
    called = dict(zip(itertools.chain(*who), itertools.chain(*names), strict=True))
    known = {person: number for number, person in enumerate(called)}
    numbers = [[known[person] for person in own] for own in who]
    new = [
        np.array(own)[np.searchsorted(labels, images.labels)]
        for images, labels, own in zip(sets, people, numbers, strict=True)
    ]
    places = [
        np.stack([np.full(len(images), number), np.arange(len(images))], axis=1)
        for number, images in enumerate(sets)
    ]
    names_of_new = dict(enumerate(called.values()))
    chosen = Chosen(
        sets, np.concatenate(places), np.concatenate(new), len(called), names_of_new, heading
    )
    times = np.bincount(np.concatenate([np.unique(own) for own in new]), minlength=len(called))
    with whole_set(out, force) as folder:
        written = write_chosen(folder, chosen, "merging")
    return Merged(written.images, written.people, int((times > 1).sum()))


def _refuse_nameless(images: RecordSet, people: np.ndarray) -> None:
    path = images.folder / LABELS_FILE
    apart = "--by offsets takes its people for others than those of the other sets"
    if not images.names.names:
        raise DataError(f"{path}: no names are there, by which people are joined: {apart}")
    if images.names.heading == FORMER_LABEL:
        raise DataError(
            f"{path}: has former labels, and equal numbers of two sets are not one person: "
            f"write names into it, below a line 'label<tab>name'; or {apart}"
        )
    nameless = [label for label in people.tolist() if label not in images.names.names]
    if nameless:
        raise DataError(f"{path}: has no name for label {nameless[0]}: add it; or {apart}")


def _warn_of_joined(images: RecordSet, people: np.ndarray) -> None:
    """Say which people of one set become one, for they have one name in it."""
    if twice := images.names.shared(people.tolist()):
        logger.warning(
            "%s: %d name(s) stand for several labels, %s first, and each is taken for one person: "
            "where they are several, give them names of their own there, or --by offsets",
            *(images.folder / LABELS_FILE, len(twice), twice[0]),
        )
