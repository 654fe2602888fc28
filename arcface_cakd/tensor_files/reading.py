"""Reading a file of tensors: checked whole, and held against its size, before any is made."""

import logging
import mmap
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from arcface_cakd.tensor_files.layout import AsksTooMuch, storages_of
from arcface_cakd.tensor_files.seal import DamagedFile, check_checksums, check_seal

logger = logging.getLogger("arcface_cakd")

_ZIP = b"PK\x03\x04"  # as torch tells one


def load_tensors(path: str | os.PathLike, *, mapped: bool = False, checked: bool = True) -> Any:
    """What ``torch.save`` wrote, on the CPU; no file can run code, and none takes more than it has.

    A file is held against the digest that it carries (``write_tensors``), or where it has none,
    against the checksums of its zip. One of torch before 1.6 has neither, which the log says.

    Args:
        path: the file.
        mapped: leave tensors in the file until somebody takes them; not for files of torch
            before 1.6.
        checked: hold it against digest or checksums, which reads all of it; else only sizes are
            looked at.

    Raises:
        DamagedFile: the file is not what was written.
        AsksTooMuch: it names sizes that it does not have, see ``storages_of``.
        OSError: it cannot be opened.
        Exception: of any kind, where it is no such file, or holds more than tensors.
    """
    path = Path(path)
    with open(path, "rb") as file:
        is_zip = file.read(len(_ZIP)) == _ZIP
        if not is_zip:
            file.seek(0)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                _check_old(content)
    if is_zip:
        _check_zip(path, checked)
    else:
        logger.warning(
            "%s: of torch before 1.6, a format without checksums: damage to its numbers cannot be "
            "seen",
            path,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a TorchScript archive, which is refused
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and is_zip)


def _check_zip(path: Path, checked: bool) -> None:
    sealed = not checked or check_seal(path)
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # damaged directories end in errors of many kinds
        raise DamagedFile(f"it is cut, or its directory is damaged ({error})") from error
    with archive:
        entries = archive.infolist()
        names = {entry.filename: entry.file_size for entry in entries}
        # torch writes a state dict's as they are: a packed one may grow a thousandfold.
        if (
            len(names) < len(entries)
            or any(
                entry.compress_type or entry.compress_size != entry.file_size for entry in entries
            )
            or sum(names.values()) > os.path.getsize(path)
        ):
            raise AsksTooMuch("records that are packed, overlap, or have one name")
        if not sealed:
            check_checksums(archive)
        root = entries[0].filename.split("/")[0] if entries else ""
        if f"{root}/data.pkl" not in names:
            return  # torch says what it is instead
        with archive.open(f"{root}/data.pkl") as file:
            asked = storages_of(file)
    for key, size in asked.items():
        there = names.get(f"{root}/data/{key}")
        if there is None or size > there:
            raise AsksTooMuch(f"{size} bytes for the record data/{key}, which has {there or 0}")


def _check_old(file: mmap.mmap) -> None:
    """A file of torch before 1.6: pickles one after the other, then the storages."""
    asked: dict[str, int] = {}
    for _ in range(4):  # a magic number, the protocol, the system, the object
        asked |= storages_of(file)
    storages_of(file)  # the keys
    left = len(file) - file.tell()
    if sum(asked.values()) > left:
        raise AsksTooMuch(f"{sum(asked.values())} bytes of storages, and it has {left}")
