"""Data sets of made faces: a training set, and verification sets of other people."""

import math
import os
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from arcface_cakd.data.bins import write_bin
from arcface_cakd.data.contact_sheet import COLUMNS, ROWS, write_contact_sheet
from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_landmarks import LANDMARKS_FILE
from arcface_cakd.data.record_sets import write_identity_records
from arcface_cakd.files import atomic_path, put_folder_in_place, scratch_folder
from arcface_cakd.progress import track
from arcface_cakd.synthesis.camera import encode
from arcface_cakd.synthesis.identity import Identity, change_appearance, sample_identity
from arcface_cakd.synthesis.nuisance import View, sample_nuisance
from arcface_cakd.synthesis.render import render
from arcface_cakd.workers import Workers

FOLDS = 10
PAIRS_PER_PERSON = 5


class SynthesisError(DataError):
    """A request for made faces that cannot be met."""


@dataclass(frozen=True)
class Protocol:
    """What the two pictures of a pair are like in a verification set.

    Attributes:
        views: of the first and the second picture.
        strength: of nuisance, as a share of the asked difficulty.
        years: whether the second picture shows a changed appearance.
    """

    views: tuple[View, View]
    strength: float = 1.0
    years: bool = False


PROTOCOLS = {
    "lfw": Protocol(("frontal", "frontal")),
    "cfp_fp": Protocol(("frontal", "profile")),
    "agedb_30": Protocol(("any", "any"), strength=0.6, years=True),
}
"""The verification sets, by arcface_torch's names for the real sets that they stand in for."""


def synthesize(
    out: str | os.PathLike,
    identities: int,
    images_per_identity: int,
    seed: int,
    difficulty: float = 1.0,
    pairs: int = 3000,
    contact_sheet: str | os.PathLike | None = None,
    workers: int | None = None,
) -> None:
    """Make a data set of procedural faces, aligned as ArcFace crops.

    Writes into ``out``: ``train.rec``, ``train.idx`` and ``property``; ``train_landmarks.npy``,
    float32 (n, 5, 2), pixels of the crop, in the order of the records; and ``lfw.bin``,
    ``cfp_fp.bin`` and ``agedb_30.bin``, of people that are not in the training set. The same
    arguments give the same bytes, whatever the number of workers.

    Args:
        out: a folder that is not there yet, or is empty. It appears when all is written.
        identities: people in the training set, 2 or more.
        images_per_identity: pictures of each, 1 or more.
        seed: 0 or more.
        difficulty: strength of pose, expression, light, blur, noise and occlusion, 0 to 3; 0 is
            a frontal studio portrait, exactly aligned.
        pairs: of each verification set, half of them of one person; a multiple of 20, so that
            each of ten folds is balanced.
        contact_sheet: PNG to draw the first pictures of the first people into.
        workers: processes; by default one per CPU. 1 works in this process.

    Raises:
        SynthesisError: an argument out of its range, or ``out`` holds something.
    """
    out = Path(out)
    _check(out, identities, images_per_identity, seed, difficulty, pairs, contact_sheet, workers)
    try:
        with scratch_folder(out) as scratch:
            with Workers(workers or os.cpu_count() or 1) as map_in_order:
                sheet = _write_training_set(
                    scratch, identities, images_per_identity, seed, difficulty, map_in_order
                )
                for name in PROTOCOLS:
                    _write_verification_set(scratch, name, pairs, seed, difficulty, map_in_order)
            put_folder_in_place(scratch, out)
    except BrokenProcessPool as error:
        raise SynthesisError(
            f"{out}: a worker process died, perhaps for lack of memory: ask for fewer workers"
        ) from error
    if contact_sheet is not None:
        write_contact_sheet(contact_sheet, sheet)


def training_identity(seed: int, number: int) -> Identity:
    """The person with that label in the training set of a seed."""
    return sample_identity(_generator(seed, 0, number, 0))


def heldout_identity(seed: int, name: str, number: int) -> Identity:
    """A person of the verification set ``name`` of a seed."""
    return sample_identity(_generator(seed, _kind(name), number, 0))


def heldout_pairs(name: str, pairs: int, seed: int) -> list[tuple[int, int]]:
    """The people on each pair of a set: in each tenth, first same pairs, then different ones.

    As in LFW's protocol, no person is in two tenths.
    """
    rng = _generator(seed, _kind(name), 0, 1)
    per_fold = pairs // FOLDS
    people = max(3, per_fold // PAIRS_PER_PERSON)
    listed = []
    for fold in range(FOLDS):
        first = fold * people
        same = [first + k % people for k in range(per_fold // 2)]
        listed += [(person, person) for person in same]
        for _ in range(per_fold // 2):
            one, other = rng.choice(people, 2, replace=False)
            listed.append((first + int(one), first + int(other)))
    return listed


def _check(out, identities, images, seed, difficulty, pairs, contact_sheet, workers) -> None:
    def require(true: bool, message: str) -> None:
        if not true:
            raise SynthesisError(message)

    require(identities >= 2, f"identities is {identities}: there must be 2 or more to tell apart")
    require(images >= 1, f"images per identity is {images}: it must be 1 or more")
    require(seed >= 0, f"seed is {seed}: it must be 0 or more")
    require(
        math.isfinite(difficulty) and 0 <= difficulty <= 3,
        f"difficulty is {difficulty}: it must be from 0 to 3",
    )
    require(
        pairs >= 2 * FOLDS and pairs % (2 * FOLDS) == 0,
        f"pairs is {pairs}: it must be a positive multiple of {2 * FOLDS}, so that each of "
        f"{FOLDS} folds is balanced",
    )
    require(workers is None or workers >= 1, f"workers is {workers}: it must be 1 or more")
    require(
        contact_sheet is None or Path(contact_sheet).suffix.lower() == ".png",
        f"contact sheet {contact_sheet}: its name must end in .png",
    )
    require(not out.exists() or out.is_dir(), f"{out} is a file: choose a folder")
    require(
        not out.exists() or not any(out.iterdir()),
        f"{out} is not empty: choose another folder, or empty it",
    )


def _write_training_set(out, identities, images, seed, difficulty, map_in_order) -> list:
    """Returns the contact sheet's pictures, encoded, as rows of one person each."""
    landmarks: list[np.ndarray] = []
    sheet: list[list[bytes]] = []
    draw = partial(_draw_person, seed, difficulty, images)
    people = track(
        map_in_order(draw, range(identities)), "drawing people", identities, unit="people"
    )

    def encoded() -> Iterator[list[bytes]]:
        for pictures in people:
            landmarks.extend(points for _, points in pictures)
            if len(sheet) < ROWS:
                sheet.append([jpeg for jpeg, _ in pictures[:COLUMNS]])
            yield [jpeg for jpeg, _ in pictures]

    write_identity_records(out, encoded())
    with atomic_path(out / LANDMARKS_FILE) as path:
        np.save(path, np.stack(landmarks))
    return sheet


def _write_verification_set(out, name, pairs, seed, difficulty, map_in_order) -> None:
    listed = list(enumerate(heldout_pairs(name, pairs, seed)))
    draw = partial(_draw_pair, seed, difficulty, name)
    drawn = track(map_in_order(draw, listed), f"drawing {name}", pairs, unit="pairs")
    encoded = [jpeg for pair in drawn for jpeg in pair]
    write_bin(out / f"{name}.bin", encoded, [one == other for _, (one, other) in listed])


def _draw_person(
    seed: int, difficulty: float, images: int, number: int
) -> list[tuple[bytes, np.ndarray]]:
    person = training_identity(seed, number)
    return [
        _draw(person, _generator(seed, 0, number, image), difficulty, "any")
        for image in range(1, images + 1)
    ]


def _draw_pair(seed: int, difficulty: float, name: str, listed) -> tuple[bytes, bytes]:
    pair, people = listed
    protocol = PROTOCOLS[name]
    pictures = []
    for k, (number, view) in enumerate(zip(people, protocol.views, strict=True)):
        person = heldout_identity(seed, name, number)
        rng = _generator(seed, _kind(name), number, 2 + 2 * pair + k)
        if protocol.years and k == 1:
            person = change_appearance(person, rng)
        pictures.append(_draw(person, rng, difficulty * protocol.strength, view)[0])
    one, other = pictures
    return one, other


def _draw(person: Identity, rng, difficulty: float, view: View) -> tuple[bytes, np.ndarray]:
    nuisance = sample_nuisance(rng, difficulty, view)
    image, landmarks = render(person, nuisance)
    return encode(image, nuisance.camera.quality), landmarks


def _kind(name: str) -> int:
    return 1 + list(PROTOCOLS).index(name)


def _generator(seed: int, kind: int, identity: int, image: int) -> np.random.Generator:
    """A generator of its own for each picture (and, as image 0, for each person)."""
    return np.random.default_rng(np.random.SeedSequence([seed, kind, identity, image]))
