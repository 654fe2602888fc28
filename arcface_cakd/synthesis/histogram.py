"""How far colours alone go: a baseline without any idea of a face."""

import numpy as np

from arcface_cakd.data.bins import VerificationSet

BINS = 8
FOLDS = 10


def histogram_baseline(verification_set: VerificationSet) -> float:
    """10-fold verification accuracy of comparing colour histograms.

    The histogram of a picture is joint over red, green and blue, 8 bins each, of the middle of
    the crop (rows 16 to 111, columns 20 to 91), which is nearly all face. Two pictures are as
    alike as the Bhattacharyya coefficient of their histograms. Each tenth of the pairs is
    decided by the threshold that is best on the other nine.

    Returns:
        mean accuracy over the folds, in [0, 1].
    """
    issame = verification_set.issame
    histograms = np.stack([colour_histogram(image) for image in verification_set.images])
    alike = np.sqrt(histograms[0::2] * histograms[1::2]).sum(axis=1)
    tenths = np.array_split(np.arange(len(issame)), min(FOLDS, len(issame)))
    accuracies = []
    for tenth in tenths:
        rest = np.setdiff1d(np.arange(len(issame)), tenth)
        threshold = best_threshold(alike[rest], issame[rest])
        accuracies.append(np.mean((alike[tenth] >= threshold) == issame[tenth]))
    return float(np.mean(accuracies))


def colour_histogram(image: np.ndarray) -> np.ndarray:
    """(512,) float64 shares of the colours of the middle of uint8 (112, 112, 3)."""
    face = image[16:112, 20:92].reshape(-1, 3).astype(np.int64) * BINS // 256
    codes = (face[:, 0] * BINS + face[:, 1]) * BINS + face[:, 2]
    return np.bincount(codes, minlength=BINS**3) / len(codes)


def best_threshold(similarity: np.ndarray, issame: np.ndarray) -> float:
    """The least threshold t for which ``similarity >= t`` is right most often."""
    order = np.argsort(-similarity, kind="stable")
    ranked, same = similarity[order], issame[order]
    # Accepting the first k pairs; k must not cut through equal similarities.
    right = np.concatenate([[0], np.cumsum(same)]) + (
        (~same).sum() - np.concatenate([[0], np.cumsum(~same)])
    )
    ends = np.append(np.insert(ranked[1:] != ranked[:-1], 0, True), True)
    accepted = np.flatnonzero(ends & (right == right[ends].max()))[-1]
    return float(ranked[accepted - 1]) if accepted else float(np.inf)
