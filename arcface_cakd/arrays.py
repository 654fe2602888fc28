"""Files of arrays from anywhere, numpy's ``.npy``."""

import os
import warnings

import numpy as np


def map_array(path: str | os.PathLike) -> np.ndarray:
    """The array in a ``.npy`` file, mapped: it takes no memory that the file does not have.

    Raises:
        ValueError: it cannot be read, or holds something else; the text says why, on one line.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # of sizes that no number holds
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    except Exception as error:  # damaged heads and archives end in errors of many kinds
        text = " ".join(str(error).split())[:100] or type(error).__name__
        raise ValueError(text) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError("an archive of arrays (.npz)")
    return array
