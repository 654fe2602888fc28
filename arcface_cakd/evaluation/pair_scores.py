"""Figures on the scores of pairs, also where pairs count by weight, as in resampling."""

import numpy as np

from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.evaluation.verification import ACCURACY_GRID, check_pairs

FOLDS = 10


class PairScores:
    """Scores of verification pairs; a higher score says one identity.

    Each method takes weights (B, P), at least 0: in row b pair p counts as that many pairs.
    It returns (B,) float64. Without weights every pair counts once, and B is 1.

    Args:
        scores: (P,) cosines, in [-1, 1]. Computed in float64.
        issame: (P,) bool, whether a pair shows one identity.

    Raises:
        EvaluationError: shapes that differ, scores that are not finite cosines, pairs of one kind
            only, fewer pairs than folds.
    """

    def __init__(self, scores: np.ndarray, issame: np.ndarray):
        scores, issame = np.asarray(scores, dtype=np.float64), np.asarray(issame, dtype=bool)
        if scores.ndim != 1 or scores.shape != issame.shape:
            raise EvaluationError(
                f"scores {scores.shape} and issame {issame.shape} must both be (P,)"
            )
        if not np.all(np.abs(scores) <= 1 + 1e-6):  # so written that NaN is refused
            raise EvaluationError("scores must be finite cosines in [-1, 1]: normalise embeddings")
        check_pairs(issame, FOLDS)
        self.scores, self.issame = scores, issame
        # Distinct scores, the highest first; pairs at each, by the first place in the order.
        self._order = np.argsort(-scores, kind="stable")
        ranked = scores[self._order]
        self._levels = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))

    def auc(self, weights: np.ndarray | None = None) -> np.ndarray:
        """The chance that a pair of one identity scores above one of two, ties counting half."""
        positive, negative = self._by_level(weights)
        below = negative.sum(axis=1, keepdims=True) - np.cumsum(negative, axis=1)
        wins = (positive * (below + negative / 2)).sum(axis=1)
        return wins / (positive.sum(axis=1) * negative.sum(axis=1))

    def tar_at(self, far: float, weights: np.ndarray | None = None) -> np.ndarray:
        """The highest TAR at which no more than ``far`` of the negatives are accepted.

        Unlike ``RocCurve.tar_at`` it is also given where fewer than ten of the negatives may be
        accepted, since what an interval is for is to say how little that is worth.

        Raises:
            EvaluationError: the set has fewer than 1 / ``far`` negative pairs.
        """
        negatives = np.count_nonzero(~self.issame)
        if far * negatives < 1:
            raise EvaluationError(
                f"{negatives} negative pairs say nothing of a FAR of {far:g}: 1 / FAR are needed"
            )
        positive, negative = self._by_level(weights)
        accepted = np.cumsum(negative, axis=1) / negative.sum(axis=1, keepdims=True)
        tar = np.cumsum(positive, axis=1) / positive.sum(axis=1, keepdims=True)
        tar = np.concatenate([np.zeros((len(tar), 1)), tar], axis=1)
        # Rates of whole counts: what rounding adds to a sum must not lose a level.
        levels = np.count_nonzero(accepted <= far + 1e-12, axis=1)
        return tar[np.arange(len(tar)), levels]

    def accuracy(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Share of the pairs that the 10-fold protocol decides right.

        Folds are contiguous; each is decided by the threshold, of the protocol's grid on the
        squared distance 2 - 2 cos, that is best on the others, the lowest of equally good ones.
        At equal folds and without weights this is ``VerificationResult.accuracy``.
        """
        weights = self._weights(weights)
        sizes = np.full(FOLDS, len(self.scores) // FOLDS)
        sizes[: len(self.scores) % FOLDS] += 1
        fold = np.repeat(np.arange(FOLDS), sizes)
        # A distance is accepted by every threshold from the first one above it on.
        first = np.searchsorted(ACCURACY_GRID, 2 - 2 * self.scores, side="right")
        columns = len(ACCURACY_GRID) + 1
        code = fold * columns + first
        order = np.argsort(code, kind="stable")
        starts = np.flatnonzero(np.append(True, np.diff(code[order]) > 0))
        gain = weights * np.where(self.issame, 1.0, -1.0)  # of accepting the pair
        gains = np.zeros((len(weights), FOLDS * columns))
        gains[:, code[order][starts]] = np.add.reduceat(gain[:, order], starts, axis=1)
        right = gains.reshape(-1, FOLDS, columns).cumsum(axis=2)[:, :, :-1]
        refused = np.where(self.issame, 0.0, weights)  # right, unless accepted
        edges = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        right += np.add.reduceat(refused, edges, axis=1)[:, :, None]
        best = np.argmax(right.sum(axis=1, keepdims=True) - right, axis=2)
        return np.take_along_axis(right, best[:, :, None], axis=2).sum(axis=(1, 2)) / weights.sum(1)

    def _weights(self, weights: np.ndarray | None) -> np.ndarray:
        if weights is None:
            return np.ones((1, len(self.scores)))
        return np.asarray(weights, dtype=np.float64)

    def _by_level(self, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The weight of the positives and of the negatives at each distinct score: (B, K) each."""
        ranked = self._weights(weights)[:, self._order]
        same = self.issame[self._order]
        return (
            np.add.reduceat(np.where(same, ranked, 0.0), self._levels, axis=1),
            np.add.reduceat(np.where(same, 0.0, ranked), self._levels, axis=1),
        )
