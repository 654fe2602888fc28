"""A protocol of the shape of IJB-C's, made of one folder of images for each person."""

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.folder import identity_folders
from arcface_cakd.data.image_files import read_encoded
from arcface_cakd.data.images import decode_crop
from arcface_cakd.files import scratch_folder, sync
from arcface_cakd.landmarks import ARCFACE_TEMPLATE
from arcface_cakd.preparation.output import check_beside
from arcface_cakd.preparation.template_drawing import DrawnTemplates, draw_templates
from arcface_cakd.progress import track

logger = logging.getLogger("arcface_cakd")

IMPOSTORS = 8_000_000
"""Pairs of two people in IJB-B."""


@dataclass(frozen=True)
class MadeTemplates:
    """What a set of templates came to.

    Attributes:
        images, people: that are in it.
        templates: in galleries and as probes.
        probes: of the templates.
        positives, negatives: pairs of one person and of two.
    """

    images: int
    people: int
    templates: int
    probes: int
    positives: int
    negatives: int


def write_templates(
    folder: str | Path,
    out: str | Path,
    *,
    seed: int = 0,
    impostors: int = IMPOSTORS,
    name: str = "own",
) -> MadeTemplates:
    """Make a set of templates, in the layout that ``data.templates`` reads.

    Images are copied as they are. An image is a media of its own; those of a folder in a person's
    folder are one, as frames of a video. Landmarks are the ArcFace template's and detector scores
    are 1: the images are crops, and evaluation leaves them as they are.

    Args:
        folder: one subfolder for each person, images of 112 x 112 in it.
        out: folder to write, which appears whole.
        seed: of the draw; see ``template_drawing.draw_templates``.
        impostors: how many pairs of two people at most.
        name: what the tables' names begin with; ``ijbc`` is what arcface_torch's scripts read.

    Raises:
        DataError: ``out`` is there, or lies in ``folder``; the folder is none of people's, or too
            few have several images; an image does not decode or has another size; a name that is
            none.
    """
    out = Path(out)
    if out.exists():
        raise DataError(f"{out}: is there already: choose another folder, or remove it")
    if not name.isidentifier():
        raise DataError(f"--name {name}: letters, digits and underscores make a name, as in own")
    found = identity_folders(folder)
    check_beside(out, folder)
    found.warn_of_left_out()
    images: list[Path] = []
    media: list[int] = []
    people: list[int] = []
    for number, (person, files) in enumerate(found.identities):
        videos: dict[Path, int] = {}
        for file in files:
            if file.parent == found.root / person or file.parent not in videos:
                videos[file.parent] = len(people)
                people.append(number)
            images.append(file)
            media.append(videos[file.parent])
    drawn = draw_templates(np.array(people), impostors, seed)
    if alone := len(found.identities) - len(np.unique(drawn.people)):
        logger.warning("%s: left out: %d people of one image, or one video, alone", folder, alone)
    kept = [(file, of) for file, of in zip(images, media, strict=True) if drawn.template[of]]
    with scratch_folder(out) as scratch:
        _copy([file for file, _ in kept], scratch / "loose_crop")
        files = [file for file, _ in kept]
        _write_tables(drawn, files, np.array([of for _, of in kept]), scratch / "meta", name)
        for path in (scratch / "meta").iterdir():
            sync(path)
        os.rename(scratch, out)
    positives = int(np.count_nonzero(drawn.issame))
    return MadeTemplates(
        images=len(kept),
        people=len(np.unique(drawn.people)),
        templates=len(drawn.people),
        probes=len(drawn.probes),
        positives=positives,
        negatives=len(drawn.issame) - positives,
    )


def _named(number: int, file: Path) -> str:
    """What an image is called in the set: the tables' words are parted by blanks."""
    return f"{number + 1}{file.suffix.lower()}"


def _copy(files: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, file in enumerate(track(files, "copying images", unit="images")):
        try:
            decode_crop(read_encoded(file), strict=True)
        except DataError as error:
            raise DataError(f"{file}: {error}") from error
        shutil.copyfile(file, folder / _named(number, file))


def _write_tables(
    drawn: DrawnTemplates, files: list[Path], media: np.ndarray, meta: Path, name: str
) -> None:
    meta.mkdir()
    images = [_named(number, file) for number, file in enumerate(files)]
    template = drawn.template[media]
    points = " ".join(f"{x:g}" for x in ARCFACE_TEMPLATE.ravel())
    rows = {
        "face_tid_mid.txt": [
            f"{image} {t} {m}"
            for image, t, m in zip(images, template.tolist(), media.tolist(), strict=True)
        ],
        "name_5pts_score.txt": [f"{image} {points} 1" for image in images],
        "template_pair_label.txt": [
            f"{a} {b} {label:d}"
            for (a, b), label in zip(drawn.pairs.tolist(), drawn.issame.tolist(), strict=True)
        ],
    }
    tables = {**drawn.galleries, "1N_probe_mixed": drawn.probes}
    for ending, templates in tables.items():
        listed = np.isin(template, templates)
        chosen = zip(np.array(images)[listed], template[listed], strict=True)
        lines = [f"{t},{drawn.people[t - 1]},{image}" for image, t in chosen]
        rows[f"{ending}.csv"] = ["TEMPLATE_ID,SUBJECT_ID,FILENAME", *lines]
    for ending, lines in rows.items():
        (meta / f"{name}_{ending}").write_text("\n".join(lines) + "\n", encoding="utf-8")
