"""All pairs of a set's images, at very low false accept rates: as MFR (insightface) judges."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from arcface_cakd.data.face_files import FaceFiles
from arcface_cakd.data.folder import identity_folders
from arcface_cakd.evaluation.embedder import Embedder
from arcface_cakd.evaluation.embedding import unit
from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.evaluation.identification import TopScores, chunks
from arcface_cakd.evaluation.interval import Interval
from arcface_cakd.evaluation.protocols.base import Protocol, digest_of, judging
from arcface_cakd.evaluation.score_tail import ScoreTail
from arcface_cakd.evaluation.table import (
    INTERVALS,
    absent_notes,
    drawn_note,
    format_table,
    percent,
)
from arcface_cakd.evaluation.uncertainty import DRAWS, figure_intervals, person_draws
from arcface_cakd.progress import track
from arcface_cakd.registry import PROTOCOLS

FARS = (1e-6, 1e-5, 1e-4, 1e-3)
_TAIL = 1.5  # times as many impostors are kept, for in a draw they count by weight
_BLOCK = 2048  # images that are compared with as many others at once


@dataclass(frozen=True)
class AllPairsVerification:
    """How well all pairs of a set are told apart. Rates are in [0, 1].

    Attributes:
        images: how many.
        people: who is on them.
        positives: pairs of one person.
        negatives: pairs of two people.
        tar: TAR by FAR, the highest while no more than FAR is accepted; None where fewer than ten
            false accepts would decide it.
        thresholds: by FAR, the cosine above which pairs are accepted there, or None.
        intervals: of ``tar``, people drawn again.
        absent: why an interval that was asked for is not given, by ``intervals.tar.<FAR>``.
    """

    images: int
    people: int
    positives: int
    negatives: int
    tar: dict[float, float | None]
    thresholds: dict[float, float | None]
    intervals: dict[float, Interval | None]
    absent: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Every figure, in types that JSON has."""
        figures = asdict(self)
        for name in ("tar", "thresholds"):
            figures[name] = {f"{far:g}": value for far, value in figures[name].items()}
        figures["intervals"] = {f"tar.{far:g}": v for far, v in figures["intervals"].items()}
        return figures


@PROTOCOLS.register("all_pairs")
class AllPairs(Protocol):
    """All pairs of the images in people's folders, as MFR has them: TAR at FAR 1e-6 to 1e-3.

    Each path is a set, or a group of people, of its own: one subfolder for each person, images of
    112 x 112. The highest scores alone are held, so that memory grows with the images and not
    with their pairs.
    """

    def __init__(self, paths: Sequence[Path], targets: Sequence[str] | None = None):
        self.sets: dict[str, tuple[FaceFiles, np.ndarray]] = {}
        names = [Path(os.path.abspath(path)).name for path in paths]
        for path, name in zip(paths, names, strict=True):
            found = identity_folders(path)
            found.warn_of_left_out()
            counts = [len(images) for _, images in found.identities]
            if max(counts) < 2:
                raise EvaluationError(f"{path}: nobody has two images: there is no pair of one")
            files = [image for _, images in found.identities for image in images]
            name = name if names.count(name) == 1 else str(path)
            self.sets[name] = (FaceFiles(files), np.repeat(np.arange(len(counts)), counts))

    def judge(self, embedder: Embedder, draws: int = DRAWS) -> dict[str, AllPairsVerification]:
        results = {}
        for name, (faces, people) in self.sets.items():
            with judging(name):
                units = unit(embedder(faces, name))
            faces.warn_of_resized(name)
            results[name] = verify_all_pairs(units, people, draws=draws)
        return results

    def data_digests(self) -> dict[str, str]:
        return {name: digest_of(*parts) for name, parts in self.sets.items()}

    def table(self, results: Mapping[str, AllPairsVerification]) -> str:
        header = ["set", "people", "images", "pairs", *(f"TAR@FAR={far:g} %" for far in FARS)]
        rows, given = [], []
        for name, result in results.items():
            pairs = str(result.positives + result.negatives)
            rates = ["-" if rate is None else f"{100 * rate:.2f}" for rate in result.tar.values()]
            rows.append([name, str(result.people), str(result.images), pairs, *rates])
            rows.append(["  interval", "", "", "", *map(percent, result.intervals.values())])
            given += list(result.intervals.values())
        return "\n".join([format_table(header, rows), *drawn_note(given), *absent_notes(results)])


def verify_all_pairs(
    units: np.ndarray,
    people: np.ndarray,
    fars: Sequence[float] = FARS,
    draws: int = DRAWS,
    block: int = _BLOCK,
) -> AllPairsVerification:
    """TAR at FAR over every pair of images, exactly, while only the highest scores are held.

    Args:
        units: (N, E) unit embeddings, float64.
        people: (N,) int, who is on each.
        fars: false accept rates; what is held grows with the highest of them.
        draws: of people; 0: no intervals.
        block: how many images are compared with as many others at once.
    """
    names, person = np.unique(people, return_inverse=True)
    order = np.argsort(person, kind="stable")
    units, person = units[order], person[order]
    images = np.bincount(person)
    positives = int((images * (images - 1) // 2).sum())
    negatives = len(units) * (len(units) - 1) // 2 - positives
    top = TopScores(int(_TAIL * max(fars) * negatives) + 1000)
    genuine, whose = _pairs_of_one(units, images)
    blocks = list(chunks(len(units), block))
    tables = [(a, b) for k, a in enumerate(blocks) for b in blocks[k:]]
    for rows, columns in track(tables, "comparing all pairs", unit="tables"):
        scores = units[rows] @ units[columns].T
        counted = None
        if person[rows.stop - 1] >= person[columns.start]:  # people in order: one in both
            counted = person[rows, None] < person[None, columns]
        top.add(scores, person[rows], person[columns], counted)
    impostor, couples = top.result()
    tail = ScoreTail(genuine, impostor, negatives)

    def figures(drawn: np.ndarray) -> list[float | None]:
        # A person who is drawn twice is not compared with himself: impostors are two people.
        weight = drawn * images
        total = (float(weight.sum()) ** 2 - float((weight.astype(np.float64) ** 2).sum())) / 2
        weights = drawn[whose], drawn[couples[:, 0]] * drawn[couples[:, 1]]
        return [tail.weighted_rate_at(far, *weights, total) for far in fars]

    tar = {far: tail.rate_at(far) for far in fars}
    intervals: dict[float, Interval | None] = dict.fromkeys(fars)
    lacking: dict[float, str] = {}
    if draws:
        intervals, lacking = figure_intervals(tar, person_draws(len(names), figures, draws))
    return AllPairsVerification(
        images=len(units),
        people=len(names),
        positives=positives,
        negatives=negatives,
        tar=tar,
        thresholds={far: None if tar[far] is None else tail.threshold_at(far) for far in fars},
        intervals=intervals,
        absent={f"{INTERVALS}tar.{far:g}": reason for far, reason in lacking.items()},
    )


def _pairs_of_one(units: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all pairs of one person, and whose they are; ``units`` in order of people."""
    scores, whose = [np.empty(0)], [np.empty(0, dtype=np.int64)]
    start = 0
    for number, count in enumerate(images):
        own = units[start : start + count]
        pair = np.triu_indices(count, 1)
        scores.append((own @ own.T)[pair])
        whose.append(np.full(len(pair[0]), number))
        start += count
    return np.concatenate(scores), np.concatenate(whose)
