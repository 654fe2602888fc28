"""MegaFace's first challenge: a mate found among a million strangers."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_files import FaceFiles, images_below
from arcface_cakd.data.text_lines import read_lines
from arcface_cakd.evaluation.embedder import Embedder
from arcface_cakd.evaluation.embedding import unit
from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.evaluation.identification import Strangers, TopScores, chunks
from arcface_cakd.evaluation.interval import Interval
from arcface_cakd.evaluation.protocols.base import Protocol, digest_of, judging, one_folder
from arcface_cakd.evaluation.score_tail import ScoreTail
from arcface_cakd.evaluation.table import (
    INTERVALS,
    absent_notes,
    drawn_note,
    format_table,
    percent,
)
from arcface_cakd.evaluation.uncertainty import DRAWS, figure_intervals, person_draws
from arcface_cakd.registry import PROTOCOLS

logger = logging.getLogger("arcface_cakd")

RANKS = (1, 5, 10)
FARS = (1e-6, 1e-5, 1e-4)
_TAIL = 4  # times as many impostors are kept, for in a draw they count by weight
_CHUNK = 4096  # strangers that are embedded and compared at once


@dataclass(frozen=True)
class DistractorIdentification:
    """How well a mate is found among strangers. Rates are in [0, 1].

    Attributes:
        probes: images of people who have mates.
        people: who is on them.
        distractors: strangers.
        mates: ordered pairs of images of one person: a probe, and a mate among the strangers.
        rank: share of the mates that are among the first 1, 5, 10; a stranger that scores as high
            comes first.
        tar: TAR by FAR, of pairs of one person against every probe with every stranger; None where
            fewer than ten false accepts would decide it.
        intervals: by the name of the figure, ``rank.1`` or ``tar.1e-06``; the probes' people
            drawn again, the strangers as they are.
        absent: why an interval that was asked for is not given, by ``intervals.<figure>``.
    """

    probes: int
    people: int
    distractors: int
    mates: int
    rank: dict[int, float]
    tar: dict[float, float | None]
    intervals: dict[str, Interval | None]
    absent: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Every figure, in types that JSON has."""
        figures = asdict(self)
        figures["rank"] = {str(rank): rate for rank, rate in self.rank.items()}
        figures["tar"] = {f"{far:g}": rate for far, rate in self.tar.items()}
        return figures


class DistractorTest:
    """Mates of each probe among strangers who come in parts, and are not held.

    Source: Kemelmacher-Shlizerman et al., "The MegaFace benchmark: 1 million faces for recognition
    at scale", CVPR 2016: each other image of a probe's person alone is put among the strangers.

    Args:
        units: (P, E) unit embeddings of the probes, float64.
        people: (P,) int.
        distractors: how many strangers will come.

    Raises:
        EvaluationError: nobody has two probes, or there are no strangers.
    """

    def __init__(self, units: np.ndarray, people: np.ndarray, distractors: int):
        self.names, self.person = np.unique(people, return_inverse=True)
        self.distractors = distractors
        probes, mates, scores = [], [], []
        for number in range(len(self.names)):
            own = np.flatnonzero(self.person == number)
            table = units[own] @ units[own].T
            one, other = np.nonzero(~np.eye(len(own), dtype=bool))
            probes.append(own[one])
            mates.append(own[other])
            scores.append(table[one, other])
        self.probe, self.mate = np.concatenate(probes), np.concatenate(mates)
        self.score = np.concatenate(scores)
        if not len(self.probe) or not distractors:
            raise EvaluationError(
                f"{len(self.names)} people with {len(units)} images and {distractors} strangers: "
                "someone must have two images, and there must be strangers"
            )
        self._count = len(units)
        self._strangers = Strangers(units, max(RANKS))
        self._top = TopScores(int(_TAIL * max(FARS) * len(units) * distractors) + 1000)
        self._seen = 0

    def add(self, units: np.ndarray) -> None:
        """Take up strangers (n, E), unit embeddings."""
        scores = self._strangers.add(units)
        columns = np.arange(self._seen, self._seen + len(units))
        self._top.add(scores, np.arange(self._count), columns)
        self._seen += len(units)

    def result(self, draws: int = DRAWS) -> DistractorIdentification:
        """The figures, once every stranger came.

        Args:
            draws: of people; 0: no intervals.
        """
        if self._seen != self.distractors:
            raise ValueError(f"{self._seen} of {self.distractors} strangers came")
        rank = self._strangers.rank(self.probe, self.score)
        top, pairs = self._top.result()
        once = self.probe < self.mate
        tail = ScoreTail(self.score[once], top, self._count * self.distractors)
        of_mate, of_genuine = self.person[self.probe], self.person[self.probe[once]]
        of_impostor = self.person[pairs[:, 0]]
        people = len(self.names)
        mates = np.bincount(of_mate, minlength=people)
        found = [np.bincount(of_mate[rank <= k], minlength=people) for k in RANKS]
        probes = np.bincount(self.person, minlength=people)

        def figures(drawn: np.ndarray) -> list[float | None]:
            total = float(drawn @ mates)
            rates = [float(drawn @ each) / total if total else None for each in found]
            weights = drawn[of_genuine], drawn[of_impostor]
            impostors = float(drawn @ probes) * self.distractors
            return [*rates, *(tail.weighted_rate_at(far, *weights, impostors) for far in FARS)]

        rates = {k: float(np.mean(rank <= k)) for k in RANKS}
        tar = {far: tail.rate_at(far) for far in FARS}
        plain: dict[str, float | None] = {f"rank.{k}": rate for k, rate in rates.items()}
        plain |= {f"tar.{far:g}": rate for far, rate in tar.items()}
        intervals: dict[str, Interval | None] = dict.fromkeys(plain)
        lacking: dict[str, str] = {}
        if draws:
            intervals, lacking = figure_intervals(plain, person_draws(people, figures, draws))
        return DistractorIdentification(
            probes=self._count,
            people=people,
            distractors=self.distractors,
            mates=len(self.probe),
            rank=rates,
            tar=tar,
            intervals=intervals,
            absent={INTERVALS + name: reason for name, reason in lacking.items()},
        )


@PROTOCOLS.register("megaface")
class MegaFace(Protocol):
    """MegaFace's first challenge, or people and strangers in its layout: rank-k, TAR at FAR.

    The layout is insightface's test pack: ``facescrub_images/<person>/`` and ``megaface_images/``,
    crops of 112 x 112, with ``facescrub_lst`` and ``megaface_lst`` where not all of them are
    taken, and ``facescrub_noises.txt`` and ``megaface_noises.txt``, images to leave out. (The
    published clean-up replaces a noisy probe by its person's mean embedding, which is found more
    easily than any image of it.) Strangers are embedded and compared in parts, and not held.
    """

    def __init__(self, paths: Sequence[Path], targets: Sequence[str] | None = None):
        self.folder = one_folder(paths, "facescrub_images/ and megaface_images/")
        self.name = Path(os.path.abspath(self.folder)).name
        probes = _listed(self.folder, "facescrub")
        people = [_person(path, self.folder / "facescrub_images") for path in probes]
        self.people = np.unique(people, return_inverse=True)[1]
        if np.bincount(self.people).max() < 2:
            raise EvaluationError(
                f"{self.folder / 'facescrub_images'}: nobody has two images: one folder for each "
                "person, several images in it"
            )
        self.probes = FaceFiles(probes)
        self.strangers = FaceFiles(_listed(self.folder, "megaface"))

    def judge(self, embedder: Embedder, draws: int = DRAWS) -> dict[str, DistractorIdentification]:
        with judging(self.folder):
            probes = unit(embedder(self.probes, "probes"))
            test = DistractorTest(probes, self.people, len(self.strangers))
            count = len(self.strangers)
            for part in chunks(count, _CHUNK):
                done = f"strangers {part.start} to {part.stop} of {count}"
                test.add(unit(embedder.part(self.strangers, part, done)))
        self.probes.warn_of_resized(f"{self.name}, probes")
        self.strangers.warn_of_resized(f"{self.name}, strangers")
        return {self.name: test.result(draws)}

    def data_digests(self) -> dict[str, str]:
        return {self.name: digest_of(self.probes, self.people, self.strangers)}

    def table(self, results: Mapping[str, DistractorIdentification]) -> str:
        header = ["set", "people", "probes", "strangers"]
        header += [f"rank {rank} %" for rank in RANKS] + [f"TAR@FAR={far:g} %" for far in FARS]
        rows = []
        for name, result in results.items():
            sizes = [str(result.people), str(result.probes), str(result.distractors)]
            rates = [*result.rank.values(), *result.tar.values()]
            cells = ["-" if rate is None else f"{100 * rate:.2f}" for rate in rates]
            rows.append([name, *sizes, *cells])
            rows.append(["  interval", "", "", "", *map(percent, result.intervals.values())])
        given = [each for result in results.values() for each in result.intervals.values()]
        return "\n".join([format_table(header, rows), *drawn_note(given), *absent_notes(results)])


def _listed(folder: Path, part: str) -> list[Path]:
    """The images of one part: those of its list, or all below its folder, without the noise."""
    images, listing = folder / f"{part}_images", folder / f"{part}_lst"
    if not images.is_dir():
        raise DataError(f"{folder}: no {images.name}/ in it, as MegaFace's test pack has")
    if listing.is_file():
        # One that is listed twice would be its own mate.
        lines = [os.path.normpath(line) for line in _lines(listing)]
        for line in lines:
            if os.path.isabs(line) or line.startswith(".."):
                raise DataError(f"{listing}: {line} is no path below {images.name}/: mend the list")
        paths = [images / line for line in dict.fromkeys(lines)]
        if len(paths) < len(lines):
            more = len(lines) - len(paths)
            logger.warning("%s: %d lines name an image once more: left out", listing, more)
    else:
        paths = images_below(images)
    kept = _without_noise(paths, images, folder / f"{part}_noises.txt")
    if not kept:
        raise DataError(f"{images}: no image is left of {len(paths)}")
    return kept


def _without_noise(paths: list[Path], images: Path, noises: Path) -> list[Path]:
    """The images that the list of noise, where there is one, does not name."""
    if not noises.is_file():
        return paths
    # A line is a path or a name, with a number and a tab before it or not.
    noise = {line.split("\t")[-1] for line in _lines(noises) if not line.startswith("#")}
    kept, found = [], set()
    for path in paths:
        named = {path.name, path.relative_to(images).as_posix()} & noise
        found |= named
        if not named:
            kept.append(path)
    if noise and not found:
        raise DataError(
            f"{noises}: none of its {len(noise)} names is one of {len(paths)} images in {images}: "
            f"a line is an image's name, or its path below {images.name}/: mend it, or remove it"
        )
    logger.log(
        logging.INFO if len(found) == len(noise) else logging.WARNING,
        "%s: %d of its %d names found, %d of %d images left out",
        *(noises, len(found), len(noise), len(paths) - len(kept), len(paths)),
    )
    return kept


def _person(path: Path, images: Path) -> str:
    """Who is on a probe: the folder that it lies in, by its path, as one name may be in several."""
    if path.parent == images:
        raise DataError(
            f"{path}: lies in no person's folder: probes are {images.name}/<person>/<image>: move "
            "it, or name it in facescrub_noises.txt"
        )
    return str(path.parent.relative_to(images))


def _lines(path: Path) -> list[str]:
    lines = (line.strip() for line in read_lines(path))
    return [line for line in lines if line]
