"""Templates drawn by a seed: galleries and probes of people, and pairs of them."""

from dataclasses import dataclass

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.preparation.seeds import generator

GALLERIES = ("1N_gallery_G1", "1N_gallery_G2")


@dataclass(frozen=True, eq=False)
class DrawnTemplates:
    """Which template each media is in, and what is compared.

    Attributes:
        template: (M,) int64, from 1; 0 where the person has no probe, and is left out.
        people: (T,) int64, the person of template t + 1.
        galleries: template numbers of each gallery, by the ending of its table.
        probes: (Q,) template numbers.
        pairs: (P, 2) gallery template and probe.
        issame: (P,) bool.
    """

    template: np.ndarray
    people: np.ndarray
    galleries: dict[str, np.ndarray]
    probes: np.ndarray
    pairs: np.ndarray
    issame: np.ndarray


def draw_templates(people: np.ndarray, impostors: int, seed: int) -> DrawnTemplates:
    """Draw a protocol of the shape of IJB-C's.

    Half of a person's medias, rounded up, are the template in a gallery; of the others each two
    are a probe, an odd last one by itself. Half of the people are in either gallery. A pair is a
    probe and a gallery template: all of one person, and of two as many as asked for.

    Args:
        people: (M,) int, who is on each media; who has one alone is left out.
        impostors: how many pairs of two people to draw at most; all where there are fewer.
        seed: of the draw, 0 or more.

    Raises:
        DataError: fewer than four people have two medias; a seed below 0.
    """
    rng = generator(seed)
    names, counts = np.unique(people, return_counts=True)
    names = rng.permutation(names[counts > 1])
    if len(names) < 4:
        raise DataError(
            f"{len(names)} people have two images: four are needed, two in each gallery: take a "
            "set of more people with several images"
        )
    template = np.zeros(len(people), dtype=np.int64)
    whose: list[int] = []
    gallery: list[int] = []
    probes: list[int] = []
    for name in names.tolist():
        medias = rng.permutation(np.flatnonzero(people == name))
        enrolled = (len(medias) + 1) // 2
        parts = [medias[:enrolled], *np.split(medias[enrolled:], range(2, len(medias), 2))]
        for number, part in enumerate(part for part in parts if len(part)):
            whose.append(name)
            template[part] = len(whose)
            (probes if number else gallery).append(len(whose))
    of = np.array(whose)
    enrolled_all, all_probes = np.array(gallery), np.array(probes)
    pairs, issame = _pairs(enrolled_all, all_probes, of, impostors, rng)
    half = (len(gallery) + 1) // 2
    return DrawnTemplates(
        template=template,
        people=of,
        galleries=dict(zip(GALLERIES, (enrolled_all[:half], enrolled_all[half:]), strict=True)),
        probes=all_probes,
        pairs=pairs,
        issame=issame,
    )


def _pairs(
    gallery: np.ndarray, probes: np.ndarray, people: np.ndarray, impostors: int, rng
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of one person, then those of two: a draw without repetition, in order."""
    # A person's templates follow each other, the gallery's first.
    own = np.searchsorted(gallery, probes, side="right") - 1
    genuine = np.stack([gallery[own], probes], axis=1)
    # Number k of a probe's strangers: the gallery without its own person's template.
    strangers = len(gallery) - 1
    possible = len(probes) * strangers
    if possible <= impostors:
        drawn = np.arange(possible)
    else:
        drawn = np.sort(rng.choice(possible, impostors, replace=False))
    probe, place = drawn // strangers, drawn % strangers
    place += place >= own[probe]
    apart = np.stack([gallery[place], probes[probe]], axis=1)
    issame = np.repeat([True, False], [len(genuine), len(apart)])
    return np.concatenate([genuine, apart]), issame
