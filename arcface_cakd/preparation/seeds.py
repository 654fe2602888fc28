"""What is drawn by a seed."""

import numpy as np

from arcface_cakd.data.errors import DataError


def generator(seed: int) -> np.random.Generator:
    """numpy's generator of a seed.

    Raises:
        DataError: the seed is below 0.
    """
    if seed < 0:
        raise DataError(f"seed is {seed}: it must be 0 or more")
    return np.random.default_rng(seed)
