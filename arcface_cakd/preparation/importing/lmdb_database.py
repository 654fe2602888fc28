"""LMDB databases of images and labels, in the usual layouts of keys and values."""

import itertools
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from arcface_cakd.data.bin_pickle import load_plain
from arcface_cakd.data.errors import DataError
from arcface_cakd.extras import extra
from arcface_cakd.preparation.importing.source import Sample, as_label, is_image

logger = logging.getLogger("arcface_cakd")

_PICKLE = b"\x80"


class LmdbDatabase:
    """One database.

    Known layouts: a value is a list or tuple, by msgpack or pickle, of an image, a label and
    perhaps other things (Vec2Face's has features between), in the order of the keys in
    ``__keys__`` where there is one; ``image-000000001`` and ``label-000000001`` beside
    ``num-samples``; or a value is an image and its key a path, ``<person>/<file>``. Where no order
    is stated, keys that are numbers come by number, and others as the database has them. Where
    that leaves out values, or joins folders of one name, the log says so. Pickles are read without
    executing anything of theirs.

    Args:
        path: a folder with ``data.mdb``, or the file of a database without one.

    Raises:
        MissingPackageError: lmdb or msgpack is not installed.
        DataError: there is no database, or none of these layouts.
    """

    kind = "lmdb"
    label_names: Sequence[str] | None = None

    def __init__(self, path: Path):
        lmdb = extra("lmdb", "lmdb", f"reading {path.name}")
        self.files = [path]
        self.settings: dict[str, str] = {}
        self._joined_said = False
        try:
            self._env = lmdb.open(
                str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False
            )
            with self._env.begin(buffers=False) as transaction:
                self._numbered = transaction.get(b"num-samples") is not None
                self._keys = self._list_keys(transaction)
                self._warn_of_unlisted(transaction)
        except lmdb.Error as error:
            raise DataError(f"{path}: no LMDB database, or damaged: {error}") from error
        if not self._keys:
            raise DataError(f"{path}: there is nothing in it")

    def count(self) -> int:
        return len(self._keys)

    def read(self, file: int, skip: int) -> Iterator[Sample]:
        import lmdb

        with self._env.begin(buffers=False) as transaction:
            for number in range(skip, len(self._keys)):
                key = self._keys[number]
                place = f"{self.files[0]}, key {key.decode('utf-8', 'backslashreplace')}"
                try:
                    yield self._sample(place, key, transaction)
                except (lmdb.Error, ValueError) as error:
                    yield Sample(place, problem=str(error))

    def _sample(self, place: str, key: bytes, transaction: Any) -> Sample:
        value = transaction.get(key)
        if value is None:
            raise ValueError("no such key, which the database's own list names")
        if self._numbered:
            label = transaction.get(key.replace(b"image-", b"label-"))
            if label is None:
                raise ValueError("it has no label")
            return Sample(place, value, as_label(label))
        if is_image(value):
            folder = key.rpartition(b"/")[0]
            person = folder.rpartition(b"/")[2]
            if not person:
                raise ValueError("an image without a label, and its key names no folder")
            self._warn_of_joined()
            return Sample(place, value, as_label(person))
        parts = unpacked(value)
        if isinstance(parts, dict):
            parts = list(parts.values())
        if not isinstance(parts, list | tuple):
            raise ValueError(f"its value is a {type(parts).__name__}, no image and label")
        parts = [part.tobytes() if isinstance(part, np.ndarray) else part for part in parts]
        images = [part for part in parts if is_image(part)]
        labels = [part for part in parts if isinstance(part, int | str | np.integer)]
        if len(images) != 1 or len(labels) != 1:
            raise ValueError(f"its value has {len(images)} images and {len(labels)} labels")
        return Sample(place, images[0], as_label(labels[0]))

    def _list_keys(self, transaction: Any) -> Sequence[bytes]:
        if self._numbered:
            try:
                count = int(transaction.get(b"num-samples"))
            except ValueError as error:
                raise DataError(f"{self.files[0]}: its num-samples is no number") from error
            return [b"image-%09d" % number for number in range(1, count + 1)]
        listed = transaction.get(b"__keys__")
        if listed is not None:
            try:
                found = [_as_key(key) for key in unpacked(listed)]
            except (TypeError, ValueError) as error:
                raise DataError(f"{self.files[0]}: its __keys__ are no list: {error}") from error
            return found
        keys = [key for key in transaction.cursor().iternext(values=False) if not _is_own(key)]
        if all(re.fullmatch(rb"\d+", key) for key in keys):
            keys.sort(key=int)
        return keys

    def _warn_of_unlisted(self, transaction: Any) -> None:
        """Say that there are more images than the database itself lists."""
        if self._numbered:
            beyond = b"image-%09d" % (len(self._keys) + 1)
            if transaction.get(beyond) is not None:
                logger.warning(
                    "%s: what comes from %s on is left out, for its num-samples is %d",
                    *(self.files[0], beyond.decode(), len(self._keys)),
                )
        elif transaction.get(b"__keys__") is not None:
            cursor = transaction.cursor()
            cursor.set_range(b"__")
            own = sum(map(_is_own, itertools.takewhile(_begins_own, cursor.iternext(values=False))))
            others = transaction.stat()["entries"] - own - len(set(self._keys))
            if others > 0:
                logger.warning(
                    "%s: %d of its values are left out, for its __keys__ do not name them",
                    *(self.files[0], others),
                )

    def _warn_of_joined(self) -> None:
        """Say which folders of one name, further up in several, are taken for one person's."""
        if self._joined_said:
            return
        self._joined_said = True
        first: dict[bytes, bytes] = {}
        joined = []
        for folder in sorted({key.rpartition(b"/")[0] for key in self._keys}):
            other = first.setdefault(folder.rpartition(b"/")[2], folder)
            if other != folder:
                joined.append((other, folder))
        if joined:
            one, two = (folder.decode("utf-8", "backslashreplace") for folder in joined[0])
            logger.warning(
                "%s: the images under %s and %s are taken for one person's, as %d folder(s) are "
                "that share their name with another: where they are several people's, write the "
                "keys anew, as <person>/<file>",
                *(self.files[0], one, two, len(joined)),
            )


def unpacked(value: bytes) -> Any:
    """What msgpack or pickle made bytes of.

    Raises:
        ValueError: neither did, or a pickle asks for more than plain values.
        MissingPackageError: msgpack is not installed.
    """
    if value[:1] == _PICKLE:
        try:
            return load_plain(value)
        except Exception as error:  # a damaged pickle raises whatever it stumbles over
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"its pickle is damaged or foreign: {reason}") from error
    msgpack = extra("msgpack", "lmdb", "its values are packed, and reading them")
    try:
        try:
            return msgpack.unpackb(value, strict_map_key=False)
        except UnicodeDecodeError:  # written before msgpack told bytes from text
            return msgpack.unpackb(value, strict_map_key=False, raw=True)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"its value is neither an image nor packed: {reason}") from error


def _begins_own(key: bytes) -> bool:
    return key.startswith(b"__")


def _is_own(key: bytes) -> bool:
    """Whether a key is of the database itself, as ``__keys__`` and ``__len__`` are."""
    return _begins_own(key) and key.endswith(b"__")


def _as_key(key: Any) -> bytes:
    return key.encode() if isinstance(key, str) else bytes(key)
