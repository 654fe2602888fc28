"""The ROC curve of a set of pairs, and the figures that are read off it."""

from dataclasses import dataclass

import numpy as np

# A rate that rests on fewer false accepts than this is an accident of the sample.
MIN_FALSE_ACCEPTS = 10


@dataclass(frozen=True, eq=False)
class RocCurve:
    """False against true accept rates, one point per distinct distance, accepting more and more.

    Attributes:
        far: (K,) share of the negative pairs that is accepted, from 0 to 1, non-decreasing.
        tar: (K,) share of the positive pairs that is accepted, from 0 to 1, non-decreasing.
        thresholds: (K,) a pair is accepted if its distance is at most this; the first, -inf,
            accepts none.
        positives: pairs of one identity.
        negatives: pairs of two identities.
    """

    far: np.ndarray
    tar: np.ndarray
    thresholds: np.ndarray
    positives: int
    negatives: int

    @property
    def lowest_far(self) -> float | None:
        """The lowest FAR that the set can support: 10 / negatives; None where it has not 10."""
        return MIN_FALSE_ACCEPTS / self.negatives if self.negatives >= MIN_FALSE_ACCEPTS else None

    def area(self) -> float:
        """AUC: the chance that a positive pair is nearer than a negative one, ties counting half.

        The trapezoids under the curve sum to exactly that rank statistic.
        """
        return float(np.sum(np.diff(self.far) * (self.tar[1:] + self.tar[:-1]) / 2))

    def equal_error_rate(self) -> float:
        """EER: where false accepts and false rejects are equally frequent.

        Between two points of the curve, where the crossing lies, rates are interpolated linearly.
        """
        gap = self.far - (1 - self.tar)  # from -1 to 1, non-decreasing
        after = int(np.searchsorted(gap, 0.0))
        before = after - 1
        share = -gap[before] / (gap[after] - gap[before])
        return float(self.far[before] + share * (self.far[after] - self.far[before]))

    def tar_at(self, far: float) -> float | None:
        """The highest TAR at which no more than ``far`` of the negatives are accepted.

        None where ``far`` is below ``lowest_far``, or there is none.
        """
        if self.lowest_far is None or far < self.lowest_far:
            return None
        return float(self.tar[np.searchsorted(self.far, far, side="right") - 1])

    def tar_nearest(self, far: float) -> float:
        """TAR at the corner of the curve whose FAR is nearest to ``far``.

        This is what arcface_torch's ``eval_ijbc.py`` prints: of corners at one FAR the highest, of
        two that are equally near the one of the higher FAR. Corners are the points that
        scikit-learn's ``roc_curve`` keeps: those in the middle of three on a line, as many pairs
        of each kind apart, are left out.
        """
        accepted = np.rint(self.far[1:] * self.negatives), np.rint(self.tar[1:] * self.positives)
        corner = np.ones(len(self.far), dtype=bool)
        if len(self.far) > 3:
            turns = [np.diff(kind, 2) != 0 for kind in accepted]
            corner[2:-1] = turns[0] | turns[1]
        fars, tars = self.far[corner][::-1], self.tar[corner][::-1]
        return float(tars[np.argmin(np.abs(fars - far))])


def roc_curve(distances: np.ndarray, issame: np.ndarray) -> RocCurve:
    """The ROC curve of pairs that are accepted when they are near.

    Args:
        distances: (P,) of the pairs, finite.
        issame: (P,) bool, whether a pair shows one identity; both kinds occur.
    """
    thresholds = np.unique(distances)
    positives, negatives = np.sort(distances[issame]), np.sort(distances[~issame])
    tar = np.searchsorted(positives, thresholds, side="right") / len(positives)
    far = np.searchsorted(negatives, thresholds, side="right") / len(negatives)
    return RocCurve(
        far=np.concatenate([[0.0], far]),
        tar=np.concatenate([[0.0], tar]),
        thresholds=np.concatenate([[-np.inf], thresholds]),
        positives=len(positives),
        negatives=len(negatives),
    )
