"""What tells one training set from another, without reading all of it."""

import hashlib
from pathlib import Path

import numpy as np

from arcface_cakd.data.reading import FaceImages
from arcface_cakd.data.records import FaceRecords

_SAMPLES = 256


def data_digest(images: FaceImages) -> str:
    """SHA-256, in hex, of a training set: what it holds, how large, and some of it whole.

    Of a record set: the keys, ``train.idx`` and the size of ``train.rec``; of a folder: the paths
    below it and each file's size. Then the bytes of 256 images that are spread evenly over the
    set, or of all where there are no more. An image that was changed and kept its size goes
    unseen unless it is one of those. Where the folder lies, and times of files, do not matter.

    Raises:
        RecordIOError, DataError, OSError: a file cannot be read.
    """
    found = hashlib.sha256()
    if isinstance(images, FaceRecords):
        found.update(images.keys.tobytes())
        with open(images.path.with_name("train.idx"), "rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
        found.update(f"{images.path.stat().st_size};".encode())
    else:
        for path in map(Path, images.paths):
            name = path.relative_to(images.folder).as_posix()
            found.update(f"{name} {path.stat().st_size};".encode())
    sampled = np.unique(np.linspace(0, len(images) - 1, _SAMPLES).astype(np.int64))
    for position in sampled.tolist():
        found.update(hashlib.sha256(images.encoded(position)[0]).digest())
    return found.hexdigest()
