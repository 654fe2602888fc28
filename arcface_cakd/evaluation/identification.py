"""Identification: a face looked for among many, its own person's among them or not."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from arcface_cakd.evaluation.score_tail import ScoreTail

_PROBES = 1024  # that are compared with a whole gallery at once


@dataclass(frozen=True, eq=False)
class Searches:
    """What a search for each probe in a gallery brings.

    Attributes:
        mate: (P,) the highest score of the probe's own person; -inf where the gallery lacks it.
        stranger: (P,) the highest score of anyone else.
        rank: (P,) int, 1 and one more for each stranger that scores as high as the best mate or
            higher; 0 where the gallery lacks the person. So a tie counts against the model.
    """

    mate: np.ndarray
    stranger: np.ndarray
    rank: np.ndarray

    @property
    def mated(self) -> np.ndarray:
        """(P,) bool, whether the gallery has the probe's person."""
        return self.rank > 0

    def rank_rate(self, rank: int, weights: np.ndarray | None = None) -> float | None:
        """The share of mated probes whose person is among the first ``rank``; None for none."""
        counted = self.mated * (np.ones(len(self.rank)) if weights is None else weights)
        total = counted.sum()
        return float(counted[self.rank <= rank].sum() / total) if total else None

    @cached_property
    def tail(self) -> ScoreTail:
        """Mates that rank first against the strangers that searches without a mate bring."""
        mate = np.where(self.rank == 1, self.mate, -np.inf)[self.mated]
        stranger = self.stranger[~self.mated]
        return ScoreTail(mate, stranger[self._descending], len(stranger))

    @cached_property
    def _descending(self) -> np.ndarray:
        return np.argsort(-self.stranger[~self.mated], kind="stable")

    def tpir_at(self, fpir: float, weights: np.ndarray | None = None) -> float | None:
        """TPIR: the share of mated searches in which the mate ranks first, above the threshold
        that at most ``fpir`` of the searches without a mate pass with anyone (FPIR).

        Without weights None where fewer than ten such searches may pass. Source: Grother & Ngan,
        NIST Interagency Report 8009, 2014, whose FNIR at rank 1 is 1 - TPIR.

        Args:
            fpir: at least 0.
            weights: (P,), by which each probe counts, as in resampling.
        """
        if weights is None:
            return self.tail.rate_at(fpir)
        non_mated = weights[~self.mated][self._descending].astype(np.float64)
        genuine = weights[self.mated].astype(np.float64)
        return self.tail.weighted_rate_at(fpir, genuine, non_mated, float(non_mated.sum()))


def search(
    probes: np.ndarray, probe_people: np.ndarray, gallery: np.ndarray, gallery_people: np.ndarray
) -> Searches:
    """Search for each probe in a gallery that is in memory.

    Args:
        probes: (P, E) unit embeddings, float64.
        probe_people: (P,) int.
        gallery: (G, E) unit embeddings.
        gallery_people: (G,) int; a person may have several entries, of which the best counts.
    """
    found: list[tuple[np.ndarray, ...]] = []
    for start in range(0, len(probes), _PROBES):
        scores = probes[start : start + _PROBES] @ gallery.T
        own = probe_people[start : start + _PROBES, None] == gallery_people[None]
        mate = np.where(own, scores, -np.inf).max(axis=1)
        strangers = np.where(own, -np.inf, scores)
        rank = 1 + np.count_nonzero(strangers >= mate[:, None], axis=1)
        rank[~own.any(axis=1)] = 0
        found.append((mate, strangers.max(axis=1), rank))
    return Searches(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


class Strangers:
    """The highest scores of each probe among a crowd of strangers that comes in parts.

    Holds (P, keep) scores, however many strangers there are.

    Attributes:
        top: (P, keep) float64, each row in descending order; -inf where fewer came.

    Args:
        probes: (P, E) unit embeddings, float64.
        keep: how many scores to keep of each probe.
    """

    def __init__(self, probes: np.ndarray, keep: int):
        self._probes = probes
        self.top = np.full((len(probes), keep), -np.inf)

    def add(self, units: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
        """Take up strangers (n, E), unit embeddings; their scores (P, n).

        Args:
            units: of the strangers.
            own: (P, n) bool, whose score is no stranger's but of the probe's own person.
        """
        scores = self._probes @ units.T
        keep = self.top.shape[1]
        best = scores if own is None else np.where(own, -np.inf, scores)
        if best.shape[1] > keep:
            best = np.partition(best, -keep, axis=1)[:, -keep:]
        both = np.concatenate([self.top, best], axis=1)
        self.top = -np.sort(-both, axis=1)[:, :keep]
        return scores

    def rank(self, probe: np.ndarray, score: np.ndarray) -> np.ndarray:
        """1 and one more for each kept stranger that scores as high as a mate or higher.

        Args:
            probe: (M,) int row of each mate's probe.
            score: (M,) its score.

        Returns:
            (M,) int, at most ``keep`` + 1.
        """
        return 1 + np.count_nonzero(self.top[probe] >= score[:, None], axis=1)


class TopScores:
    """The highest of more scores than can be held, exactly, and what they are the scores of.

    Args:
        keep: how many to keep, at least 1.
    """

    def __init__(self, keep: int):
        self.keep = keep
        self._floor = -np.inf  # what scores less is not among the highest
        self._held = 0
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []

    def add(
        self,
        scores: np.ndarray,
        rows: np.ndarray,
        columns: np.ndarray,
        counted: np.ndarray | None = None,
    ) -> None:
        """Take up a table of scores.

        Args:
            scores: (n, m) float64.
            rows: (n,) int, what stands in a row.
            columns: (m,) int, what stands in a column.
            counted: (n, m) bool, what of the table is taken; None: all.
        """
        chosen = scores > self._floor
        if counted is not None:
            chosen &= counted
        row, column = np.nonzero(chosen)
        if not len(row):
            return
        pairs = np.stack([rows[row], columns[column]], axis=1)
        self._parts.append((scores[row, column], pairs))
        self._held += len(row)
        if self._held > 2 * self.keep:
            self._prune()

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """The scores (K,) in descending order, and row and column of each: (K, 2)."""
        if not self._parts:
            return np.empty(0), np.empty((0, 2), dtype=np.int64)
        self._prune()
        scores, pairs = self._parts[0]
        order = np.argsort(-scores, kind="stable")
        return scores[order], pairs[order]

    def _prune(self) -> None:
        scores, pairs = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        if len(scores) > self.keep:
            best = np.argpartition(-scores, self.keep - 1)[: self.keep]
            scores, pairs = scores[best], pairs[best]
            self._floor = float(scores.min())
        self._parts, self._held = [(scores, pairs)], len(scores)


def chunks(count: int, size: int) -> Iterator[slice]:
    """Slices of ``size`` that cover ``count`` things."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
