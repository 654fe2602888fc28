"""IJB-B and IJB-C, 1:N: templates looked for in two galleries, with and without their people."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from arcface_cakd.data.templates import read_template_images, read_template_people
from arcface_cakd.evaluation.embedder import Embedder
from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.evaluation.identification import Searches, search
from arcface_cakd.evaluation.interval import Interval
from arcface_cakd.evaluation.protocols.base import Protocol, digest_of, judging, one_folder
from arcface_cakd.evaluation.protocols.ijb import LAYOUT, embed_templates, template_parts
from arcface_cakd.evaluation.table import (
    INTERVALS,
    absent_notes,
    drawn_note,
    format_table,
    percent,
)
from arcface_cakd.evaluation.uncertainty import DRAWS, figure_intervals, person_draws
from arcface_cakd.registry import PROTOCOLS

RANKS = (1, 5, 10)
FPIRS = (1e-3, 1e-2, 1e-1)
_GALLERIES = ("1N_gallery_G1", "1N_gallery_G2", "1N_gallery_S1", "1N_gallery_S2")
_PROBES = "1N_probe_mixed"


@dataclass(frozen=True)
class TemplateIdentification:
    """How well people are found in a gallery, and others not. Rates are in [0, 1].

    Attributes:
        gallery: templates in it; None for the mean over galleries.
        mated: probes whose person is in the gallery.
        non_mated: probes whose person is not.
        rank: share of the mated probes whose person is among the first 1, 5, 10.
        tpir: ``Searches.tpir_at`` by FPIR; None where too few probes are without a mate.
        intervals: by the name of the figure, ``rank.1`` or ``tpir.0.01``; the probes' people
            drawn again, the gallery as it is.
        absent: why an interval that was asked for is not given, by ``intervals.<figure>``.
    """

    gallery: int | None
    mated: int
    non_mated: int
    rank: dict[int, float | None]
    tpir: dict[float, float | None]
    intervals: dict[str, Interval | None]
    absent: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Every figure, in types that JSON has."""
        figures = asdict(self)
        figures["rank"] = {str(rank): rate for rank, rate in self.rank.items()}
        figures["tpir"] = {f"{fpir:g}": rate for fpir, rate in self.tpir.items()}
        return figures


@PROTOCOLS.register("ijb_1n")
class TemplateSearch(Protocol):
    """IJB-B or IJB-C 1:N, or a set in their layout: rank-k, TPIR at FPIR, in both galleries.

    Each probe is looked for in either gallery; those whose people are in the other are the
    searches without a mate. The mean over the galleries is what is published.
    """

    def __init__(self, paths: Sequence[Path], targets: Sequence[str] | None = None):
        self.folder = one_folder(paths, LAYOUT)
        self.images = read_template_images(self.folder)
        self.galleries = read_template_people(self.images, _GALLERIES)
        probes = read_template_people(self.images, [_PROBES])
        if not self.galleries or not probes:
            lacking = _PROBES if self.galleries else "1N_gallery_G1"
            raise EvaluationError(
                f"{self.images.meta}: no {self.images.name}_{lacking}.csv: identification needs "
                "the tables of galleries and probes; --protocol ijb does without"
            )
        self.probes = probes[_PROBES]
        for part, (_, people) in self.galleries.items():
            if not np.isin(self.probes[1], people).any():
                raise EvaluationError(
                    f"{self.images.meta}: nobody of {self.images.name}_{_PROBES}.csv is in {part}: "
                    "these tables are of different sets"
                )
        for part, (templates, _) in self.galleries.items():
            both = np.intersect1d(self.probes[0], templates)
            if len(both):
                raise EvaluationError(
                    f"{self.images.meta}: template {both[0]} is in {part} and a probe, "
                    f"{len(both)} such templates in all: one that is compared with itself tells "
                    "nothing of a model: take them out of one of the two"
                )

    def judge(self, embedder: Embedder, draws: int = DRAWS) -> dict[str, TemplateIdentification]:
        with judging(self.folder):
            numbers, units = embed_templates(self.images, embedder)
        probes, people = units[np.searchsorted(numbers, self.probes[0])], self.probes[1]
        searches, sizes = {}, {}
        for part, (templates, persons) in self.galleries.items():
            name = f"{self.images.name} {part.rsplit('_', 1)[1]}"
            gallery = units[np.searchsorted(numbers, templates)]
            searches[name] = search(probes, people, gallery, persons)
            sizes[name] = len(templates)
        return identification(searches, sizes, people, f"{self.images.name} mean", draws)

    def data_digests(self) -> dict[str, str]:
        tables = [self.probes, *self.galleries.values()]
        digest = digest_of(*template_parts(self.images), *(column for t in tables for column in t))
        parts = [part.rsplit("_", 1)[1] for part in self.galleries]
        return {f"{self.images.name} {part}": digest for part in [*parts, "mean"]}

    def table(self, results: Mapping[str, TemplateIdentification]) -> str:
        header = ["gallery", "templates", "mated", "non-mated"]
        header += [f"rank {rank} %" for rank in RANKS]
        header += [f"TPIR@FPIR={fpir:g} %" for fpir in FPIRS]
        rows = []
        for name, result in results.items():
            size = "" if result.gallery is None else str(result.gallery)
            rates = [*result.rank.values(), *result.tpir.values()]
            cells = ["-" if rate is None else f"{100 * rate:.2f}" for rate in rates]
            rows.append([name, size, str(result.mated), str(result.non_mated), *cells])
            rows.append(["  interval", "", "", "", *map(percent, result.intervals.values())])
        given = [each for result in results.values() for each in result.intervals.values()]
        return "\n".join([format_table(header, rows), *drawn_note(given), *absent_notes(results)])


def identification(
    searches: Mapping[str, Searches],
    sizes: Mapping[str, int],
    people: np.ndarray,
    mean: str,
    draws: int,
) -> dict[str, TemplateIdentification]:
    """Figures of the searches in each gallery, and their mean where there are several.

    Args:
        searches: of the same probes in each gallery, by its name.
        sizes: of the galleries.
        people: (P,) who is on each probe.
        mean: what the mean is called.
        draws: of people; 0: no intervals.
    """
    names, person = np.unique(people, return_inverse=True)
    several = len(searches) > 1

    def figures(weights: np.ndarray | None) -> list[float | None]:
        """Of each gallery, then their mean, as many for each."""
        rows: list[list[float | None]] = []
        for found in searches.values():
            rows.append([found.rank_rate(rank, weights) for rank in RANKS])
            rows[-1] += [found.tpir_at(fpir, weights) for fpir in FPIRS]
        if several:
            columns = zip(*rows, strict=True)
            rows.append([None if None in c else float(np.mean(c)) for c in columns])
        return [figure for row in rows for figure in row]

    plain = figures(None)
    drawn = None
    if draws:
        drawn = person_draws(len(names), lambda counts: figures(counts[person]), draws)
    labels = [f"rank.{rank}" for rank in RANKS] + [f"tpir.{fpir:g}" for fpir in FPIRS]
    results = {}
    for k, name in enumerate([*searches, *([mean] if several else [])]):
        at = slice(k * len(labels), (k + 1) * len(labels))
        row = plain[at]
        intervals: dict[str, Interval | None] = dict.fromkeys(labels)
        lacking: dict[str, str] = {}
        if drawn is not None:
            figured = dict(zip(labels, row, strict=True))
            intervals, lacking = figure_intervals(figured, drawn[:, at])
        mated = [np.count_nonzero(found.mated) for found in searches.values()]
        counts = mated[k] if name in searches else sum(mated)
        results[name] = TemplateIdentification(
            gallery=sizes.get(name),
            mated=int(counts),
            non_mated=int(len(people) * (1 if name in searches else len(searches)) - counts),
            rank=dict(zip(RANKS, row, strict=False)),
            tpir=dict(zip(FPIRS, row[len(RANKS) :], strict=True)),
            intervals=intervals,
            absent={INTERVALS + label: reason for label, reason in lacking.items()},
        )
    return results
