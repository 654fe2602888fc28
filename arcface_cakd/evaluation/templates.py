"""Templates: several images of one person as one embedding, and pairs of them scored."""

import numpy as np

from arcface_cakd.evaluation.embedding import unit

_FIRSTS = 64  # templates that are compared with all their partners at once


def pool_templates(
    features: np.ndarray, templates: np.ndarray, medias: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of templates: the mean over each media, summed over the medias, at length 1.

    So a video counts as much as a still image, however many frames it has. Source: IJB-C's
    evaluation in arcface_torch, ``eval_ijbc.py``, which computes the means in float32.

    Args:
        features: (N, E) of the images, not normalised: a weak embedding counts for less.
        templates: (N,) int, the template of each image.
        medias: (N,) int, its media; one number in two templates is two medias.

    Returns:
        the templates' numbers (T,), ascending, and their embeddings (T, E) float64.
    """
    order = np.lexsort((medias, templates))
    features, sorted_templates = features[order].astype(np.float64), templates[order]
    changes = np.diff(sorted_templates) != 0
    starts = np.flatnonzero(np.append(True, changes | (np.diff(medias[order]) != 0)))
    counts = np.diff(np.append(starts, len(order)))
    means = np.add.reduceat(features, starts, axis=0) / counts[:, None]
    of_media = sorted_templates[starts]
    firsts = np.flatnonzero(np.append(True, np.diff(of_media) != 0))
    return of_media[firsts], unit(np.add.reduceat(means, firsts, axis=0))


def pair_scores(units: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Cosines (P,) float64 of pairs of unit embeddings.

    Millions of pairs of a few thousand templates are products of small matrices, of which the
    pairs' entries are taken: far less to move than two embeddings for each pair.

    Args:
        units: (T, E) float64.
        pairs: (P, 2) int, rows of ``units``.
    """
    scores = np.empty(len(pairs))
    order = np.argsort(pairs[:, 0], kind="stable")
    firsts, starts = np.unique(pairs[order, 0], return_index=True)
    edges = np.append(starts, len(pairs))
    partner = np.empty(len(units), dtype=np.int64)
    for begin in range(0, len(firsts), _FIRSTS):
        end = min(begin + _FIRSTS, len(firsts))
        chosen = order[edges[begin] : edges[end]]
        partners = np.unique(pairs[chosen, 1])
        partner[partners] = np.arange(len(partners))
        block = units[firsts[begin:end]] @ units[partners].T
        row = np.repeat(np.arange(end - begin), np.diff(edges[begin : end + 1]))
        scores[chosen] = block[row, partner[pairs[chosen, 1]]]
    return scores


def people_of_pairs(pairs: np.ndarray, issame: np.ndarray, count: int) -> np.ndarray:
    """Who is in each template, as far as pairs of one person tell: (count,) int.

    Templates that such pairs link, directly or over others, are one person's.

    Args:
        pairs: (P, 2) int below ``count``.
        issame: (P,) bool.
        count: of templates.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    linked = pairs[issame]
    ones = np.ones(len(linked), dtype=np.int8)
    graph = coo_array((ones, (linked[:, 0], linked[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]
