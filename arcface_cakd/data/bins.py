"""``.bin`` verification sets: pairs of face images, and whether both show one person."""

import hashlib
import math
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcface_cakd.data.bin_pickle import load_plain
from arcface_cakd.data.errors import DataError
from arcface_cakd.data.images import CROP, decode_image
from arcface_cakd.files import atomic_path
from arcface_cakd.progress import track

# What decoded images may take: so many bytes, and so many times those of the file.
_MOST_DECODED = 1 << 28
_MOST_GROWTH = 256
_MARK = b"sha256:"
_SEAL_SIZE = len(_MARK) + 2 * hashlib.sha256().digest_size


@dataclass(frozen=True)
class VerificationSet:
    """Pairs of face images.

    Attributes:
        images: uint8 (2P, 112, 112, 3) RGB; pair p is images 2p and 2p + 1.
        issame: bool (P,).
    """

    images: np.ndarray
    issame: np.ndarray

    def __post_init__(self):
        if self.images.shape != (2 * len(self.issame), *CROP) or self.images.dtype != np.uint8:
            raise ValueError(
                f"images must be uint8 {(2 * len(self.issame), *CROP)} for {len(self.issame)} "
                f"pairs, got {self.images.dtype} {self.images.shape}"
            )


def read_bin(path: str | os.PathLike) -> VerificationSet:
    """Read a ``.bin`` set and decode its images.

    A square image of another size is resized to 112 x 112, bicubic, by Pillow. (arcface_torch
    does so with OpenCV, which does not average when it shrinks: its pixels differ a little.)

    Raises:
        DataError: no such file, a pickle that holds anything but such a set, an image that does
            not decode or is not square.
    """
    encoded, issame = load_bin(path)
    images = np.empty((len(encoded), *CROP), dtype=np.uint8)
    for i, item in enumerate(track(encoded, f"reading {Path(path).name}", unit="images")):
        try:
            images[i] = decode_face(item)
        except DataError as error:
            raise DataError(f"{path}, image {i}: {error}") from error
    return VerificationSet(images, issame)


def people_file(bin_path: Path) -> Path:
    """Where the two people of every pair of a ``.bin`` set stand: ``<name>_people.tsv``."""
    return bin_path.with_name(f"{bin_path.stem}_people.tsv")


def write_bin(
    path: str | os.PathLike, encoded_images: Sequence[bytes], issame: Sequence[bool]
) -> None:
    """Write a ``.bin`` set that arcface_torch's ``load_bin`` reads, atomically.

    Behind the pickle's end, where no reader looks, stands its SHA-256.

    Args:
        path: the file.
        encoded_images: 2P images, pair by pair.
        issame: P truth values.

    Raises:
        DataError: not two images per pair.
    """
    encoded = [bytes(image) for image in encoded_images]
    if len(encoded) != 2 * len(issame):
        raise DataError(
            f"{path}: {len(encoded)} images are not two for each of {len(issame)} pairs"
        )
    content = pickle.dumps((encoded, [bool(same) for same in issame]), protocol=4)
    with atomic_path(path) as partial:
        partial.write_bytes(content + _seal(content))


def load_bin(path: str | os.PathLike) -> tuple[list[bytes], np.ndarray]:
    """The encoded images (2P) and truth values, bool (P,), of a ``.bin`` set.

    Nothing in the pickle is executed (``bin_pickle.load_plain``). Files of Python 2 are read too,
    and lists or arrays of whatever numbers 0 and 1 are: what arcface_torch's own reader takes.

    Raises:
        DataError: no such file, not such a set, one that its digest is not of, or one that would
            take far more memory than its file.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        encoded, issame = load_plain(_unsealed(data))
        encoded = _all_as_bytes(encoded)
        issame = [_as_bool(same) for same in issame]
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle raises whatever it stumbles over
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path}: not a verification set (pickled images and truth values), or cut: {reason}"
        ) from error
    if len(encoded) != 2 * len(issame) or not issame:
        raise DataError(
            f"{path}: {len(encoded)} images are not two for each of {len(issame)} pairs"
        )
    if len(encoded) * math.prod(CROP) > _MOST_DECODED + _MOST_GROWTH * len(data):
        raise DataError(
            f"{path}: {len(encoded)} images in {len(data)} bytes, which no encoding is small "
            "enough for: do not trust this file"
        )
    return encoded, np.array(issame, dtype=bool)


def _seal(content: bytes) -> bytes:
    return _MARK + hashlib.sha256(content).hexdigest().encode()


def _unsealed(data: bytes) -> bytes:
    """A set without its digest, held against it where there is one."""
    content, seal = data[:-_SEAL_SIZE], data[-_SEAL_SIZE:]
    if not seal.startswith(_MARK):
        return data
    if seal != _seal(content):
        raise DataError("it is not what was written: its SHA-256 is not the one that it carries")
    return content


def pairs_problem(issame: np.ndarray, folds: int = 10) -> str | None:
    """Why the 10-fold protocol cannot judge such pairs; None where it can.

    Args:
        issame: (P,) bool, whether pair i shows one identity.
        folds: of the protocol.
    """
    if folds < 2 or len(issame) < folds:
        return f"{len(issame)} pairs do not make {folds} folds (2 or more)"
    if issame.all() or not issame.any():
        kind = "one identity" if issame.all() else "two identities"
        return f"all {len(issame)} pairs show {kind}: nothing to tell apart"
    return None


def decode_face(encoded: bytes) -> np.ndarray:
    """An image of a verification set, uint8 (112, 112, 3) RGB.

    Raises:
        DataError: it does not decode, or is not square.
    """
    return _fit(decode_image(encoded))


def _fit(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    if (height, width) == CROP[:2]:
        return image
    if height != width:
        raise DataError(f"the image is {width} x {height}, neither 112 x 112 nor square: crop it")
    from PIL import Image

    resized = Image.fromarray(image).resize(CROP[:2], Image.Resampling.BICUBIC)
    return np.asarray(resized)


def _all_as_bytes(images) -> list[bytes]:
    """Each object once, however often it is there."""
    found: dict[int, bytes] = {}
    for image in images:
        if id(image) not in found:
            found[id(image)] = _as_bytes(image)
    return [found[id(image)] for image in images]


def _as_bytes(image) -> bytes:
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        return image.tobytes()
    if isinstance(image, bytes | bytearray):
        return bytes(image)
    raise DataError(f"an image must be bytes or an array of uint8, got {type(image).__name__}")


def _as_bool(same) -> bool:
    number = isinstance(same, bool | int | float | np.bool_ | np.integer | np.floating)
    if number and same in (0, 1):
        return bool(same)
    found = f"{same:g}" if number else type(same).__name__
    raise DataError(f"a truth value must be 0 or 1 (false or true), got {found}")
