"""Which images of many are nearly the same: by a perceptual hash, or by embeddings."""

from collections.abc import Iterator

import numpy as np

from arcface_cakd.data.images import CROP
from arcface_cakd.progress import track

HASH_BYTES = 32
MOST_BITS = 24  # beyond, hashes of different faces come near, and the search takes all pairs

_SIZE = 28  # of the shrunken crop, whose cosine transform is taken
_KEPT = 16  # frequencies in each direction
_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_PAIRS = 1 << 20  # that are compared at a time
_ROWS = 2048  # embeddings that are compared at a time
_ONES = np.array([bin(word).count("1") for word in range(1 << 16)], dtype=np.uint8)


def perceptual_hash(pixels: np.ndarray) -> np.ndarray:
    """256 bits of how an image looks: what of its low frequencies is above their median.

    The pHash of Zauner (Implementation and Benchmarking of Perceptual Image Hash Functions, 2010)
    with 16 x 16 frequencies of the crop, where it takes 8 x 8: aligned faces share so much that
    64 bits do not tell them apart.

    Args:
        pixels: uint8 (112, 112, 3) RGB.

    Returns:
        uint8 (32,).
    """
    step = CROP[0] // _SIZE
    grey = (pixels.astype(np.float32) @ _GREY).reshape(_SIZE, step, _SIZE, step).mean((1, 3))
    frequencies = (_COSINES @ grey @ _COSINES.T).ravel()
    return np.packbits(frequencies > np.median(frequencies))


def _cosines() -> np.ndarray:
    """The first rows of the orthonormal DCT-II, (16, 28)."""
    rows, columns = np.arange(_KEPT)[:, None], np.arange(_SIZE)[None]
    matrix = np.cos(np.pi * rows * (2 * columns + 1) / (2 * _SIZE)) * np.sqrt(2 / _SIZE)
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


_COSINES = _cosines()


def pairs_within(hashes: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of hashes that differ in so many bits or fewer.

    Two such hashes agree whole in one of ``bits`` + 1 parts, so that only hashes which share a
    part are compared.

    Args:
        hashes: uint8 (N, 32).
        bits: 0 to 24.

    Returns:
        pairs (E, 2) int64, the first number lower, in order; and their bits (E,) int64.
    """
    count = len(hashes)
    words = hashes.view(np.uint16)
    found = [np.zeros(0, dtype=np.int64)]
    for part in track(range(bits + 1), "comparing hashes", unit="parts"):
        keys = _part(hashes, part, bits + 1)
        order = np.argsort(keys, kind="stable")
        for first, second in _equal(keys[order]):
            one, other = order[first], order[second]
            near = _ONES[words[one] ^ words[other]].sum(1, dtype=np.int64) <= bits
            low, high = np.minimum(one, other)[near], np.maximum(one, other)[near]
            found.append(low * count + high)
    numbers = np.unique(np.concatenate(found))
    pairs = np.stack([numbers // max(count, 1), numbers % max(count, 1)], axis=1)
    return pairs, _ONES[words[pairs[:, 0]] ^ words[pairs[:, 1]]].sum(1, dtype=np.int64)


def _part(hashes: np.ndarray, part: int, parts: int) -> np.ndarray:
    """Every ``parts``-th bit of each hash, 62 of them at most, as a number: (N,) int64."""
    keys = np.zeros(len(hashes), dtype=np.int64)
    for bit in range(part, 8 * HASH_BYTES, parts)[:62]:
        keys = keys << 1 | (hashes[:, bit // 8] >> (7 - bit % 8) & 1)
    return keys


def _equal(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of places whose keys are equal, some at a time, where keys are sorted."""
    places = np.arange(len(keys))
    for step in range(1, len(keys)):
        places = places[places + step < len(keys)]
        places = places[keys[places] == keys[places + step]]
        if not len(places):
            return
        for start in range(0, len(places), _PAIRS):
            some = places[start : start + _PAIRS]
            yield some, some + step


def pairs_above(
    embeddings: np.ndarray, places: np.ndarray, cosine: float, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of embeddings whose cosine is so high or higher.

    Every one is compared with every other, a block with a block.

    Args:
        embeddings: (N, E), of length 1; may be mapped.
        places: (M,) int64, ascending: of those to compare.
        cosine: the least.
        device: where blocks are compared.

    Returns:
        pairs (E, 2) of places, the first lower, in order; and their cosines (E,) float32.
    """
    import torch

    pairs, cosines = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]

    def block(start: int) -> torch.Tensor:
        rows = embeddings[places[start : start + _ROWS]].astype(np.float32)
        return torch.from_numpy(rows).to(device)

    for start in track(range(0, len(places), _ROWS), "comparing embeddings", unit="blocks"):
        own = block(start)
        for other in range(start, len(places), _ROWS):
            products = own @ block(other).T
            near = products >= cosine
            if other == start:
                near = near.triu(1)
            at = near.nonzero()
            cosines.append(products[at[:, 0], at[:, 1]].cpu().numpy())
            pairs.append((at.cpu() + torch.tensor([start, other])).numpy())
    joined, values = places[np.concatenate(pairs)], np.concatenate(cosines)
    order = np.lexsort((joined[:, 1], joined[:, 0]))
    return joined[order], values[order]
