"""Patch sets: the edits to arcface_torch as data, read from ``patches/*.toml`` and validated.

The common indentation of an edit's anchor and of the lines it inserts is taken off both
together, so that what is inserted keeps its indentation relative to the anchor.
"""

import os
import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from arcface_cakd.patching.blocks import BEGIN, END, FILE, ORIGINAL, RECIPE
from arcface_cakd.patching.errors import PatchError
from arcface_cakd.resources import resource_dir

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# The host's files that a set may edit or add: those that are searched for our lines. Nothing
# deeper, and no other text file, because people keep data sets and logs inside the host.
SEARCHED = ("*.py", "*/*.py", "requirement*.txt")

_ACTIONS = ("after", "before", "change")
_NAME = re.compile(r"[a-z0-9-]+")


@dataclass(frozen=True)
class Edit:
    """One edit of one file of the host.

    Attributes:
        anchor: consecutive whole lines of the host, without their common indentation.
        indentation: what was taken off, and so where the edit stands in the original host.
        count: how often the anchor must occur; above 1 only for an anchor of one line.
        action: ``"after"`` or ``"before"`` inserts ``lines`` there; ``"change"`` puts them in the
            place of the anchor, which then is one line.
        lines: what is inserted; empty where a change drops its line.
    """

    id: str
    file: str
    reason: str
    anchor: tuple[str, ...]
    indentation: str
    count: int
    action: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class AddedFile:
    """A file that a set adds to the host: its path there, its text and the reason for it."""

    path: str
    text: str
    reason: str


@dataclass(frozen=True)
class PatchSet:
    """Edits that are applied, upgraded and reverted together. Any change raises ``version``."""

    name: str
    version: int
    purpose: str
    edits: tuple[Edit, ...]
    added: tuple[AddedFile, ...]


def read_sets(folder: str | os.PathLike | None = None) -> tuple[PatchSet, ...]:
    """The patch sets of a folder, by default those that ship with the package, by name.

    Raises:
        PatchError: a file is no TOML or breaks a rule of the format; the text names the file,
            the edit and the rule.
    """
    folder = resource_dir("patches") if folder is None else Path(folder)
    sets = tuple(_read_set(path) for path in sorted(folder.glob("*.toml")))
    changed: dict[tuple[str, str], str] = {}
    for patch_set in sets:
        for edit in patch_set.edits:
            name = f"{patch_set.name}/{edit.id}"
            if edit.action == "change":
                other = changed.setdefault((edit.file, edit.anchor[0]), name)
                if other != name:
                    raise PatchError(f"{folder}: {other} and {name} change the same line")
    return sets


def _read_set(path: Path) -> PatchSet:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # TOML or UTF-8
        raise PatchError(f"{path}: not valid TOML: {' '.join(str(error).split())}") from None
    where = str(path)
    _refuse_unknown(table, ("name", "version", "purpose", "edit", "add"), where)
    name = _text(table, "name", where)
    if name != path.stem or name == RECIPE or not _NAME.fullmatch(name):
        raise PatchError(f"{where}: name {name!r} must be the file's, of a-z, 0-9 and -")
    version = table.get("version")
    if not _is_count(version):
        raise PatchError(f"{where}: version must be a whole number from 1, got {version!r}")
    edits = tuple(_edit(entry, where) for entry in _tables(table, "edit", where))
    added = tuple(_added(entry, path) for entry in _tables(table, "add", where))
    _refuse_twice([edit.id for edit in edits], "edit id", where)
    _refuse_twice([file.path for file in added], "added path", where)
    purpose = " ".join(_text(table, "purpose", where).split())
    return PatchSet(name, version, purpose, edits, added)


def _added(entry: dict, path: Path) -> AddedFile:
    where = f"{path}, added file {entry.get('path')!r}"
    _refuse_unknown(entry, ("path", "source", "reason"), where)
    source = path.parent / _text(entry, "source", where)
    if not source.is_file():
        raise PatchError(f"{where}: there is no {source}")
    reason = " ".join(_text(entry, "reason", where).split())
    return AddedFile(_host_path(entry, "path", where), source.read_text(encoding="utf-8"), reason)


def _edit(entry: dict, where: str) -> Edit:
    where = f"{where}, edit {entry.get('id')!r}"
    _refuse_unknown(entry, ("id", "file", "reason", "anchor", "count", *_ACTIONS), where)
    id = _text(entry, "id", where)
    if not _NAME.fullmatch(id) or id == FILE:
        raise PatchError(f"{where}: an id is made of a-z, 0-9 and -, and is not {FILE!r}")
    actions = [action for action in _ACTIONS if action in entry]
    if len(actions) != 1:
        raise PatchError(f"{where}: needs exactly one of {', '.join(_ACTIONS)}, got {actions}")
    anchor = _lines(_text(entry, "anchor", where))
    if not anchor[0] or not anchor[-1]:
        raise PatchError(f"{where}: the first and the last line of an anchor may not be blank")
    count = entry.get("count", 1)
    if not _is_count(count) or (count > 1 and len(anchor) > 1):
        raise PatchError(
            f"{where}: count must be a whole number from 1, above it only for an anchor "
            f"of one line, got {count!r}"
        )
    action = actions[0]
    inserted = [] if action == "change" else _lines(_text(entry, action, where))
    both = textwrap.dedent("\n".join([*anchor, *inserted])).split("\n")
    indentation = anchor[0].removesuffix(both[0])
    anchor, lines = both[: len(anchor)], both[len(anchor) :]
    if action == "change":
        lines = _changed(anchor, entry["change"], where)
    if any(line.lstrip().startswith((BEGIN, END, ORIGINAL)) for line in lines):
        raise PatchError(f"{where}: a line to insert looks like one of our markers")
    reason = " ".join(_text(entry, "reason", where).split())
    file = _host_path(entry, "file", where)
    return Edit(id, file, reason, tuple(anchor), indentation, count, action, tuple(lines))


def _changed(anchor: list[str], change, where: str) -> list[str]:
    """The line that takes the anchor's place; none if it would be blank."""
    if len(anchor) != 1:
        raise PatchError(f"{where}: change needs an anchor of one line, got {len(anchor)}")
    if (
        not isinstance(change, list)
        or [type(part) for part in change] != [str, str]
        or any("\n" in part for part in change)
    ):
        raise PatchError(f"{where}: change is [old, new], two pieces of one line")
    old, new = change
    if not old or anchor[0].count(old) != 1:
        raise PatchError(f"{where}: {old!r} must occur once in the anchor, {anchor[0]!r}")
    if old == new:
        raise PatchError(f"{where}: changes nothing, old and new are both {old!r}")
    line = anchor[0].replace(old, new).rstrip()
    return [line] if line else []


def _lines(text: str) -> list[str]:
    """Lines without trailing whitespace; what stands before closing quotes is no line."""
    lines = [line.rstrip() for line in text.split("\n")]
    return lines[:-1] if len(lines) > 1 and not lines[-1] else lines


def _host_path(entry: dict, key: str, where: str) -> str:
    path = PurePosixPath(_text(entry, key, where))
    depths = [pattern for pattern in SEARCHED if pattern.count("/") == len(path.parts) - 1]
    if path.is_absolute() or ".." in path.parts or not any(map(path.match, depths)):
        raise PatchError(f"{where}: {key} must be one of {', '.join(SEARCHED)}, got '{path}'")
    return str(path)


def _text(entry: dict, key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise PatchError(f"{where}: {key} must be a text that is not empty, got {value!r}")
    return value


def _tables(table: dict, key: str, where: str) -> list[dict]:
    entries = table.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise PatchError(f"{where}: {key} must be written as [[{key}]]")
    return entries


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 1


def _refuse_unknown(table: dict, known: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise PatchError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(known)}")


def _refuse_twice(names: list[str], what: str, where: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PatchError(f"{where}: {what} {twice[0]!r} is there twice")
