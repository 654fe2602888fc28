"""The files of a report: their names, which former ones they replace, and how they appear."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from arcface_cakd.files import cut_name, in_the_way_of, put_in_place, scratch_folder
from arcface_cakd.report.errors import ReportError

MADE_BY = "UTC by arcface-cakd"
"""On every page."""
# What the files of a report hold within their first _LOOKED_AT bytes, by their suffixes.
_SIGNS = {".csv": "run,protocol,set,name,value,low,high,drawn", ".json": '{\n "runs": {'}
_LOOKED_AT = 1 << 20
_LONGEST_NAME = 200  # bytes of a picture's, without its suffix; disks take 255 with it


def check_place(path: str | Path) -> None:
    """Refuse to write a report over what is none; a former report is replaced.

    Args:
        path: of the page.

    Raises:
        ReportError: ``path``, or the ``.csv`` or ``.json`` beside it, is there and no report's; or
            it would be in what is no folder.
    """
    path = Path(path)
    if (above := in_the_way_of(path)) is not None:
        raise ReportError(f"{path}: {above} is no folder: name a page in one")
    for file in (path, path.with_suffix(".csv"), path.with_suffix(".json")):
        if file.exists() and not _of_a_report(file):
            raise _taken(file, "is no report's")


def check_pictures(path: Path, names: Iterable[str]) -> None:
    """Refuse to write pictures over files that are not this page's.

    Raises:
        ReportError: one is there.
    """
    sign = sign_of_pictures(path)
    for name in names:
        if os.path.lexists(path.with_name(name)) and not _bears(path.with_name(name), sign):
            raise _taken(path.with_name(name), f"does not say that it is of {path.name}")


def sign_of_pictures(path: Path) -> str:
    """What is in each picture of a page, to tell them from everyone else's."""
    return f"arcface-cakd report {path.name!a}"


def former_pictures(path: Path) -> set[str]:
    """The names of those pictures of a former report, as its JSON has them, that are its own."""
    try:
        content = json.loads(path.with_suffix(".json").read_bytes())
        names = {name for name in content["pictures"] if Path(name).name == name}
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return set()  # none, an empty file, or that of an earlier version, which names none
    sign = sign_of_pictures(path)
    return {name for name in names if _bears(path.with_name(name), sign)}


def file_names(names: Iterable[str], stem: str) -> list[str]:
    """A name for each picture's file, no two of them one, also where case does not tell."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^\w@.=-]+", "_", name).strip("_")
        wanted = cut_name(f"{stem}_{plain}", _LONGEST_NAME)
        given, number = wanted, 1
        while given.casefold() in found:
            number += 1
            given = f"{wanted}_{number}"
        found[given.casefold()] = f"{given}.png"
    return list(found.values())


def put(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write files into the folder of ``path``, by name: all of them, then each in its place."""
    try:
        with scratch_folder(path) as scratch:
            for name, content in contents.items():
                (scratch / name).write_bytes(content)
            for name in contents:
                put_in_place(scratch / name, path.with_name(name))
    except OSError as error:
        if error.filename is not None:  # of the scratch folder, which nobody knows
            error.filename = str(path.with_name(Path(error.filename).name))
        raise


def _of_a_report(file: Path) -> bool:
    sign = _SIGNS.get(file.suffix)
    return _bears(file, MADE_BY) if sign is None else _bears(file, sign, at_its_start=True)


def _bears(file: Path, sign: str, at_its_start: bool = False) -> bool:
    """Whether a file has a sign within its first bytes, or is empty, as mktemp leaves it."""
    if not file.is_file():
        return False
    with open(file, "rb") as opened:
        start = opened.read(_LOOKED_AT)
    if at_its_start:
        return not start or start.startswith(sign.encode())
    return not start or sign.encode() in start


def _taken(file: Path, why: str) -> ReportError:
    return ReportError(f"{file}: is there, {why}, and would be replaced: name another page")
