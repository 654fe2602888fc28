"""What is drawn for an image in an epoch: a function of the seed, the epoch and its own key."""

import numpy as np

_ORDER, _FLIP, _AUGMENTATION = 0, 1, 2  # from here on, one number for each draw
_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def epoch_order(keys: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Places of the ``keys`` (N,) in the order of an epoch, int64 (N,)."""
    return np.argsort(_hash(keys, seed, epoch, _ORDER), kind="stable")


def epoch_flips(keys: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Which of the ``keys`` (N,) are flipped in an epoch, bool (N,)."""
    return _hash(keys, seed, epoch, _FLIP) >> np.uint64(63) == 1


def view_draws(keys: np.ndarray, seed: int, view: int, count: int) -> np.ndarray:
    """What augmentation draws for the ``keys`` (N,): float64 (N, count), uniform in [0, 1).

    Args:
        view: of each image, such as the epoch.
        count: draws for each image; what the first ones are does not hang on how many follow.
    """
    drawn = [_hash(keys, seed, view, _AUGMENTATION + i) for i in range(count)]
    return np.stack([(z >> np.uint64(11)) * 2.0**-53 for z in drawn], axis=-1)


def _hash(keys: np.ndarray, *context: int) -> np.ndarray:
    """Uniform uint64 (N,), each of its own key and of the context alone.

    A counter-based generator: SplitMix64 (Steele, Lea, Flood; OOPSLA 2014), whose state the
    context sets and the key advances. numpy's own streams may change between its versions.
    """
    state = np.zeros(1, dtype=np.uint64)
    for number in context:
        state = _mix(state ^ np.uint64(number % 2**64))
    return _mix(state + keys.astype(np.uint64) * _GOLDEN_GAMMA)


def _mix(state: np.ndarray) -> np.ndarray:
    z = state + _GOLDEN_GAMMA
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
