"""TinyFace: faces of a few pixels looked for among others as small."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_files import FaceFiles, images_below
from arcface_cakd.evaluation.embedder import Embedder
from arcface_cakd.evaluation.embedding import unit
from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.evaluation.identification import Strangers, chunks
from arcface_cakd.evaluation.interval import Interval
from arcface_cakd.evaluation.protocols.base import Protocol, digest_of, judging, one_folder
from arcface_cakd.evaluation.table import (
    INTERVALS,
    absent_notes,
    drawn_note,
    format_table,
    percent,
)
from arcface_cakd.evaluation.uncertainty import DRAWS, figure_intervals, person_draws
from arcface_cakd.registry import PROTOCOLS

RANKS = (1, 5, 20)
_PARTS = ("Probe", "Gallery_Match", "Gallery_Distractor")
_CHUNK = 4096  # faces that are embedded and compared at once


@dataclass(frozen=True)
class GallerySearch:
    """How well probes are found in a gallery. Rates are in [0, 1].

    Attributes:
        probes: how many, all of people who are in the gallery.
        people: who is on them.
        gallery: images in it.
        rank: share of the probes with an image of their person among the first 1, 5, 20; a
            stranger that scores as high comes first.
        intervals: of ``rank``; the probes' people drawn again, the gallery as it is.
        absent: why an interval that was asked for is not given, by ``intervals.rank.<rank>``.
    """

    probes: int
    people: int
    gallery: int
    rank: dict[int, float]
    intervals: dict[int, Interval | None]
    absent: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Every figure, in types that JSON has."""
        figures = asdict(self)
        figures["rank"] = {str(rank): value for rank, value in figures["rank"].items()}
        figures["intervals"] = {f"rank.{k}": each for k, each in figures["intervals"].items()}
        return figures


@PROTOCOLS.register("tinyface")
class TinyFace(Protocol):
    """TinyFace's identification test, or a set in its layout: rank 1, 5 and 20.

    The layout is that of its ``Testing_Set``: folders ``Probe``, ``Gallery_Match`` and
    ``Gallery_Distractor``, files of the first two named ``<person>_<number>.jpg``. Faces must be
    crops of 112 x 112, or square; the published images are neither: align them first, or take
    the aligned ones that AdaFace's authors hand round. Source: Cheng, Zhu & Gong, "Low-resolution
    face recognition", ACCV 2018.
    """

    def __init__(self, paths: Sequence[Path], targets: Sequence[str] | None = None):
        folder = one_folder(paths, ", ".join(_PARTS))
        inner = folder / "Testing_Set"
        self.folder = inner if inner.is_dir() else folder
        for part in _PARTS:
            if not (self.folder / part).is_dir():
                raise DataError(f"{self.folder}: no {part}/ in it, as TinyFace's Testing_Set has")
        files = {part: images_below(self.folder / part) for part in _PARTS}
        self.probe_people = _people(files["Probe"])
        self.match_people = _people(files["Gallery_Match"])
        lacking = np.setdiff1d(self.probe_people, self.match_people)
        if len(lacking):
            raise EvaluationError(
                f"{self.folder}: person {lacking[0]} has a probe and nothing in Gallery_Match, "
                f"{len(lacking)} such people in all: these folders are of different sets"
            )
        self._faces = [FaceFiles(files[part]) for part in _PARTS]
        self.probes, self.matches, self.distractors = self._faces

    def judge(self, embedder: Embedder, draws: int = DRAWS) -> dict[str, GallerySearch]:
        with judging(self.folder):
            probes = unit(embedder(self.probes, "probes"))
            strangers = Strangers(probes, max(RANKS))
            matches = unit(embedder(self.matches, "gallery"))
            own = self.probe_people[:, None] == self.match_people[None]
            scores = strangers.add(matches, own)
            mate = np.where(own, scores, -np.inf).max(axis=1)
            count = len(self.distractors)
            for part in chunks(count, _CHUNK):
                done = f"strangers {part.start} to {part.stop} of {count}"
                strangers.add(unit(embedder.part(self.distractors, part, done)))
        for name, faces in zip(_PARTS, self._faces, strict=True):
            faces.warn_of_resized(self.folder / name)
        rank = strangers.rank(np.arange(len(probes)), mate)
        gallery = len(self.matches) + count
        return {"tinyface": rank_rates(rank, self.probe_people, gallery, draws)}

    def data_digests(self) -> dict[str, str]:
        return {"tinyface": digest_of(*self._faces, self.probe_people, self.match_people)}

    def table(self, results: Mapping[str, GallerySearch]) -> str:
        header = ["set", "probes", "gallery", *(f"rank {rank} %" for rank in RANKS)]
        rows, given = [], []
        for name, result in results.items():
            rates = [f"{100 * rate:.2f}" for rate in result.rank.values()]
            rows.append([name, str(result.probes), str(result.gallery), *rates])
            rows.append(["  interval", "", "", *map(percent, result.intervals.values())])
            given += list(result.intervals.values())
        return "\n".join([format_table(header, rows), *drawn_note(given), *absent_notes(results)])


def rank_rates(rank: np.ndarray, people: np.ndarray, gallery: int, draws: int) -> GallerySearch:
    """Figures of ranks.

    Args:
        rank: (P,) int, from 1, of each probe's best mate.
        people: (P,) int, who is on it.
        gallery: how many images were searched.
        draws: of people; 0: no intervals.
    """
    names, person = np.unique(people, return_inverse=True)
    probes = np.bincount(person)
    found = [np.bincount(person[rank <= k], minlength=len(names)) for k in RANKS]
    rates = {k: float(np.mean(rank <= k)) for k in RANKS}
    intervals: dict[int, Interval | None] = dict.fromkeys(RANKS)
    lacking: dict[int, str] = {}
    if draws:

        def figures(drawn: np.ndarray) -> list[float | None]:
            return [float(drawn @ each) / float(drawn @ probes) for each in found]

        intervals, lacking = figure_intervals(rates, person_draws(len(names), figures, draws))
    return GallerySearch(
        probes=len(rank),
        people=len(names),
        gallery=gallery,
        rank=rates,
        intervals=intervals,
        absent={f"{INTERVALS}rank.{k}": reason for k, reason in lacking.items()},
    )


def _people(paths: Sequence[Path]) -> np.ndarray:
    """Who is on images that are named ``<person>_<number>``: (N,) int64."""
    people = []
    for path in paths:
        person = path.stem.split("_")[0]
        if not person.isdecimal() or "_" not in path.stem:
            raise DataError(
                f"{path}: its name does not say who is on it: TinyFace's are <person>_<number>, as "
                "12_3.jpg"
            )
        people.append(int(person))
    return np.array(people, dtype=np.int64)
