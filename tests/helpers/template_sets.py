"""A made set of templates, laid out as IJB-C is handed round, and what it holds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from helpers.people_faces import crop, photograph, save


@dataclass(frozen=True)
class MadeTemplates:
    """What the tables of a made set say.

    Attributes:
        folder: of the set.
        images: file name, template, media and detector score of each image, in order.
        pairs: template, template, whether both show one person.
        people: the person in each template.
        galleries: the templates in each gallery, by the table's ending.
        probes: templates.
    """

    folder: Path
    images: list[tuple[str, int, int, float]]
    pairs: list[tuple[int, int, int]]
    people: dict[int, int]
    galleries: dict[str, list[int]]
    probes: list[int]


def make_templates(folder: Path, people: int = 12, probes: int = 3, name: str = "ijbc"):
    """People in two galleries, and probes of each: templates of one to four images.

    Images are pictures in which the face is turned and off the centre. Every probe is paired with
    its person's gallery template and with four other people's.
    """
    random = np.random.default_rng(people)
    templates = [(person, k) for person in range(people) for k in range(1 + probes)]
    numbers = (random.permutation(len(templates)) * 7 + 3).tolist()
    number = dict(zip(templates, numbers, strict=True))
    images, landmarks = [], []
    for person, k in templates:
        # A person's first image is in the gallery; a video's frames have one media.
        medias = random.integers(0, 2, random.integers(1, 4)) + 10 * len(images)
        for media in medias.tolist():
            picture, points = photograph(crop(person, len(images), 90), len(images))
            path = save(folder / "loose_crop" / f"{len(images) + 1}.png", picture)
            score = round(float(random.uniform(0.5, 1)), 6)
            images.append((path.name, number[person, k], media, score))
            landmarks.append(points)
    pairs = []
    for person, k in templates:
        if k:
            others = random.permutation([p for p in range(people) if p != person])[:4].tolist()
            for other in [person, *others]:
                pairs.append((number[other, 0], number[person, k], int(other == person)))
    pairs = [pairs[k] for k in random.permutation(len(pairs))]
    galleries = {
        "1N_gallery_G1": [number[p, 0] for p in range(0, people, 2)],
        "1N_gallery_G2": [number[p, 0] for p in range(1, people, 2)],
    }
    made = MadeTemplates(
        folder,
        images,
        pairs,
        {n: person for (person, _), n in number.items()},
        galleries,
        [number[p, k] for p, k in templates if k],
    )
    write_tables(made, landmarks, name)
    return made


def write_tables(made: MadeTemplates, landmarks, name: str) -> None:
    meta = made.folder / "meta"
    meta.mkdir(exist_ok=True)
    rows = {
        "face_tid_mid.txt": [f"{i} {t} {m}" for i, t, m, _ in made.images],
        "name_5pts_score.txt": [
            f"{i} {' '.join(repr(float(x)) for x in points.ravel())} {score}"
            for (i, _, _, score), points in zip(made.images, landmarks, strict=True)
        ],
        "template_pair_label.txt": [" ".join(map(str, pair)) for pair in made.pairs],
    }
    for part, listed in {**made.galleries, "1N_probe_mixed": made.probes}.items():
        heading = "TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID"
        # As published: a row for each image of a template.
        rows[f"{part}.csv"] = [heading] + [
            f"{t},{made.people[t]},img/{i},{m}"
            for t in listed
            for i, of, m, _ in made.images
            if of == t
        ]
    for ending, lines in rows.items():
        (meta / f"{name}_{ending}").write_text("\n".join(lines) + "\n")
