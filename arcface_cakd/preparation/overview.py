"""Some images of a data set, to look at."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from arcface_cakd.data.bins import load_bin
from arcface_cakd.data.contact_sheet import COLUMNS, ROWS
from arcface_cakd.data.folder import identity_folders
from arcface_cakd.data.image_tree import image_tree
from arcface_cakd.data.inspection import open_records, parts_of
from arcface_cakd.data.labels import all_labels
from arcface_cakd.data.record_layout import image_keys
from arcface_cakd.data.records import split


def rows_of(path: str | Path, *, labelled: bool = True) -> list[list[bytes]]:
    """Encoded images of a data set, in rows for a contact sheet.

    A row has the first images of a person, or pairs of a ``.bin`` set, side by side. People and
    pairs are spread evenly over each file of the set, and the rows over its files.

    Args:
        path, labelled: as ``data.inspection.inspect`` takes them.

    Raises:
        DataError, RecordIOError: nothing there that could be a data set, or damage.
    """
    parts = parts_of(path, labelled=labelled)
    each = max(1, ROWS // len(parts))
    return [row for kind, part in parts for row in _ROWS_OF[kind](part, each)]


def _rows_of_records(path: Path, rows: int) -> Iterator[list[bytes]]:
    reader = open_records(path)
    keys, _ = image_keys(reader)
    labels = all_labels(reader, keys)
    people = np.unique(labels)
    for person in people[_spread(len(people), rows)].tolist():
        first = keys[np.flatnonzero(labels == person)[:COLUMNS]]
        yield [split(reader.read_idx(key))[0] for key in first.tolist()]


def _rows_of_bin(path: Path, rows: int) -> Iterator[list[bytes]]:
    encoded, issame = load_bin(path)
    pairs = _spread(len(issame), rows * COLUMNS // 2)
    images = [encoded[2 * pair + k] for pair in pairs.tolist() for k in (0, 1)]
    for start in range(0, len(images), COLUMNS):
        yield images[start : start + COLUMNS]


def _rows_of_folder(path: Path, rows: int) -> Iterator[list[bytes]]:
    identities = identity_folders(path).identities
    for person in _spread(len(identities), rows).tolist():
        yield [file.read_bytes() for file in identities[person][1][:COLUMNS]]


def _rows_of_tree(path: Path, rows: int) -> Iterator[list[bytes]]:
    files = image_tree(path)[0]
    shown = [files[place] for place in _spread(len(files), rows * COLUMNS).tolist()]
    for start in range(0, len(shown), COLUMNS):
        yield [file.read_bytes() for file in shown[start : start + COLUMNS]]


def _spread(length: int, count: int) -> np.ndarray:
    """``count`` places, or all where there are fewer, evenly from the first to the last."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(np.int64))


_ROWS_OF = {
    "rec": _rows_of_records,
    "bin": _rows_of_bin,
    "folder": _rows_of_folder,
    "tree": _rows_of_tree,
}
