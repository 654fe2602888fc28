"""A ``.bin`` verification set made of images, and whom each of its pairs shows."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcface_cakd.data.bins import pairs_problem, people_file, write_bin
from arcface_cakd.data.errors import DataError
from arcface_cakd.data.text_lines import table_field
from arcface_cakd.files import atomic_path, write_text
from arcface_cakd.preparation.output import check_beside
from arcface_cakd.preparation.packing import as_packed
from arcface_cakd.preparation.pair_drawing import FOLDS, draw_pairs
from arcface_cakd.preparation.pair_images import FolderImages, PairImages, open_pair_images
from arcface_cakd.preparation.pair_lists import ListedPair, read_pair_list
from arcface_cakd.progress import track

logger = logging.getLogger("arcface_cakd")


@dataclass(frozen=True)
class Paired:
    """What a verification set came to.

    Attributes:
        same, different: pairs of one person and of two.
        people: who is in it; None where nothing tells it.
        skipped: pairs of the list that were left out, each with what is wrong with it.
    """

    same: int
    different: int
    people: int | None
    skipped: list[str]


def draw_bin(
    dataset: str | Path, out: str | Path, pairs: int, seed: int, *, force: bool = False
) -> Paired:
    """Draw a verification set from the images of a data set; see ``pair_drawing.draw_pairs``.

    Args:
        dataset: folder of a record set, or of one folder of 112 x 112 images per person.
        out: the ``.bin`` file.
        pairs: how many, a multiple of 20.
        seed: of the draw.
        force: whether a set that is there may be replaced.

    Raises:
        DataError, RecordIOError: ``out`` is no ``.bin``, there, or in a person's folder; the data
            set cannot be read; there are not so many pairs; an image does not decode or has
            another size.
    """
    out = vacant_bin(out, force)
    images = _opened(dataset, out)
    labels = images.labels()
    known = np.flatnonzero(labels >= 0)
    places, issame = draw_pairs(labels[known], pairs, seed)
    return _write(out, images, known[places], issame, [])


def list_bin(
    dataset: str | Path,
    out: str | Path,
    pair_list: str | Path,
    *,
    skip_bad: bool = False,
    force: bool = False,
) -> Paired:
    """Make a verification set of the pairs that a list names; see ``pair_lists``.

    Args:
        dataset: folder of a record set, whose images are named by their keys, or of images in
            folders, named by their paths.
        out: the ``.bin`` file.
        pair_list: the list. Where it does not say whether a pair is of one person, labels or
            folders do.
        skip_bad: leave out pairs of images that are not there or cannot be used.
        force: whether a set that is there may be replaced.

    Raises:
        DataError, RecordIOError: as ``draw_bin``; a pair that is not there or cannot be used,
            unless ``skip_bad``; pairs that the 10-fold protocol cannot judge.
    """
    out = vacant_bin(out, force)
    listed = read_pair_list(pair_list)
    images = _opened(dataset, out)
    places, issame, bad = [], [], []
    usable: dict[int, str | None] = {}
    for pair in track(listed, "looking at pairs", unit="pairs"):
        found, problem = _look_up(images, pair, usable)
        if problem is not None:
            bad.append(f"{pair_list}, line {pair.line}: {problem}")
            logger.warning("%s", bad[-1])
            continue
        places.append(found)
        issame.append(_truth(images, pair, found, pair_list))
    if bad and not skip_bad:
        raise DataError(
            f"{bad[0]} ({len(bad)} of {len(listed)} pairs cannot be made, each named above): mend "
            "the list or the data set, or leave them out with --skip-bad"
        )
    truth = np.array(issame, dtype=bool)
    if problem := pairs_problem(truth, FOLDS):
        raise DataError(f"{pair_list}: {problem}")
    return _write(out, images, np.array(places), truth, bad)


def vacant_bin(out: str | Path, force: bool) -> Path:
    """``out``, where a ``.bin`` set may be written, and beside it who is on its pairs.

    Raises:
        DataError: it has another name, or one of the two is there and ``force`` is false.
    """
    out = Path(out)
    if out.suffix != ".bin":
        raise DataError(f"{out}: the name of a verification set must end in .bin")
    for path in (out, people_file(out)):
        if path.exists() and not force:
            raise DataError(f"{path}: is there: choose another name, or replace it with --force")
    return out


def replace_bin(
    out: Path,
    encoded: Sequence[bytes],
    issame: Sequence[bool],
    people: Sequence[tuple[str, str]] | None = None,
) -> None:
    """Write a ``.bin`` set, and who is on its pairs where that is known, in place of a former one.

    Args:
        out: the file.
        encoded: 2P images, pair by pair.
        issame: P truth values.
        people: P times two names.
    """
    with atomic_path(out) as partial:
        write_bin(partial, encoded, issame)
        # Nobody is to read whom the former set showed.
        people_file(out).unlink(missing_ok=True)
    if people is not None:
        lines = ("\t".join(map(table_field, pair)) + "\n" for pair in people)
        write_text(people_file(out), "".join(lines))


def _opened(dataset: str | Path, out: Path) -> PairImages:
    images = open_pair_images(dataset)
    if isinstance(images, FolderImages):
        check_beside(out.parent, dataset)
    return images


def _look_up(
    images: PairImages, pair: ListedPair, usable: dict[int, str | None]
) -> tuple[tuple[int, int], str | None]:
    """Positions of a pair's images, and what is wrong with them."""
    found = []
    for name in pair.images:
        meant = images.find(name)
        if not meant:
            return (-1, -1), f"no image {name}"
        if len(meant) > 1:
            one, other = (images.describe(position) for position in meant[:2])
            says = "say which by its suffix, or remove one"
            return (-1, -1), f"{name} may be {one} or {other}: {says}"
        position = meant[0]
        if position not in usable:
            try:
                as_packed(images.encoded(position))
                usable[position] = None
            except DataError as error:
                usable[position] = f"{images.describe(position)}: {error}"
        if usable[position] is not None:
            return (-1, -1), usable[position]
        found.append(position)
    if found[0] == found[1]:
        return (-1, -1), f"{pair.images[0]} twice"
    return (found[0], found[1]), None


def _truth(
    images: PairImages, pair: ListedPair, places: tuple[int, int], pair_list: str | Path
) -> bool:
    if pair.same is not None:
        return pair.same
    people = [images.person(position) for position in places]
    if None in people:
        raise DataError(
            f"{pair_list}, line {pair.line}: does not say whether the two show one person, and "
            "they are in no person's folder: add 1 or 0 to each line"
        )
    return people[0] == people[1]


def _write(
    out: Path, images: PairImages, places: np.ndarray, issame: np.ndarray, skipped: list[str]
) -> Paired:
    encoded: dict[int, bytes] = {}
    positions = np.unique(places).tolist()
    for position in track(positions, f"reading for {out.name}", unit="images"):
        try:
            encoded[position] = as_packed(images.encoded(position))[0]
        except DataError as error:
            raise DataError(f"{images.describe(position)}: {error}") from error
    people = _people(images, places, issame, out)
    images_of_pairs = [encoded[position] for position in places.ravel().tolist()]
    replace_bin(out, images_of_pairs, issame.tolist(), people)
    count = None if people is None else len({person for pair in people for person in pair})
    return Paired(int(issame.sum()), int((~issame).sum()), count, skipped)


def _people(
    images: PairImages, places: np.ndarray, issame: np.ndarray, out: Path
) -> Sequence[tuple[str, str]] | None:
    """The two people of every pair, where labels or folders tell them."""
    people = []
    for number, (one, other) in enumerate(places.tolist()):
        names = images.person(one), images.person(other)
        if names[0] is None or names[1] is None:
            logger.info("%s: folders tell nobody's name: no %s", out, people_file(out).name)
            return None
        if (names[0] == names[1]) != issame[number]:
            kind = "one person" if issame[number] else "two people"
            logger.warning(
                "%s: the list takes %s and %s for %s, and they are of %s and %s: its word is "
                "taken, and there is no %s",
                *(out, images.describe(one), images.describe(other), kind, *names),
                people_file(out).name,
            )
            return None
        people.append((names[0], names[1]))
    fold = np.sort(np.arange(len(people)) * FOLDS // len(people))
    where: dict[str, set[int]] = {}
    for number, names in zip(fold.tolist(), people, strict=True):
        for name in names:
            where.setdefault(name, set()).add(number)
    several = [name for name, folds in where.items() if len(folds) > 1]
    if several:
        logger.warning(
            "%s: %d of %d people (%s first) are in more than one of %d folds: a threshold that was "
            "found on the others has seen them",
            *(out, len(several), len(where), several[0], FOLDS),
        )
    return people
