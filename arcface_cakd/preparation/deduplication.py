"""A record set without images that are there twice."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.images import CROP, decode_crop
from arcface_cakd.preparation.near_images import (
    HASH_BYTES,
    MOST_BITS,
    pairs_above,
    pairs_within,
    perceptual_hash,
)
from arcface_cakd.preparation.output import check_vacant, whole_set
from arcface_cakd.preparation.record_set import RecordSet
from arcface_cakd.preparation.rewriting import Written, choose, write_chosen
from arcface_cakd.preparation.tables import write_table
from arcface_cakd.progress import track
from arcface_cakd.workers import map_in_threads

Conflicts = Literal["keep", "first", "drop"]
Embed = Callable[[np.ndarray], np.ndarray]

REPORT = "duplicates.tsv"
COLUMNS = ("key", "person", "key of the other", "person of the other", "how alike", "what")
_BATCH = 1024  # images that are embedded at a time


class Alike(NamedTuple):
    """Two images that are the same, or nearly.

    Attributes:
        first, second: positions in the set, the first one lower.
        how: "same pixels", "3 bits" of their hashes, or "cosine 0.972".
    """

    first: int
    second: int
    how: str


@dataclass(frozen=True)
class Deduplicated(Written):
    """What was found, and what the set without it comes to.

    Attributes:
        same, near: images that were left out, of one person, since another has the same pixels or
            is nearly the same.
        conflicts: couples of images of two people that are the same or nearly.
        conflicting: images that were left out for that.
        gone: people of whom no image is left.
    """

    same: int
    near: int
    conflicts: int
    conflicting: int
    gone: int


def deduplicate(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    bits: int | None = 16,
    embed: Embed | None = None,
    cosine: float = 0.95,
    device: str = "cpu",
    conflicts: Conflicts = "keep",
    report: str | Path | None = None,
    force: bool = False,
) -> Deduplicated:
    """Find images of a record set that are there twice, and write the set without them.

    Of images of one person that are the same or nearly, the one with the lowest key stays: an
    image is left out where it is alike to one that stays. The same image under two people is
    named in the report, for one of the two labels is wrong, or the two are one person.

    The set is read once, by all cores; 48 bytes an image are held, and embeddings in a
    file among the temporary ones, 2 bytes a number.

    Args:
        folder: of ``train.rec`` and ``train.idx``.
        out: folder to write to, with the report in it; None: only look.
        bits: hashes of images that are nearly the same differ in so many of 256 bits or fewer, see
            ``near_images.perceptual_hash``; None: only equal pixels count.
        embed: takes images (B, 112, 112, 3) uint8 and gives embeddings (B, E); where it is given,
            they decide and not hashes.
        cosine: embeddings of images that are nearly the same have this cosine or a higher one.
        device: where embeddings are compared.
        conflicts: what is done with the same image under two people: "keep" both, leave out all
            but the "first", or "drop" all.
        report: file for the report besides.
        force: whether a data set that is there may be replaced.

    Raises:
        RecordIOError, DataError: see ``RecordSet``; an image does not decode; nobody would be
            left; or a data set is there and ``force`` is false.
        EvaluationError: embeddings are not finite, or the first 1024 all the same.
    """
    if bits is not None and not 0 <= bits <= MOST_BITS:
        raise DataError(f"hashes may differ in 0 to {MOST_BITS} bits, not {bits}: more is chance")
    if not -1 <= cosine <= 1:
        raise DataError(f"a cosine is -1 to 1, not {cosine:g}")
    if out is not None:
        check_vacant(out, force)
    images = RecordSet(folder)
    found = _Found(images)
    digests, hashes, embeddings = _read(images, bits is not None, embed)
    firsts = found.same_pixels(digests)
    if embeddings is not None:
        pairs, cosines = pairs_above(embeddings, firsts, cosine, device)
        found.near(pairs, [f"cosine {value:.3f}" for value in cosines.tolist()])
    elif bits is not None:
        pairs, differing = pairs_within(hashes[firsts], bits)
        found.near(firsts[pairs], [f"{value} bits" for value in differing.tolist()])
    found.settle(conflicts)
    kept = np.flatnonzero(~found.left_out)
    people = len(np.unique(images.labels[kept]))
    if people < 2:
        raise DataError(f"{folder}: fewer than two people would be left")
    result = Deduplicated(
        len(kept),
        people,
        found.same,
        found.alike,
        len(found.conflicts),
        found.conflicting,
        len(np.unique(images.labels)) - people,
    )
    rows = list(found.rows())
    if out is not None:
        with whole_set(out, force) as new:
            write_chosen(new, choose(images, kept), "writing")
            write_table(new / REPORT, COLUMNS, rows)
    if report is not None:
        write_table(Path(report), COLUMNS, rows)
    return result


class _Found:
    """What is alike in a set, and what follows from it."""

    def __init__(self, images: RecordSet):
        self.images = images
        self.people = images.names.apart(np.unique(images.labels).tolist())
        self.left_out = np.zeros(len(images), dtype=bool)
        self.duplicates: list[Alike] = []
        self.conflicts: list[Alike] = []
        self.same = self.alike = self.conflicting = 0

    def same_pixels(self, digests: np.ndarray) -> np.ndarray:
        """Note what has equal digests (N, 2); positions of the first image of each person's."""
        labels = self.images.labels
        order = np.lexsort((np.arange(len(labels)), labels, digests[:, 1], digests[:, 0]))
        new = np.ones(len(order), dtype=bool)
        new[1:] = (digests[order[1:]] != digests[order[:-1]]).any(1)
        new_person = new.copy()
        new_person[1:] |= labels[order[1:]] != labels[order[:-1]]
        first_of_image = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
        first_of_person = order[
            np.maximum.accumulate(np.where(new_person, np.arange(len(order)), 0))
        ]
        for place in np.flatnonzero(~new).tolist():
            position = int(order[place])
            if not new_person[place]:
                self._leave_out(Alike(int(first_of_person[place]), position, "same pixels"))
                self.same += 1
            else:
                couple = sorted((int(first_of_image[place]), position))
                self.conflicts.append(Alike(couple[0], couple[1], "same pixels"))
        return np.sort(order[new_person])

    def near(self, pairs: np.ndarray, how: Sequence[str]) -> None:
        """Note pairs (E, 2) of positions, the first one lower, that are nearly the same."""
        known = {(alike.first, alike.second) for alike in self.conflicts}
        couples = [
            Alike(first, second, text)
            for (first, second), text in zip(pairs.tolist(), how, strict=True)
        ]
        labels = self.images.labels
        # An image stays unless it is alike to an earlier one that stays.
        for alike in sorted(couples, key=lambda alike: (alike.second, alike.first)):
            if labels[alike.first] != labels[alike.second]:
                if (alike.first, alike.second) not in known:
                    self.conflicts.append(alike)
            elif not self.left_out[alike.first] and not self.left_out[alike.second]:
                self._leave_out(alike)
                self.alike += 1

    def settle(self, conflicts: Conflicts) -> None:
        """Do with the same image under two people what is asked for."""
        self.conflicts.sort(key=lambda alike: (alike.second, alike.first))
        before = int(self.left_out.sum())
        for alike in self.conflicts:
            if conflicts == "drop":
                self.left_out[[alike.first, alike.second]] = True
            elif conflicts == "first" and not self.left_out[alike.first]:
                self.left_out[alike.second] = True
        self.conflicting = int(self.left_out.sum()) - before

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The report's: the image, the other that it is alike to, and what became of it."""
        for alike in sorted([*self.duplicates, *self.conflicts], key=lambda alike: alike.second):
            one = self.images.labels[alike.first] == self.images.labels[alike.second]
            kind = "one person" if one else "two people"
            what = "left out" if self.left_out[alike.second] else "kept"
            if not one and self.left_out[alike.first]:
                what += ", the other left out"
            yield (
                *(self._key(alike.second), self._person(alike.second)),
                *(self._key(alike.first), self._person(alike.first)),
                *(alike.how, f"{kind}, {what}"),
            )

    def _leave_out(self, alike: Alike) -> None:
        self.left_out[alike.second] = True
        self.duplicates.append(alike)

    def _key(self, position: int) -> str:
        return str(self.images.keys[position])

    def _person(self, position: int) -> str:
        return self.people[int(self.images.labels[position])]


def _read(
    images: RecordSet, hashed: bool, embed: Embed | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Of every image a digest of its pixels, uint64 (N, 2), its hash, and its embedding."""
    digests = np.zeros((len(images), 2), dtype=np.uint64)
    hashes = np.zeros((len(images) if hashed and embed is None else 0, HASH_BYTES), dtype=np.uint8)
    embeddings: np.ndarray | None = None
    batch = np.empty((_BATCH, *CROP), dtype=np.uint8)
    if embed is not None:  # which torch is there for
        from arcface_cakd.evaluation.embedder import check_different
        from arcface_cakd.evaluation.embedding import check_finite

    def look(position: int) -> tuple[np.ndarray, bytes, np.ndarray | None]:
        try:
            pixels = decode_crop(images.encoded(position))
        except DataError as error:
            raise DataError(
                f"{images.describe(position)}: {error}; 'arcface-cakd data verify' names all such"
            ) from error
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
        return pixels, digest, perceptual_hash(pixels) if len(hashes) else None

    looked = map_in_threads(look, range(len(images)))
    for position, (pixels, digest, hash_) in enumerate(
        track(looked, "reading", len(images), unit="images")
    ):
        digests[position] = np.frombuffer(digest, dtype=np.uint64)
        if hash_ is not None:
            hashes[position] = hash_
        if embed is not None:
            place = position % _BATCH
            batch[place] = pixels
            if place + 1 == _BATCH or position + 1 == len(images):
                units = embed(batch[: place + 1])
                check_finite(units)
                if embeddings is None and (digests[: position + 1] != digests[0]).any():
                    check_different(units)
                units = units / np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-12)
                if embeddings is None:
                    shape = (len(images), units.shape[1])
                    # A file without a name, which goes with the process.
                    file = tempfile.TemporaryFile()  # noqa: SIM115
                    embeddings = np.memmap(file, np.float16, "w+", shape=shape)
                embeddings[position - place : position + 1] = units
    return digests, hashes, embeddings
