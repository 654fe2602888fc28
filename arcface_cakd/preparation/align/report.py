"""The report of an alignment: what was left out and why, and pictures to look at."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from arcface_cakd.data.contact_sheet import COLUMNS, ROWS, write_contact_sheet
from arcface_cakd.data.errors import DataError
from arcface_cakd.data.image_files import read_encoded
from arcface_cakd.data.images import decode_image
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.preparation.align.outcome import Crop, Outcome
from arcface_cakd.preparation.align.photographs import Photograph
from arcface_cakd.preparation.tables import write_table
from arcface_cakd.recordio import codec

_UNREADABLE, _BESIDE = 128, 255  # grey of what does not decode, and beside a thumbnail


def write_report(
    folder: Path,
    photographs: Sequence[Photograph],
    outcomes: Mapping[str, Outcome],
    crops: Path,
    label_free: bool,
) -> None:
    """Write ``left_out.tsv``, ``people.tsv`` and contact sheets.

    ``left_out.tsv`` has a line for a photograph, or where all faces are taken, for each face.

    ``taken.png`` shows crops, a row for a person, people evenly drawn (without labels, crops
    evenly drawn); ``least_certain.png`` those of the lowest scores, from the lowest on;
    ``left_out.png`` photographs of ``left_out.tsv``, in its order, grey what does not decode. A
    sheet of nothing is not there.

    Args:
        folder: to write to.
        photographs: that were looked at.
        outcomes: of each, by name.
        crops: folder of the crops.
        label_free: whether nobody was told apart.
    """
    left_out = [each for each in photographs if outcomes[each.name].left_out]
    rows = [(each.name, str(what)) for each in left_out for what in outcomes[each.name].left_out]
    write_table(folder / "left_out.tsv", ("photograph", "reason"), rows)
    taken: dict[str, list[Crop]] = {}
    for each in photographs:
        of = taken.setdefault(each.person or "", [])
        of += outcomes[each.name].crops
    if not label_free:
        _write_people(folder / "people.tsv", photographs, outcomes)
    all_crops = [crop for of in taken.values() for crop in of]
    if label_free:
        drawn = _rows(_evenly(all_crops, ROWS * COLUMNS))
    else:
        with_crop = [of[:COLUMNS] for of in taken.values() if of]
        drawn = _evenly(with_crop, ROWS)
    _draw(folder / "taken.png", [[_read(crops, crop) for crop in row] for row in drawn])
    scored = sorted(
        (crop for crop in all_crops if crop.score is not None), key=lambda crop: crop.score or 0.0
    )
    doubtful = _rows(scored[: ROWS * COLUMNS])
    _draw(folder / "least_certain.png", [[_read(crops, crop) for crop in row] for row in doubtful])
    shown = _rows(left_out[: ROWS * COLUMNS])
    _draw(folder / "left_out.png", [[_thumbnail(each.path) for each in row] for row in shown])


def _write_people(
    path: Path, photographs: Sequence[Photograph], outcomes: Mapping[str, Outcome]
) -> None:
    counts: dict[str, list[int]] = {}
    for each in photographs:
        count = counts.setdefault(each.person or "", [0, 0])
        count[0] += 1
        count[1] += len(outcomes[each.name].crops)
    rows = [
        (person, str(seen), str(crops), str(seen - crops))
        for person, (seen, crops) in counts.items()
    ]
    write_table(path, ("person", "photographs", "crops", "left out"), rows)


def _evenly(items: Sequence, number: int) -> list:
    """At most so many of the items, from all over."""
    places = np.linspace(0, len(items) - 1, min(number, len(items))).round().astype(int)
    return [items[place] for place in places]


def _rows(items: Sequence) -> list[Sequence]:
    return [items[first : first + COLUMNS] for first in range(0, len(items), COLUMNS)]


def _draw(path: Path, rows: Sequence[Sequence[bytes]]) -> None:
    if rows:
        write_contact_sheet(path, rows)
    else:
        path.unlink(missing_ok=True)  # of a former report


def _read(folder: Path, crop: Crop) -> bytes:
    return (folder / crop.file).read_bytes()


def _thumbnail(path: str) -> bytes:
    """A photograph as large as a crop, encoded."""
    square = np.full((CROP_SIZE, CROP_SIZE, 3), _BESIDE, dtype=np.uint8)
    try:
        image = decode_image(read_encoded(path))
    except DataError:
        return codec.encode(np.full_like(square, _UNREADABLE))
    scale = CROP_SIZE / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    top, left = (CROP_SIZE - height) // 2, (CROP_SIZE - width) // 2
    square[top : top + height, left : left + width] = cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA
    )
    return codec.encode(square)
