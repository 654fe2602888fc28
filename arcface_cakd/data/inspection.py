"""What a data set holds."""

import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

from arcface_cakd.data.bins import load_bin
from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_landmarks import find_landmarks
from arcface_cakd.data.folder import identity_folders, without_known
from arcface_cakd.data.image_files import SUFFIXES, read_encoded, some_of
from arcface_cakd.data.image_tree import image_tree
from arcface_cakd.data.record_layout import image_keys, read_property, warn_of_unindexed
from arcface_cakd.data.records import split
from arcface_cakd.progress import track
from arcface_cakd.recordio import MXIndexedRecordIO, codec

logger = logging.getLogger("arcface_cakd")


def inspect(path: str | Path, *, labelled: bool = True) -> list[dict[str, Any]]:
    """Describe a data set: each of its files, from the heads of records and images.

    Args:
        path: a ``.rec`` or ``.bin`` file, a folder of them, or one folder per identity.
        labelled: where not, the images of a folder may lie at any depth, see ``ImageTree``.

    Returns:
        one dict per file: ``path``, ``kind``, ``images``, ``sizes`` ("112 x 112" to how many),
        and for records ``identities`` (people), ``labels`` (the lowest and the highest),
        ``record_0`` ("insightface", "im2rec" where every key is an image, "none" where they do
        not begin at 0), ``multi_part``, ``other_records`` and ``landmarks``, the name of the file
        that holds those of each image, or None.

    Raises:
        DataError, RecordIOError: nothing there that could be one, or damage.
    """
    return [_INSPECTORS[kind](item) for kind, item in parts_of(path, labelled=labelled)]


def parts_of(path: str | Path, *, labelled: bool = True) -> list[tuple[str, Path]]:
    """The files of a data set and their kinds: "rec", "bin", or "folder" of identities.

    Args:
        path: of the set.
        labelled: where not, a folder of images is a "tree": one set, whoever is on them.

    Raises:
        DataError: no such file or folder, or a file of another kind.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_file():
        kind = path.suffix.lstrip(".")
        if kind not in ("rec", "bin"):
            raise DataError(f"{path}: neither a .rec nor a .bin file")
        return [(kind, path)]
    # An index alone stands for the records that should be with it.
    records = {p.with_suffix(".rec") for p in path.iterdir() if p.suffix in (".rec", ".idx")}
    parts = [("rec", item) for item in sorted(records)]
    bins = [("bin", item) for item in sorted(path.glob("*.bin"))]
    # Where there are no records, training reads the folders of identities, .bin sets or not.
    if not parts and (not bins or any(_has_images(inner) for inner in path.iterdir())):
        parts = [("folder" if labelled else "tree", path)]
    return parts + bins


def _has_images(folder: Path) -> bool:
    """Whether it is a folder with images somewhere below, as far as suffixes tell."""
    if not folder.is_dir() or folder.name[0] == ".":
        return False
    files = (name for _, _, names in os.walk(folder, onerror=_say_unread) for name in names)
    return any(Path(name).suffix.lower() in SUFFIXES for name in files)


def _say_unread(error: OSError) -> None:
    logger.warning("%s: cannot be read: %s; it is left out", error.filename, error.strerror)


def open_records(path: Path) -> MXIndexedRecordIO:
    """The records of a ``.rec`` file, by the index beside it."""
    return MXIndexedRecordIO(path.with_suffix(".idx"), path, "r")


def _inspect_records(path: Path) -> dict[str, Any]:
    reader = open_records(path)
    keys, identity_keys = image_keys(reader)
    warn_of_unindexed(reader, keys)
    sizes: Counter[str] = Counter()
    labels, multi_part = set(), 0
    for key in track(keys.tolist(), f"reading {path.name}", unit="records"):
        offset = reader.idx[key]
        payload = reader.read_idx(key)
        multi_part += reader.tell() - offset > 8 + len(payload) + 3
        try:
            encoded, label = split(payload)
            labels.add(label)
            sizes[_size(encoded)] += 1
        except DataError as error:
            raise DataError(f"{path}, key {key}: {error}") from error
    record_0 = "insightface" if 0 in reader.idx else "none"
    return {
        "path": str(path),
        "kind": "records",
        "record_0": "im2rec" if 0 in keys[:1] else record_0,
        "images": len(keys),
        "identities": len(labels),
        "labels": f"{min(labels):g} to {max(labels):g}" if labels else None,
        "declared_identities": read_property(path.parent) or len(identity_keys) or None,
        "multi_part": multi_part,
        "other_records": len(reader.idx) - len(keys),
        "landmarks": getattr(landmarks_of(path), "name", None),
        "sizes": dict(sizes),
    }


def landmarks_of(path: Path) -> Path | None:
    """The file of landmarks that belongs to a ``.rec`` file, None where there is none."""
    return find_landmarks(path.parent) if path.stem == "train" else None


def _inspect_bin(path: Path) -> dict[str, Any]:
    encoded, issame = load_bin(path)
    sizes: Counter[str] = Counter()
    for i, item in enumerate(encoded):
        try:
            sizes[_size(item)] += 1
        except DataError as error:
            raise DataError(f"{path}, image {i}: {error}") from error
    return {
        "path": str(path),
        "kind": "verification",
        "images": len(encoded),
        "pairs": len(issame),
        "same": int(issame.sum()),
        "sizes": dict(sizes),
    }


def _inspect_folder(path: Path) -> dict[str, Any]:
    found = identity_folders(path)
    files = [file for _, images in found.identities for file in images]
    return {
        "path": str(path),
        "kind": "folder",
        "images": len(files),
        "identities": len(found.identities),
        "left_out": found.left_out(),
        "sizes": _sizes(path, files),
    }


def _inspect_tree(path: Path) -> dict[str, Any]:
    files, others = image_tree(path)
    others = without_known(others)
    return {
        "path": str(path),
        "kind": "images without labels",
        "images": len(files),
        "folders": len({file.parent for file in files}),
        "left_out": f"{len(others)} ({some_of(others, path)})" if others else None,
        "sizes": _sizes(path, files),
    }


def _sizes(folder: Path, files: list[Path]) -> dict[str, int]:
    """How many of the images of a folder are of each size."""
    sizes: Counter[str] = Counter()
    for file in track(files, f"reading {folder.name}", unit="images"):
        try:
            sizes[_size(read_encoded(file))] += 1
        except DataError as error:
            raise DataError(f"{file}: {str(error).removeprefix(f'{file}: ')}") from error
    return dict(sizes)


def _size(encoded: bytes) -> str:
    try:
        height, width = codec.image_size(encoded)
    except ValueError as error:
        raise DataError(f"no image: {error}") from error
    return f"{width} x {height}"


_INSPECTORS = {
    "rec": _inspect_records,
    "bin": _inspect_bin,
    "folder": _inspect_folder,
    "tree": _inspect_tree,
}
