"""A folder of one folder per person made a record set."""

import hashlib
import logging
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_landmarks import LANDMARKS_FILE
from arcface_cakd.data.folder import identity_folders
from arcface_cakd.data.images import decode_crop
from arcface_cakd.data.record_sets import write_identity_records
from arcface_cakd.preparation.crop_landmarks import landmarks_to_pack
from arcface_cakd.preparation.labels_table import write_labels
from arcface_cakd.preparation.output import check_beside, check_vacant, whole_set
from arcface_cakd.progress import track
from arcface_cakd.recordio import codec
from arcface_cakd.recordio.orientation import jpeg_orientation

logger = logging.getLogger("arcface_cakd")


@dataclass(frozen=True)
class Packed:
    """What a folder came to.

    Attributes:
        images: that were packed.
        identities: that were packed.
        skipped: files that were left out, each with what is wrong with it.
    """

    images: int
    identities: int
    skipped: list[str]


def pack_folder(
    folder: str | Path, out: str | Path, *, force: bool = False, skip_bad: bool = False
) -> Packed:
    """Pack a folder of one folder per identity into a record set.

    JPEG files go in byte for byte, save those that EXIF data turns. They, and other formats, which
    are slow to decode, become JPEG of quality 95, as insightface's own tools make them. Every
    image is decoded once, to be sure of it; the log names every file that is none, and images
    that two people share. ``labels.tsv`` says which folder each label is. Landmarks of the images
    go along.

    Args:
        folder: of the identities.
        out: folder to write to.
        force: whether a data set that is there may be replaced.
        skip_bad: leave out files that are no 112 x 112 images, and identities of which nothing
            is left.

    Raises:
        DataError: as ``identity_folders``; for files that are no 112 x 112 images, unless
            ``skip_bad``; and where a data set is there, unless ``force``, or ``out`` lies in
            ``folder``.
    """
    check_vacant(out, force)
    found = identity_folders(folder)
    check_beside(out, folder)
    found.warn_of_left_out()
    count = sum(len(paths) for _, paths in found.identities)
    tracked = track(_decoded(found.identities), "packing", count, unit="images")
    names: list[str] = []
    bad: list[str] = []
    shared = _SharedImages()

    def identities() -> Iterator[list[bytes]]:
        for name, paths in found.identities:
            images = []
            for path, (encoded, pixels, problem) in zip(paths, tracked, strict=False):
                if problem is not None:
                    bad.append(f"{path}: {problem}")
                    logger.warning("%s", bad[-1])
                    continue
                images.append(encoded)
                shared.add(path, len(names), pixels)
            if images:
                names.append(name)
                yield images
        if bad and not skip_bad:
            raise DataError(
                f"{bad[0]} ({len(bad)} of {count} files cannot be packed, each named above): mend "
                "them, or leave them out with --skip-bad"
            )
        if len(names) < 2:
            raise DataError(f"{folder}: fewer than two identities have an image to pack")

    with whole_set(out, force) as new:
        write_identity_records(new, identities())
        write_labels(new, names, "folder")
        images = [path for _, paths in found.identities for path in paths]
        landmarks = landmarks_to_pack(found.root, images, shared.paths)
        if landmarks is not None:
            np.save(new / LANDMARKS_FILE, landmarks)
    shared.warn()
    return Packed(count - len(bad), len(names), bad)


class _SharedImages:
    """Finds pictures that are the same, pixel by pixel, under two labels."""

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self.labels = array("q")
        self.digests = array("Q")

    def add(self, path: Path, label: int, pixels: np.ndarray) -> None:
        self.paths.append(path)
        self.labels.append(label)
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=8).digest()
        self.digests.append(int.from_bytes(digest, "little"))

    def warn(self) -> None:
        """Say in the log how many there are, and where the first is."""
        digests, labels = np.array(self.digests, dtype=np.uint64), np.array(self.labels)
        order = np.lexsort((labels, digests))
        again = (np.diff(digests[order]) == 0) & (np.diff(labels[order]) != 0)
        if again.any():
            pairs = sorted((int(order[i]), int(order[i + 1])) for i in np.flatnonzero(again))
            first, second = (self.paths[place] for place in pairs[0])
            logger.warning(
                "%s and %s are the same image under two people; there are %d such pairs: one of "
                "the two labels is wrong, or the two are one person",
                first,
                second,
                len(pairs),
            )


def _decoded(
    identities: list[tuple[str, list[Path]]],
) -> Iterator[tuple[bytes, np.ndarray, str | None]]:
    """Each image as it is packed, its pixels, and what is wrong with it."""
    nothing = np.empty(0, dtype=np.uint8)
    for path in (path for _, paths in identities for path in paths):
        try:
            encoded, pixels = as_packed(path.read_bytes())
        except OSError as error:
            yield b"", nothing, f"cannot be read: {error.strerror}"
        except DataError as error:
            yield b"", nothing, str(error)
        else:
            yield encoded, pixels, None


def as_packed(encoded: bytes) -> tuple[bytes, np.ndarray]:
    """An image as it goes into a set, and its pixels, uint8 (112, 112, 3) RGB.

    An upright JPEG goes in as it is. Other formats are slow to decode; and turned by EXIF data
    alone, a JPEG would lie on its side for readers that do not look at it.

    Raises:
        DataError: it does not decode, also where libjpeg makes up what is damaged, or has another
            size.
    """
    pixels = decode_crop(encoded, strict=True)
    as_it_is = codec.is_jpeg(encoded) and jpeg_orientation(encoded) == 1
    return encoded if as_it_is else codec.encode(pixels, 95), pixels
