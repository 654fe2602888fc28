"""Pairs of images drawn by a seed, in tenths that share nobody."""

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.preparation.seeds import generator

FOLDS = 10


def draw_pairs(labels: np.ndarray, pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs for the 10-fold protocol: half of each tenth shows one person, and half two.

    As in LFW's protocol, no person is in two tenths, and within a tenth come first pairs of one
    person and then pairs of two. People are dealt to the tenths so that each can have as many
    pairs of one person; pairs of one person are taken from as many people, and as evenly, as
    their images allow. No pair is there twice, and none is of an image with itself.

    Args:
        labels: (N,) whom each image shows.
        pairs: a multiple of 20.
        seed: of the draw, 0 or more.

    Returns:
        positions of the images, int64 (pairs, 2), and whether they show one person, bool (pairs,).

    Raises:
        DataError: another number of pairs, or more than there can be; a seed below 0.
    """
    if pairs < 2 * FOLDS or pairs % (2 * FOLDS):
        raise DataError(
            f"{pairs} pairs: it must be a multiple of {2 * FOLDS}, so that each of {FOLDS} folds "
            "has as many pairs of one person as of two"
        )
    rng = generator(seed)
    half = pairs // (2 * FOLDS)
    order = np.argsort(labels, kind="stable")
    people = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    folds = _dealt(people, rng)
    possible = min(min(_of_one(fold), _of_two(fold)) for fold in folds)
    if half > possible:
        most = 2 * FOLDS * possible
        raise DataError(
            f"{len(people)} people with {len(labels)} images make at most {most} such pairs "
            f"(no person in two of {FOLDS} folds, half of each fold of one person), not {pairs}"
            + (f": ask for {most}" if most else ": take a set of more people with several images")
        )
    places = []
    for fold in folds:
        places += _draw_of_one(fold, half, rng)
        places += _draw_of_two(fold, half, rng)
    issame = np.tile(np.repeat([True, False], half), FOLDS)
    return np.array(places, dtype=np.int64), issame


def _dealt(people: list[np.ndarray], rng: np.random.Generator) -> list[list[np.ndarray]]:
    """People in tenths, in turns: those of the most images first, forth and back."""
    people = [people[number] for number in rng.permutation(len(people)).tolist()]
    people.sort(key=len, reverse=True)
    turns = [*range(FOLDS), *reversed(range(FOLDS))]
    folds: list[list[np.ndarray]] = [[] for _ in range(FOLDS)]
    for number, images in enumerate(people):
        folds[turns[number % len(turns)]].append(images)
    for fold in folds:  # else people of many images would always come first
        fold[:] = [fold[number] for number in rng.permutation(len(fold)).tolist()]
    return folds


def _of_one(fold: list[np.ndarray]) -> int:
    return sum(len(images) * (len(images) - 1) // 2 for images in fold)


def _of_two(fold: list[np.ndarray]) -> int:
    images = sum(map(len, fold))
    return images * (images - 1) // 2 - _of_one(fold)


def _draw_of_one(fold: list[np.ndarray], count: int, rng: np.random.Generator) -> list:
    """So many pairs of one person: each gives one in turn, as long as it has one left."""
    left = [len(images) * (len(images) - 1) // 2 for images in fold]
    taken = [0] * len(fold)
    while (missing := count - sum(taken)) > 0:
        open_ = [person for person in range(len(fold)) if taken[person] < left[person]]
        for person in open_[:missing]:
            taken[person] += 1
    places = []
    for images, all_, number in zip(fold, left, taken, strict=True):
        if number:
            for rank in rng.choice(all_, number, replace=False).tolist():
                one, other = _pair_of_rank(rank)
                places.append((images[one], images[other]))
    return [places[number] for number in rng.permutation(count).tolist()]


def _pair_of_rank(rank: int) -> tuple[int, int]:
    """The pairs (0, 1), (0, 2), (1, 2), (0, 3), ... by number."""
    second = int((1 + np.sqrt(1 + 8 * rank)) / 2)
    while second * (second - 1) // 2 > rank:  # a square root that was rounded up
        second -= 1
    return rank - second * (second - 1) // 2, second


def _draw_of_two(fold: list[np.ndarray], count: int, rng: np.random.Generator) -> list:
    """So many pairs of two people, who are drawn alike whatever their images are."""
    if _of_two(fold) <= 4 * count:  # drawing would meet the same pairs again and again
        places = [
            (one, other)
            for number, images in enumerate(fold)
            for others in fold[number + 1 :]
            for one in images.tolist()
            for other in others.tolist()
        ]
        return [places[number] for number in rng.permutation(len(places))[:count].tolist()]
    drawn: dict[tuple[int, int], None] = {}
    while len(drawn) < count:
        one, other = (
            int(rng.choice(fold[person]))
            for person in rng.choice(len(fold), 2, replace=False).tolist()
        )
        if (other, one) not in drawn:
            drawn[one, other] = None
    return list(drawn)
