"""The images of a record set in another order."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from arcface_cakd.data.record_sets import write_flat_records
from arcface_cakd.preparation.labels_table import write_labels
from arcface_cakd.preparation.output import check_vacant, whole_set
from arcface_cakd.preparation.record_set import RecordSet
from arcface_cakd.preparation.rewriting import Written, write_landmarks
from arcface_cakd.preparation.seeds import generator
from arcface_cakd.progress import track

# Images that are held at a time: read in the order of the file, so that a disk that seeks slowly
# goes through it once a block and not once an image. Crops have about 10 kB.
_BLOCK = 2**14


def shuffle(
    folder: str | Path, out: str | Path, seed: int, *, block: int = _BLOCK, force: bool = False
) -> Written:
    """Write the images of a record set in an order drawn from a seed, every image once.

    The new set is laid out as im2rec does, its keys from 0 on, as arcface_torch's
    ``shuffle_rec.py`` leaves it for readers that go through a file. Labels and encoded images are
    the same; names and landmarks go along.

    Args:
        folder: of ``train.rec`` and ``train.idx``.
        out: folder to write to.
        seed: of the order, which hangs on nothing else; 0 or more.
        block: images that are in memory at a time.
        force: whether a data set that is there may be replaced.

    Raises:
        RecordIOError, DataError: see ``RecordSet``; a seed below 0; or a data set is there and
            ``force`` is false.
    """
    check_vacant(out, force)
    images = RecordSet(folder)
    order = generator(seed).permutation(len(images))

    def shuffled() -> Iterator[tuple[bytes, int]]:
        for start in range(0, len(order), block):
            positions = order[start : start + block]
            held = {position: images.encoded(position) for position in np.sort(positions).tolist()}
            for position in positions.tolist():
                yield held.pop(position), int(images.labels[position])

    people = np.unique(images.labels)
    classes = int(people[-1]) + 1
    with whole_set(out, force) as new:
        tracked = track(shuffled(), "shuffling", len(order), unit="images")
        write_flat_records(new, tracked, classes)
        if images.names.names:
            write_labels(new, images.names.names, images.names.heading)
        write_landmarks(new, [images], np.stack([np.zeros_like(order), order], axis=1))
    return Written(len(order), len(people))
