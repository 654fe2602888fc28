"""Face verification by the 10-fold protocol of LFW, as arcface_torch runs it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arcface_cakd.data import VerificationSet
from arcface_cakd.data.bins import pairs_problem
from arcface_cakd.evaluation.embedding import check_finite, embed, unit
from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.evaluation.interval import Interval
from arcface_cakd.evaluation.roc import MIN_FALSE_ACCEPTS, RocCurve, roc_curve

FARS = (1e-1, 1e-2, 1e-3, 1e-4)

# arcface_torch's grids of thresholds on the squared distance, and the FAR of its `val`.
ACCURACY_GRID = np.arange(0, 4, 0.01)
_VAL_GRID = np.arange(0, 4, 0.001)
_VAL_FAR = 1e-3


@dataclass(frozen=True)
class VerificationResult:
    """How well embeddings tell pairs of one identity from pairs of two. Rates are in [0, 1].

    Attributes:
        pairs: how many.
        positives: pairs of one identity.
        negatives: pairs of two identities.
        folds: of the protocol.
        accuracy: mean over the folds, each judged with the threshold that is best on the others.
        accuracy_std: standard deviation over the folds.
        threshold: the squared distance of unit embeddings that is best over all pairs, on the
            protocol's grid; as a cosine it is 1 - threshold / 2.
        auc: area under the ROC curve.
        eer: equal error rate.
        tar: TAR by FAR, as far down as the number of negatives carries.
        val: arcface_torch's ``val``, mean over the folds of the TAR at a threshold interpolated
            to FAR = 1e-3 on the others; None where it is undefined. It is given on any number
            of negatives, because arcface_torch gives it: ``tar`` is the figure to trust.
        val_std: its standard deviation over the folds, or None.
        val_far: the mean FAR that was met on the held-out folds, or None.
        absent: why a figure is not given, by its name.
        roc: the curve itself.
        accuracy_interval: of the accuracy, where people or pairs were drawn again.
    """

    pairs: int
    positives: int
    negatives: int
    folds: int
    accuracy: float
    accuracy_std: float
    threshold: float
    auc: float
    eer: float
    tar: dict[float, float]
    val: float | None
    val_std: float | None
    val_far: float | None
    absent: dict[str, str]
    roc: RocCurve = field(repr=False, compare=False)
    accuracy_interval: Interval | None = None

    def to_dict(self) -> dict[str, Any]:
        """Every figure, in types that JSON has; the curve is left out."""
        figures = asdict(self)
        del figures["roc"]
        figures["tar"] = {f"{far:g}": tar for far, tar in self.tar.items()}
        return figures


def evaluate_set(
    backbone: Callable[[Tensor], Tensor],
    pairs: VerificationSet,
    batch_size: int = 128,
    device: str | torch.device | None = None,
    description: str = "embedding",
) -> VerificationResult:
    """Judge a backbone on a verification set, with the embeddings of mirror images added.

    Args:
        backbone, batch_size, device, description: as ``embed`` takes them.
        pairs: images (2P, 112, 112, 3) uint8 RGB, and issame (P,).

    Raises:
        EvaluationError: see ``embed`` and ``verification_metrics``.
    """
    embeddings = embed(backbone, pairs.images, batch_size, device, description=description)
    return verification_metrics(embeddings, pairs.issame)


def verification_metrics(
    embeddings: np.ndarray,
    issame: Sequence[bool] | np.ndarray,
    folds: int = 10,
    fars: Sequence[float] = FARS,
) -> VerificationResult:
    """Judge embeddings of pairs; the numbers are arcface_torch's on the same embeddings.

    Folds are contiguous. A pair counts as one identity if the squared distance of its unit
    embeddings is strictly less than the threshold; among equally good thresholds the lowest
    is taken. Distances are computed in float64.

    Args:
        embeddings: (2P, E) finite, of any length; rows 2i and 2i + 1 are pair i.
        issame: (P,) whether pair i shows one identity.
        folds: of the protocol.
        fars: false accept rates to report the TAR at, above 0 and at most 1.

    Raises:
        EvaluationError: a FAR that is none, embeddings that are not finite or do not match the
            pairs, pairs of one kind only, fewer pairs than folds.
    """
    issame = np.asarray(issame).astype(bool)
    distances = pair_distances(embeddings)
    if issame.shape != distances.shape:
        raise EvaluationError(
            f"{2 * len(distances)} embeddings make {len(distances)} pairs, but issame has shape "
            f"{issame.shape}"
        )
    check_pairs(issame, folds)
    if not all(0 < far <= 1 for far in fars):
        raise EvaluationError(f"a FAR is above 0 and at most 1, got {list(fars)}")
    sizes = np.full(folds, len(issame) // folds)
    sizes[: len(issame) % folds] += 1
    fold = np.repeat(np.arange(folds), sizes)

    accuracies, threshold = _accuracies(distances, issame, fold, sizes)
    curve = roc_curve(distances, issame)
    tar, absent = {}, {}
    for far in fars:
        value = curve.tar_at(far)
        if value is None:
            absent[f"tar@far={far:g}"] = (
                f"needs {MIN_FALSE_ACCEPTS / far:.0f} negative pairs, has {curve.negatives}"
            )
        else:
            tar[float(far)] = value
    vals = val_fars = None
    lacking = _fold_without_a_kind(issame, fold, folds)
    if lacking:
        absent["val"] = lacking
    else:
        vals, val_fars = _vals(distances, issame, fold, folds)
    return VerificationResult(
        pairs=len(issame),
        positives=curve.positives,
        negatives=curve.negatives,
        folds=folds,
        accuracy=float(np.mean(accuracies)),
        accuracy_std=float(np.std(accuracies)),
        threshold=threshold,
        auc=curve.area(),
        eer=curve.equal_error_rate(),
        tar=tar,
        val=None if vals is None else float(np.mean(vals)),
        val_std=None if vals is None else float(np.std(vals)),
        val_far=None if val_fars is None else float(np.mean(val_fars)),
        absent=absent,
        roc=curve,
    )


def check_pairs(issame: np.ndarray, folds: int = 10) -> None:
    """Say whether the protocol can judge such pairs, before anything is computed.

    Args:
        issame: (P,) bool, whether pair i shows one identity.
        folds: of the protocol.

    Raises:
        EvaluationError: pairs of one kind only, fewer pairs than folds.
    """
    if problem := pairs_problem(issame, folds):
        raise EvaluationError(problem)


def pair_distances(embeddings: np.ndarray) -> np.ndarray:
    """Squared distances (P,) float64, in [0, 4], of the unit embeddings of pairs.

    Args:
        embeddings: (2P, E); rows 2i and 2i + 1 are pair i. A zero row stays zero.

    Raises:
        EvaluationError: another shape, an odd number of rows, or values that are not finite.
    """
    embeddings = np.asarray(embeddings, dtype=np.float64)
    if embeddings.ndim != 2:
        raise EvaluationError(f"embeddings must be (2P, E), got shape {embeddings.shape}")
    if len(embeddings) % 2:
        raise EvaluationError(f"{len(embeddings)} embeddings are not pairs: the number is odd")
    check_finite(embeddings)
    units = unit(embeddings)
    return np.sum(np.square(units[0::2] - units[1::2]), axis=1)


def _accuracies(
    distances: np.ndarray, issame: np.ndarray, fold: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, float]:
    """Accuracy of each fold (folds,), and the best threshold over all pairs."""
    folds = len(sizes)
    accepted = _accepted(distances[issame], fold[issame], folds, ACCURACY_GRID)
    false = _accepted(distances[~issame], fold[~issame], folds, ACCURACY_GRID)
    negatives = np.bincount(fold[~issame], minlength=folds)
    right = accepted + negatives[:, None] - false
    best = np.argmax(right.sum(axis=0) - right, axis=1)
    accuracies = right[np.arange(folds), best] / sizes
    return accuracies, float(ACCURACY_GRID[np.argmax(right.sum(axis=0))])


def _vals(
    distances: np.ndarray, issame: np.ndarray, fold: np.ndarray, folds: int
) -> tuple[np.ndarray, np.ndarray]:
    """arcface_torch's ``val`` and the FAR that goes with it, of each fold: (folds,) each."""
    false = _accepted(distances[~issame], fold[~issame], folds, _VAL_GRID)
    negatives = np.bincount(fold[~issame], minlength=folds)
    others = (negatives.sum() - negatives)[:, None]
    far_of_others = (false.sum(axis=0) - false) / others
    vals, fars = np.zeros(folds), np.zeros(folds)
    for k in range(folds):
        threshold = 0.0
        if far_of_others[k, -1] >= _VAL_FAR:
            threshold = np.interp(_VAL_FAR, far_of_others[k], _VAL_GRID)
        near = distances < threshold
        vals[k] = np.mean(near[issame & (fold == k)])
        fars[k] = np.mean(near[~issame & (fold == k)])
    return vals, fars


def _accepted(
    distances: np.ndarray, fold: np.ndarray, folds: int, thresholds: np.ndarray
) -> np.ndarray:
    """How many distances of each fold are less than each threshold: (folds, T) int."""
    # A distance is accepted by every threshold from the first one above it on.
    first = np.searchsorted(thresholds, distances, side="right")
    columns = len(thresholds) + 1
    counts = np.bincount(fold * columns + first, minlength=folds * columns)
    return counts.reshape(folds, columns).cumsum(axis=1)[:, :-1]


def _fold_without_a_kind(issame: np.ndarray, fold: np.ndarray, folds: int) -> str | None:
    for name, members in (("positive", fold[issame]), ("negative", fold[~issame])):
        counts = np.bincount(members, minlength=folds)
        if not counts.all():
            return f"fold {np.argmin(counts)} of {folds} has no {name} pairs: the order is sorted"
    return None
