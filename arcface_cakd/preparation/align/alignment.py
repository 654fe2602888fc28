"""A folder of photographs made a folder of aligned crops."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcface_cakd.data.crop_landmarks import CROPS_FILE
from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_landmarks import LANDMARKS_FILE
from arcface_cakd.data.image_files import read_encoded, some_of
from arcface_cakd.data.images import decode_image
from arcface_cakd.preparation.align.crops import aligned_crop
from arcface_cakd.preparation.align.crops_table import beside_crops, write_crops_table
from arcface_cakd.preparation.align.faces import CHOICES, Detector, Face, chosen
from arcface_cakd.preparation.align.landmark_list import LandmarkList
from arcface_cakd.preparation.align.outcome import Crop, LeftOut, Outcome
from arcface_cakd.preparation.align.photographs import Photograph, find_photographs
from arcface_cakd.preparation.align.report import write_report
from arcface_cakd.preparation.align.unfinished import Unfinished
from arcface_cakd.progress import track
from arcface_cakd.recordio import codec
from arcface_cakd.workers import Workers

QUALITY = 95  # of the crops' JPEG, as insightface's own tools have it


@dataclass(frozen=True)
class Choice:
    """Which faces of a photograph become crops.

    Args:
        faces: one of ``CHOICES``: which of several faces is taken.
        min_side: pixels of the photograph along a side of the crop, below which a face is left
            out; where it is 112, nothing is magnified.
    """

    faces: str = "largest"
    min_side: float = 0.0


LARGEST = Choice()


@dataclass(frozen=True)
class Aligned:
    """What a folder of photographs came to.

    Attributes:
        photographs: that were looked at.
        crops: that were made of them.
        people: who have a crop; None of photographs without labels.
        people_without: those left without one, in order of name.
        reasons: for which photographs, or faces where all are taken, were left out, and how many,
            the most frequent first.
        report: folder of the report.
    """

    photographs: int
    crops: int
    people: int | None
    people_without: list[str]
    reasons: dict[str, int]
    report: Path


def align_folder(
    folder: str | os.PathLike,
    out: str | os.PathLike,
    detector: Detector,
    *,
    choice: Choice = LARGEST,
    label_free: bool = False,
    force: bool = False,
    report: str | os.PathLike | None = None,
    workers: int | None = None,
) -> Aligned:
    """Crop the faces of photographs to 112 x 112, aligned to the ArcFace template.

    Writes JPEGs (quality 95) of the photographs' names, in the same folders; what each is made
    of, in order, in ``aligned.tsv``; and their landmarks in ``train_landmarks.npy``, float32
    (N, 5, 2), pixels of the crop, images in order of path. ``out`` appears when all is written.
    Until then all is kept beside it, and the same call goes on there, also after a kill.

    The report is written beside ``out``, or where asked: what was left out and why, what became
    of each person, and contact sheets of both.

    Args:
        folder: of one subfolder per person; or any, ``label_free``.
        out: folder to write to.
        detector: finds the faces.
        choice: which of them are taken.
        label_free: photographs of nobody in particular, at any depth. Only of these can all
            faces be taken: each photograph then becomes a folder.
        force: whether aligned crops that stand in ``out`` are replaced.
        report: folder of the report; None: ``<out>.report``.
        workers: processes; by default one per CPU. 1 works in this process.

    Raises:
        DataError: no photographs, or no face in any; ``out`` holds something (with ``force``,
            something that is not of the crops), is a link, or lies in ``folder``; ``report`` lies
            in either; an argument out of its range; the detector's file says nothing of it.
    """
    folder, out = Path(os.path.abspath(folder)), Path(os.path.abspath(out))
    report = Path(os.path.abspath(report or out.with_name(f"{out.name}.report")))
    _check(folder, out, report, choice, label_free, force, workers)
    photographs = find_photographs(folder, label_free)
    if isinstance(detector, LandmarkList):
        detector.warn_of_others({each.name for each in photographs})
    settings = {
        # Of all faces a journal of before says too little, and is begun anew.
        **({"journal": 2} if choice.faces == "all" else {}),
        "folder": str(folder),
        "label_free": label_free,
        "faces": choice.faces,
        "min_side": choice.min_side,
        **detector.description(),
    }
    with Unfinished(out, settings) as unfinished:
        pending = [each for each in photographs if not unfinished.has(each)]
        try:
            with Workers(
                min(workers or os.cpu_count() or 1, len(pending) or 1),
                _prepare,
                (detector, choice),
            ) as map_in_order:
                results = track(
                    map_in_order(_align, pending), "aligning", len(pending), unit="photographs"
                )
                for photograph, (outcome, encoded) in zip(pending, results, strict=True):
                    unfinished.keep(photograph, outcome, encoded)
        except BrokenProcessPool as error:
            raise DataError(
                f"{out}: a worker process died, perhaps for lack of memory: ask for fewer "
                "workers; what was done is kept"
            ) from error
        outcomes = {each.name: unfinished.outcome(each) for each in photographs}
        crops = sorted(
            ((Path(crop.file), crop) for outcome in outcomes.values() for crop in outcome.crops),
            key=lambda each: each[0],
        )
        found = _summary(photographs, outcomes, len(crops), report)
        write_report(report, photographs, outcomes, unfinished.folder, label_free)
        if not crops:
            unfinished.discard()
            raise DataError(
                f"{folder}: no face was taken from any of {len(photographs)} photographs "
                f"({_listed(found.reasons)}): look at {report}"
            )
        landmarks = np.array([crop.landmarks for _, crop in crops], dtype=np.float32)
        np.save(unfinished.folder / LANDMARKS_FILE, landmarks.reshape(-1, 5, 2))
        write_crops_table(unfinished.folder, outcomes)
        _check_vacant(out, force)  # anew: it may have been long
        unfinished.finish()
    return found


_work: tuple[Detector, Choice] | None = None  # of this process


def _prepare(detector: Detector, choice: Choice) -> None:
    global _work
    _work = detector, choice


def _align(photograph: Photograph) -> tuple[Outcome, list[bytes]]:
    """What becomes of a photograph, and its encoded crops."""
    assert _work is not None
    detector, choice = _work
    try:
        image = decode_image(read_encoded(photograph.path))
    except DataError as error:
        return Outcome(left_out=[LeftOut(str(error))]), []
    bgr = np.ascontiguousarray(image[..., ::-1])
    found = detector.faces(bgr, photograph.name)
    if not found:
        return Outcome(left_out=[LeftOut(detector.nothing)]), []
    all_faces = choice.faces == "all"
    crops, encoded, left_out = [], [], []
    for place, face in enumerate(chosen(found, image.shape[:2], choice.faces), start=1):
        try:
            crop = _cropped(image, face, choice)
        except ValueError as error:
            left_out.append(LeftOut(str(error), place if all_faces else None))
            continue
        jpeg = codec.encode(crop.image, QUALITY)
        file = f"{photograph.name}/{place}.jpg" if all_faces else photograph.crop
        crops.append(
            Crop(
                file,
                len(jpeg),
                [float(number) for number in crop.landmarks.ravel()],
                list(face.box),
                face.score,
                crop.side,
            )
        )
        encoded.append(jpeg)
    return Outcome(len(found), crops, left_out), encoded


def _cropped(image: np.ndarray, face: Face, choice: Choice):
    """The crop of a face.

    Raises:
        ValueError: why there is none.
    """
    x, y = face.landmarks.mean(axis=0)
    height, width = image.shape[:2]
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError("the landmarks are beside the photograph")
    crop = aligned_crop(image, face.landmarks)
    if crop.side < choice.min_side:
        raise ValueError("the face is smaller than asked for")
    return crop


def _summary(
    photographs: Sequence[Photograph], outcomes: dict[str, Outcome], crops: int, report: Path
) -> Aligned:
    reasons = Counter(each.kind for outcome in outcomes.values() for each in outcome.left_out)
    people = {each.person for each in photographs}
    with_crop = {each.person for each in photographs if outcomes[each.name].crops}
    labelled = None not in people
    return Aligned(
        len(photographs),
        crops,
        len(with_crop) if labelled else None,
        sorted(str(person) for person in people - with_crop) if labelled else [],
        dict(reasons.most_common()),
        report,
    )


def _listed(reasons: dict[str, int]) -> str:
    return "; ".join(f"{reason}: {count}" for reason, count in reasons.items())


def _check(
    folder: Path,
    out: Path,
    report: Path,
    choice: Choice,
    label_free: bool,
    force: bool,
    workers: int | None,
) -> None:
    """Refuse, before any work, what could not be finished."""
    if choice.faces not in CHOICES:
        raise DataError(f"faces is {choice.faces!r}: it must be one of {', '.join(CHOICES)}")
    if choice.faces == "all" and not label_free:
        raise DataError(
            "all faces of a photograph are not of one person: take them without labels alone"
        )
    if not choice.min_side >= 0:
        raise DataError(f"the least side is {choice.min_side}: it must be 0 or more")
    if workers is not None and workers < 1:
        raise DataError(f"workers is {workers}: it must be 1 or more")
    for path in (out, report):
        real = Path(os.path.realpath(path))  # links may lead there
        if Path(os.path.realpath(folder)) in (real, *real.parents):
            raise DataError(f"{path} lies in {folder}, whose photographs are read: choose another")
        if path in folder.parents:
            raise DataError(f"{folder} lies in {path}, which would be replaced: choose another")
    if out in (report, *report.parents):
        raise DataError(f"{report} lies in {out}, which is for crops alone: choose another")
    _check_vacant(out, force)


def _check_vacant(out: Path, force: bool) -> None:
    """Refuse to write over what is not to be replaced."""
    if out.is_symlink():
        raise DataError(
            f"{out} is a link, which a folder would replace: give {os.path.realpath(out)}"
        )
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file: choose a folder")
    if out.exists() and any(out.iterdir()):
        if not force:
            raise DataError(
                f"{out}: something is there: choose another folder, or replace aligned crops "
                "with --force"
            )
        if not (out / CROPS_FILE).is_file():
            raise DataError(
                f"{out}: no {CROPS_FILE} says that these are aligned crops, and they are not "
                "replaced: choose another folder, or empty it"
            )
        if others := sorted(beside_crops(out)):
            raise DataError(
                f"{out}: holds what is not of the crops that {CROPS_FILE} names "
                f"({some_of(others, out)}), and that is not replaced: move it elsewhere, or choose "
                "another folder"
            )
