"""What a data set holds, and whether all of it can be read."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arcface_cakd.data.bins import load_bin
from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_landmarks import FaceLandmarks, find_landmarks
from arcface_cakd.data.folder import identity_folders
from arcface_cakd.data.images import decode_crop, decode_image
from arcface_cakd.data.records import MAX_EXACT, identity, image_keys, read_property, split
from arcface_cakd.progress import track
from arcface_cakd.recordio import MXIndexedRecordIO, RecordIOError, codec, unpack

Damage = dict[str, Any]


def inspect(path: str | Path) -> list[dict[str, Any]]:
    """Describe a data set: each of its files, from the heads of records and images.

    Args:
        path: a ``.rec`` or ``.bin`` file, a folder of them, or one folder per identity.

    Returns:
        one dict per file: ``path``, ``kind``, ``images``, ``sizes`` ("112 x 112" to how many),
        and for records ``identities``, ``record_0``, ``multi_part``, ``other_records`` and
        ``landmarks``, the name of the file that holds those of each image, or None.

    Raises:
        DataError, RecordIOError: nothing there that could be one, or damage.
    """
    return [_INSPECTORS[kind](item) for kind, item in _parts(path)]


def verify(path: str | Path) -> tuple[int, list[Damage]]:
    """Read and decode all of a data set.

    Args:
        path: as in ``inspect``.

    Returns:
        how many items were read, and for each damaged one ``path``, ``key`` (a record's key, an
        image's number in a ``.bin``, else None), ``byte`` (offset in the file, or None) and
        ``problem``.

    Raises:
        DataError, RecordIOError: a file as a whole cannot be read.
    """
    count, damages = 0, []
    for kind, item in _parts(path):
        for damage in _VERIFIERS[kind](item):
            count += 1
            if damage is not None:
                damages.append(damage)
    return count, damages


def _parts(path: str | Path) -> list[tuple[str, Path]]:
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
    parts += [("bin", item) for item in sorted(path.glob("*.bin"))]
    return parts or [("folder", path)]


def _open(path: Path) -> MXIndexedRecordIO:
    return MXIndexedRecordIO(path.with_suffix(".idx"), path, "r")


def _inspect_records(path: Path) -> dict[str, Any]:
    reader = _open(path)
    keys, identity_keys = image_keys(reader)
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
    return {
        "path": str(path),
        "kind": "records",
        "record_0": "im2rec" if 0 in keys[:1] else "insightface",
        "images": len(keys),
        "identities": len(labels),
        "declared_identities": read_property(path.parent) or len(identity_keys) or None,
        "multi_part": multi_part,
        "other_records": len(reader.idx) - len(keys),
        "landmarks": getattr(_landmarks_of(path), "name", None),
        "sizes": dict(sizes),
    }


def _landmarks_of(path: Path) -> Path | None:
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
    identities = identity_folders(path)
    files = [file for _, images in identities for file in images]
    sizes: Counter[str] = Counter()
    for file in track(files, f"reading {path.name}", unit="images"):
        try:
            sizes[_size(file.read_bytes())] += 1
        except DataError as error:
            raise DataError(f"{file}: {error}") from error
    return {
        "path": str(path),
        "kind": "folder",
        "images": len(files),
        "identities": len(identities),
        "sizes": dict(sizes),
    }


def _size(encoded: bytes) -> str:
    try:
        height, width = codec.image_size(encoded)
    except ValueError as error:
        raise DataError(f"no image: {error}") from error
    return f"{width} x {height}"


def _verify_records(path: Path) -> Iterator[Damage | None]:
    reader = _open(path)
    images, identities = set(), None
    try:
        images = set(image_keys(reader)[0].tolist())
    except (DataError, RecordIOError) as error:
        yield _damage(path, getattr(error, "key", 0), None, error)
    try:
        identities = read_property(path.parent)
    except DataError as error:
        yield _damage(path.parent / "property", None, None, error)
    for key in track(reader.keys, f"verifying {path.name}", unit="records"):
        try:
            payload = reader.read_idx(key)
            if key in images:
                encoded, label = split(payload)
                decode_crop(encoded, strict=True)
                identity(label, identities or MAX_EXACT)
            else:
                unpack(payload)
        except (DataError, RecordIOError) as error:
            yield _damage(path, key, reader.idx[key], error)
        else:
            yield None
    landmarks = _landmarks_of(path)
    if landmarks is not None:
        yield from _verify_landmarks(landmarks, len(images))


def _verify_landmarks(path: Path, num_images: int) -> Iterator[Damage | None]:
    try:
        landmarks = FaceLandmarks(path.parent, num_images)
    except DataError as error:
        yield _damage(path, None, None, error)
        return
    for row in track(range(num_images), f"verifying {path.name}", unit="rows"):
        try:
            landmarks[row]
        except DataError as error:
            yield _damage(path, None, None, error)


def _verify_bin(path: Path) -> Iterator[Damage | None]:
    encoded, _ = load_bin(path)
    for i, item in enumerate(track(encoded, f"verifying {path.name}", unit="images")):
        try:
            decode_image(item)
        except DataError as error:
            yield _damage(path, i, None, error)
        else:
            yield None


def _verify_folder(path: Path) -> Iterator[Damage | None]:
    files = [file for _, images in identity_folders(path) for file in images]
    for file in track(files, f"verifying {path.name}", unit="images"):
        try:
            decode_crop(file.read_bytes(), strict=True)
        except (DataError, OSError) as error:
            yield _damage(file, None, None, error)
        else:
            yield None


def _damage(path: Path, key, offset: int | None, error: Exception) -> Damage:
    if isinstance(error, RecordIOError):
        problem = error.problem
    elif isinstance(error, OSError):
        problem = f"cannot be read: {error.strerror}"
    else:
        problem = str(error).removeprefix(f"{path}: ")  # the place is told apart
    return {"path": str(path), "key": key, "byte": offset, "problem": problem}


_INSPECTORS = {"rec": _inspect_records, "bin": _inspect_bin, "folder": _inspect_folder}
_VERIFIERS = {"rec": _verify_records, "bin": _verify_bin, "folder": _verify_folder}
