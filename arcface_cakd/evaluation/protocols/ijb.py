"""IJB-B and IJB-C, 1:1: pairs of templates verified, as arcface_torch's ``eval_ijbc.py`` does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from arcface_cakd.data.face_files import FaceFiles
from arcface_cakd.data.templates import (
    TemplateImages,
    read_template_images,
    read_template_pairs,
    read_template_people,
)
from arcface_cakd.evaluation.embedder import Embedder
from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.evaluation.interval import Interval
from arcface_cakd.evaluation.protocols.base import Protocol, digest_of, judging, one_folder
from arcface_cakd.evaluation.roc import RocCurve, roc_curve
from arcface_cakd.evaluation.score_tail import ScoreTail
from arcface_cakd.evaluation.table import (
    INTERVALS,
    absent_notes,
    drawn_note,
    format_table,
    percent,
)
from arcface_cakd.evaluation.templates import pair_scores, people_of_pairs, pool_templates
from arcface_cakd.evaluation.uncertainty import DRAWS, figure_intervals, person_draws
from arcface_cakd.registry import PROTOCOLS

FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_TAIL = 4  # times as many impostors are kept, for in a draw they count by weight
# At higher FARs of large sets no interval is given: each draw would go through millions of pairs.
_MOST_KEPT = 500_000
_WHO = ("1N_gallery_G1", "1N_gallery_G2", "1N_gallery_S1", "1N_gallery_S2", "1N_probe_mixed")
LAYOUT = "meta/ and loose_crop/ of IJB-B, IJB-C or a set in their layout"


@dataclass(frozen=True)
class TemplateVerification:
    """How well templates of one person are told from those of two. Rates are in [0, 1].

    Attributes:
        images: how many.
        templates: how many.
        people: how many, as far as the set tells.
        people_from: what told who is in a template: "1:N tables", or "pairs of one person", which
            take templates for one person's where such pairs link them.
        positives: pairs of one person.
        negatives: pairs of two people.
        auc: area under the ROC curve.
        eer: equal error rate.
        tar: TAR by FAR, the highest while no more than FAR is accepted; None where fewer than ten
            false accepts would decide it.
        nearest_tar: TAR by FAR, at the point of the curve whose FAR is nearest: the figures that
            arcface_torch's ``eval_ijbc.py`` prints, and that are published.
        intervals: of ``tar``, by FAR, people drawn again; of IJB-B and IJB-C up to FAR = 1e-2.
        absent: why an interval that was asked for is not given, by ``intervals.tar.<FAR>``.
        roc: the curve; its thresholds are cosines times -1.
    """

    images: int
    templates: int
    people: int
    people_from: str
    positives: int
    negatives: int
    auc: float
    eer: float
    tar: dict[float, float | None]
    nearest_tar: dict[float, float]
    intervals: dict[float, Interval | None]
    roc: RocCurve = field(repr=False, compare=False)
    absent: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Every figure, in types that JSON has; the curve is left out."""
        figures = {name: value for name, value in vars(self).items() if name != "roc"}
        figures["tar"] = {f"{far:g}": rate for far, rate in self.tar.items()}
        figures["nearest_tar"] = {f"{far:g}": rate for far, rate in self.nearest_tar.items()}
        figures["intervals"] = {
            f"tar.{far:g}": each and vars(each) for far, each in self.intervals.items()
        }
        return figures


@PROTOCOLS.register("ijb")
class TemplatePairs(Protocol):
    """IJB-B or IJB-C 1:1, or a set in their layout: TAR at FAR 1e-6 to 1e-1 of template pairs.

    Images are aligned by their five landmarks; embeddings keep their length and are multiplied by
    the detector's score, and pooled by media and template (``pool_templates``).
    """

    has_roc = True

    def __init__(self, paths: Sequence[Path], targets: Sequence[str] | None = None):
        self.folder = one_folder(paths, LAYOUT)
        self.images = read_template_images(self.folder)
        self.pairs, self.issame = read_template_pairs(self.images)
        if self.issame.all() or not self.issame.any():
            raise EvaluationError(
                f"{self.folder}: all {len(self.issame)} pairs have one label: nothing to tell apart"
            )

    def judge(self, embedder: Embedder, draws: int = DRAWS) -> dict[str, TemplateVerification]:
        with judging(self.folder):
            numbers, units = embed_templates(self.images, embedder)
        pairs = np.searchsorted(numbers, self.pairs)
        people, people_from = self._people(numbers, pairs)
        result = verify_templates(units, pairs, self.issame, people, draws)
        result = replace(result, images=len(self.images.faces), people_from=people_from)
        return {self.images.name: result}

    def data_digests(self) -> dict[str, str]:
        return {self.images.name: digest_of(*template_parts(self.images), self.pairs, self.issame)}

    def table(self, results: Mapping[str, TemplateVerification]) -> str:
        header = ["set", "templates", "pairs", *(f"TAR@FAR={far:g} %" for far in FARS)]
        rows, notes = [], []
        for name, result in results.items():
            sizes = [str(result.templates), str(result.positives + result.negatives)]
            rows.append([name, *sizes, *(_cell(result.tar[far]) for far in FARS)])
            rows.append(["  interval", "", "", *(percent(result.intervals[far]) for far in FARS)])
            nearest = [f"{100 * result.nearest_tar[far]:.2f}" for far in FARS]
            rows.append(["  nearest FAR", "", "", *nearest])
            notes += drawn_note(result.intervals.values())
            if any(result.intervals.values()):
                notes.append(f"{result.people} people, told by {result.people_from}")
            if None in result.tar.values():
                notes.append(
                    f"no TAR below FAR={10 / result.negatives:.2g}, which is 10 false accepts "
                    f"among {result.negatives} negative pairs"
                )
        notes += absent_notes(results)
        notes.append("nearest FAR: the point of the curve that eval_ijbc.py reads off")
        return "\n".join([format_table(header, rows), *notes])

    def _people(self, numbers: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, str]:
        """Who is in each template, and what told it."""
        tables = read_template_people(self.images, _WHO)
        people = np.full(len(numbers), -1)
        for templates, subjects in tables.values():
            people[np.searchsorted(numbers, templates)] = subjects
        of_pairs = people[pairs]
        told = (of_pairs >= 0).all() and ((of_pairs[:, 0] == of_pairs[:, 1]) == self.issame).all()
        if told:
            return people, "the 1:N tables"
        return people_of_pairs(pairs, self.issame, len(numbers)), "pairs of one person"


def template_parts(images: TemplateImages) -> tuple[FaceFiles | np.ndarray, ...]:
    """What templates are made of, for ``digest_of``."""
    return images.faces, images.scores, images.templates, images.medias


def embed_templates(images: TemplateImages, embedder: Embedder) -> tuple[np.ndarray, np.ndarray]:
    """The templates' numbers (T,), ascending, and their unit embeddings (T, E).

    Raises:
        EvaluationError: embeddings are not finite or all the same, or scores are too large.
    """
    features = embedder(images.faces, images.name) * images.scores[:, None]
    numbers, units = pool_templates(features, images.templates, images.medias)
    if not np.isfinite(units).all():
        raise EvaluationError(
            "some scores of the detector are so large that products with embeddings are not finite"
        )
    return numbers, units


def verify_templates(
    units: np.ndarray, pairs: np.ndarray, issame: np.ndarray, people: np.ndarray, draws: int
) -> TemplateVerification:
    """Verify pairs of templates.

    Args:
        units: (T, E) unit embeddings.
        pairs: (P, 2) rows of ``units``.
        issame: (P,) bool, both kinds occur.
        people: (T,) who is in each template.
        draws: of people; 0: no intervals.

    Returns:
        the figures; each template counts as one image, and the caller knows who told the people.
    """
    scores = pair_scores(units, pairs)
    curve = roc_curve(-scores, issame)
    tar = {far: curve.tar_at(far) for far in FARS}
    intervals: dict[float, Interval | None] = dict.fromkeys(FARS)
    given = {far: rate for far, rate in tar.items() if rate is not None}
    drawn = {
        far: rate for far, rate in given.items() if _TAIL * far * curve.negatives <= _MOST_KEPT
    }
    lacking: dict[float, str] = {}
    if draws:
        beyond = "each draw would go through millions of pairs"
        lacking = {far: beyond for far in given if far not in drawn}
    if draws and drawn:
        values = tar_draws(scores, pairs, issame, people, list(drawn), draws)
        found, too_few = figure_intervals(drawn, np.stack(list(values.values()), axis=1))
        intervals |= found
        lacking |= too_few
    return TemplateVerification(
        images=len(units),
        templates=len(units),
        people=len(np.unique(people[np.unique(pairs)])),
        people_from="the caller",
        positives=curve.positives,
        negatives=curve.negatives,
        auc=curve.area(),
        eer=curve.equal_error_rate(),
        tar=tar,
        nearest_tar={far: curve.tar_nearest(far) for far in FARS},
        intervals=intervals,
        roc=curve,
        absent={f"{INTERVALS}tar.{far:g}": reason for far, reason in lacking.items()},
    )


def tar_draws(
    scores: np.ndarray,
    pairs: np.ndarray,
    issame: np.ndarray,
    people: np.ndarray,
    fars: Sequence[float],
    draws: int,
) -> dict[float, np.ndarray]:
    """TAR by FAR, (draws,) each, people drawn again: see ``People`` for how a pair then counts."""
    names, person = np.unique(people, return_inverse=True)
    one, other = person[pairs[:, 0]], person[pairs[:, 1]]
    negatives = np.flatnonzero(~issame)
    keep = min(len(negatives), int(_TAIL * max(fars) * len(negatives)) + 1000)
    if keep < len(negatives):
        top = negatives[np.argpartition(-scores[negatives], keep)[:keep]]
    else:
        top = negatives
    top = top[np.argsort(-scores[top], kind="stable")]
    tail = ScoreTail(scores[issame], scores[top], len(negatives))
    # How many pairs each two people have between them: what all impostors weigh in a draw.
    couples = one[negatives] * np.int64(len(names)) + other[negatives]
    couples, counts = np.unique(couples, return_counts=True)
    first, second = couples // len(names), couples % len(names)
    genuine, left, right = one[issame], one[top], other[top]

    def figures(drawn: np.ndarray) -> list[float | None]:
        total = float(np.dot(drawn[first] * drawn[second], counts))
        weights = drawn[genuine], drawn[left] * drawn[right]
        return [tail.weighted_rate_at(far, *weights, total) for far in fars]

    values = person_draws(len(names), figures, draws)
    return dict(zip(fars, values.T, strict=True))


def _cell(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.2f}"
