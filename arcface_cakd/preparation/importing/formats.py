"""Which format files are of."""

import logging
from collections.abc import Sequence
from pathlib import Path

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.image_files import some_of
from arcface_cakd.preparation.importing.arrow import Table, arrow_files
from arcface_cakd.preparation.importing.arrow_pairs import holds_pairs
from arcface_cakd.preparation.importing.lmdb_database import LmdbDatabase
from arcface_cakd.preparation.importing.source import Source, in_order
from arcface_cakd.preparation.importing.webdataset import Webdataset

logger = logging.getLogger("arcface_cakd")

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_FORMATS = "webdataset tars, parquet or Arrow files, or an LMDB database"


def open_source(
    paths: Sequence[str | Path], image: str | None = None, label: str | None = None
) -> Source:
    """Open a data set of another format.

    Args:
        paths: its files in order, or one folder; files of a folder come in the order of the
            numbers in their names, and the log says which it leaves out.
        image: where the images are: a column, or a tar's suffix; None: told by its name.
        label: where the labels are.

    Raises:
        DataError: no such file, one twice, none of these formats or several, or as the readers
            say.
    """
    kind, files = _find(paths)
    real = [path.resolve() for path in files]
    if len(set(real)) < len(real):
        twice = next(path for path in real if real.count(path) > 1)
        raise DataError(f"{twice}: is given twice, and its images would be there twice")
    if kind == "lmdb":
        if len(files) > 1 or image or label:
            raise DataError(
                f"{files[0]}: an LMDB database is given alone, without --image and --label"
            )
        return LmdbDatabase(files[0])
    if kind == "webdataset":
        return Webdataset(files, image, label)
    return Table(kind, files, image, label)


def verification_tables(paths: Sequence[str | Path]) -> tuple[str, list[Path]] | None:
    """The format and files of a verification set, see ``arrow_pairs``; None where it is none.

    Raises:
        DataError: as ``open_source``.
    """
    kind, files = _find(paths)
    if kind not in ("arrow", "parquet") or not holds_pairs(kind, files[0]):
        return None
    return kind, files


def _find(paths: Sequence[str | Path]) -> tuple[str, list[Path]]:
    found = [Path(path) for path in paths]
    for path in found:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
    if len(found) > 1 and any(path.is_dir() for path in found):
        raise DataError(f"{found[0]}: give one folder, or files")
    return _in_folder(found[0]) if found[0].is_dir() else _of_files(found)


def _in_folder(folder: Path) -> tuple[str, list[Path]]:
    if (folder / "data.mdb").is_file():
        return "lmdb", [folder]
    files = arrow_files(folder)
    if files:
        return "arrow", files
    there = sorted(path for path in folder.iterdir() if path.name[0] != ".")
    files = [path for path in there if path.is_file() and kind_of(path)]
    if not files:
        raise DataError(f"{folder}: holds no {_FORMATS}")
    if others := [path for path in there if path not in files]:
        named = some_of(others, folder)
        logger.warning("%s: left out: %d that are no %s (%s)", folder, len(others), _FORMATS, named)
    return _of_files(in_order(files))


def _of_files(files: list[Path]) -> tuple[str, list[Path]]:
    kinds = {path: kind_of(path) for path in files}
    for path, kind in kinds.items():
        if kind is None:
            raise DataError(f"{path}: by its name, none of {_FORMATS}")
        if kind != kinds[files[0]]:
            raise DataError(f"{files[0]} and {path} are of two formats: import one at a time")
    kind = kinds[files[0]]
    assert kind is not None
    return kind, files


def kind_of(path: Path) -> str | None:
    """The format that a file's name tells."""
    name = path.name.lower()
    if name.endswith(_TARS):
        return "webdataset"
    return {".parquet": "parquet", ".arrow": "arrow", ".lmdb": "lmdb", ".mdb": "lmdb"}.get(
        path.suffix.lower()
    )
