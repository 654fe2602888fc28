"""Verification sets in Arrow folders, as CVLface evaluates on them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arcface_cakd.data.bins import pairs_problem
from arcface_cakd.data.errors import DataError
from arcface_cakd.data.images import decode_crop
from arcface_cakd.preparation.importing.arrow import batches, image_bytes, schema_of
from arcface_cakd.preparation.pairing import replace_bin
from arcface_cakd.progress import track

COLUMNS = ["image", "index", "is_same"]


def holds_pairs(kind: str, path: Path) -> bool:
    """Whether a table is a verification set: an image, its index, and whether its pair is one.

    Raises:
        DataError: pyarrow is missing, or it is no such file.
    """
    return set(COLUMNS) <= set(schema_of(kind, path).names)


def import_pairs(kind: str, files: Sequence[Path], out: str | Path) -> tuple[int, int]:
    """Write a verification set of Arrow or parquet files as ``.bin``, the same encoded images.

    Images of the index 2p and 2p + 1 are pair p, and both say whether it is of one person. Who they
    are is not told: a table of a former set's people goes with that set.

    Args:
        kind: "arrow" or "parquet".
        files: in order.
        out: the ``.bin`` file.

    Returns:
        how many pairs are of one person, and of two.

    Raises:
        DataError: rows are missing, damaged or contradict each other, or pairs that the 10-fold
            protocol cannot judge.
    """
    images: dict[int, bytes] = {}
    same: dict[int, bool] = {}
    for path in files:
        row = -1
        for batch in track(batches(kind, path, COLUMNS)[1], f"reading {path.name}"):
            for values in zip(*(batch.column(name) for name in COLUMNS), strict=True):
                row += 1
                image, index, is_same = (value.as_py() for value in values)
                try:
                    encoded = image_bytes(image)
                    decode_crop(encoded, strict=True)
                    if index in images or not isinstance(index, int) or is_same is None:
                        raise ValueError(f"its index {index} is there twice, or has no is_same")
                except (DataError, ValueError) as error:
                    raise DataError(f"{path}, row {row}: {error}") from error
                images[index], same[index] = encoded, bool(is_same)
    count = len(images)
    if sorted(images) != list(range(count)) or count % 2:
        raise DataError(f"{files[0]}: its {count} rows are not of the indices 0 to an odd number")
    issame = np.array([same[index] for index in range(count)], dtype=bool)
    unlike = np.flatnonzero(issame[0::2] != issame[1::2])
    if len(unlike):
        raise DataError(f"{files[0]}: the two rows of pair {unlike[0]} say otherwise of is_same")
    if problem := pairs_problem(issame[0::2]):
        raise DataError(f"{files[0]}: {problem}")
    replace_bin(Path(out), [images[index] for index in range(count)], issame[0::2].tolist())
    return int(issame[0::2].sum()), int((~issame[0::2]).sum())
