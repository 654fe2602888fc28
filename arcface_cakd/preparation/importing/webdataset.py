"""Tar files of images and labels, as webdataset writes them."""

import tarfile
import zlib
from collections.abc import Iterator, Sequence
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from arcface_cakd.data.image_files import SUFFIXES
from arcface_cakd.preparation.importing.source import Sample, as_label

_DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error, LZMAError)


class Webdataset:
    """Shards whose members ``<key>.jpg`` and ``<key>.cls`` are an image and its label.

    Members of one key stand together, as webdataset demands; what else a key has is passed over.
    A member that is a link, and no file, is an empty one, and so a bad sample.
    A shard may be compressed by gzip, bzip2 or xz; one member is held at a time.

    Args:
        files: the shards, in order.
        image: the images' suffix; None: whichever of those of images there is.
        label: the labels' suffix.
    """

    kind = "webdataset"
    label_names: Sequence[str] | None = None

    def __init__(self, files: list[Path], image: str | None = None, label: str | None = None):
        self.files = files
        self._images = {_dotted(image)} if image else SUFFIXES
        self._label = _dotted(label or "cls")
        self.settings = {"image": _dotted(image or "any"), "label": self._label}

    def count(self) -> None:
        return None

    def read(self, file: int, skip: int) -> Iterator[Sample]:
        path = self.files[file]
        number, last = 0, ""
        try:
            with tarfile.open(path, "r:*", tarinfo=_Member) as tar:
                for key, members in self._groups(tar, skip):
                    last = key
                    number += 1
                    if number > skip:
                        yield self._sample(path, key, members)
                assert tar.fileobj is not None
                while tar.fileobj.read(1 << 20):  # a compressed one has its checksum at the end
                    pass
        except _DAMAGE as error:
            if number >= skip:  # else it was said
                behind = f"what comes behind {last} " if last else ""
                reason = " ".join(str(error).split()) or type(error).__name__
                yield Sample(str(path), problem=f"{behind}cannot be read, cut or damaged: {reason}")

    def _groups(
        self, tar: tarfile.TarFile, skip: int
    ) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
        """Names and contents of one key's members, without the contents of the first ``skip``.

        A key is a file's name up to its first dot. Contents are read as they come, for seeking
        back would unpack a compressed shard anew.
        """
        key: str | None = None
        members: list[tuple[str, bytes]] = []
        number = 0
        try:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # or all heads would be kept
                name = PurePosixPath(member.name)
                if member.isdir() or name.name.startswith("."):
                    continue
                own = (name.parent / name.name.partition(".")[0]).as_posix()
                if own != key:
                    if key is not None:
                        yield key, members
                    key, members = own, []
                    number += 1
                known = _suffix(name.name) in {*self._images, self._label}
                wanted = number > skip and known and member.isfile()
                members.append((name.name, _content(tar, member) if wanted else b""))
        except _DAMAGE:
            suffixes = {_suffix(name) for name, _ in members}
            if key is not None and self._label in suffixes and suffixes & self._images:
                yield key, members  # before the damage
            raise
        if key is not None:
            yield key, members

    def _sample(self, path: Path, key: str, members: list[tuple[str, bytes]]) -> Sample:
        place = f"{path}, {key}"
        images = [content for name, content in members if _suffix(name) in self._images]
        labels = [content for name, content in members if _suffix(name) == self._label]
        for kind, found in (("image", images), (self._label, labels)):
            if len(found) != 1:
                count = f"{len(found)} of kind {kind}" if found else f"no {kind}"
                names = ", ".join(name for name, _ in members)
                return Sample(place, problem=f"{count} among its members ({names})")
        try:
            return Sample(place, images[0], as_label(labels[0]))
        except ValueError as error:
            return Sample(place, problem=str(error))


class _Member(tarfile.TarInfo):
    """A head that is damaged, or missing, is no end of the archive, for which tarfile takes it."""

    @classmethod
    def fromtarfile(cls, archive):
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # zeros, which are the end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no member and no end of the archive: {error}") from error


def _dotted(suffix: str) -> str:
    return "." + suffix.lstrip(".").lower()


def _suffix(name: str) -> str:
    return "." + name.partition(".")[2].lower()


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # it is a file
    content = file.read()
    if len(content) != member.size:
        raise tarfile.ReadError("unexpected end of data")
    return content
