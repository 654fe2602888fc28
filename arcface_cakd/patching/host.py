"""``patch``, ``check`` and ``revert`` of a host folder: read, plan in memory, write."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from arcface_cakd.patching.blocks import RECIPE, Block, put_in
from arcface_cakd.patching.copies import find_copies, own_files, revert_copy
from arcface_cakd.patching.edits import PatchSet, read_sets
from arcface_cakd.patching.errors import PatchError
from arcface_cakd.patching.folder import (
    HostFile,
    find_host,
    leads_outside,
    read_host,
    write_host,
)
from arcface_cakd.patching.host_recipes import is_our_recipe, recipe_files
from arcface_cakd.patching.status import (
    STATES,
    Examination,
    edited,
    examine,
    refuse_unknown_sets,
)
from arcface_cakd.registry import did_you_mean

# The set that the recipes in the host's configs/ come and go with.
RECIPE_SET = "cakd"

_NAMED = 3  # so many anchors does one line of an error name


@dataclass
class Outcome:
    """What a command did to a host.

    Attributes:
        root: the arcface_torch folder.
        examined: the sets that it was about, as they were before.
        written, removed: paths in the host, of all files and of the recipes among them.
        recipes: names of the recipes of ours that are in the host's ``configs/`` now.
        kept: paths of recipes that stay as they are because they are the user's now.
        copies: paths of files that carry lines of ours and are no files of the sets: to patch and
            to check, all of them; to revert, those that it took blocks out of.
        left: what is left in such files by a revert, a line each.
        outside: files that lie outside of the host, by the path in it that leads to them.
    """

    root: Path
    examined: list[Examination]
    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    recipes: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    outside: dict[str, Path] = field(default_factory=dict)


def check(directory: str | os.PathLike, only: str | None = None) -> Outcome:
    """The state of the sets, or of one of them, in a host; changes nothing.

    Raises:
        PatchError: no arcface_torch folder, an unknown set, a damaged marker line.
    """
    root, sets, host, copies = _open(directory, only)
    refuse_unknown_sets(root, host, sets)
    examined = [examine(patch_set, root, host) for patch_set in _chosen(sets, only)]
    return Outcome(root, examined, copies=list(copies), outside=_outside(root, host, sets))


def patch(
    directory: str | os.PathLike,
    only: str | None = None,
    recipes: list[str] | None = None,
) -> Outcome:
    """Apply the sets, or one of them, to a host, and bring up to date what is there of others.

    Args:
        recipes: names or files of the recipes to copy, the default ones if None; they belong to
            the set ``cakd`` and are not copied without it.

    Raises:
        PatchError: something of it cannot be done; then nothing is changed.
    """
    root, sets, host, copies = _open(directory, only)
    refuse_unknown_sets(root, host, sets)
    examined = [examine(patch_set, root, host) for patch_set in sets]
    examined = [
        found for found in examined if only in (None, found.patch_set.name) or found.versions
    ]
    _refuse(root, examined)

    outcome = Outcome(root, examined, copies=list(copies), outside=_outside(root, host, sets))
    texts = {**_edited_files(host, examined), **_added_files(host, examined)}
    if only in (None, RECIPE_SET):
        versions = {patch_set.name: patch_set.version for patch_set in sets}
        files, kept = recipe_files(root, host, versions[RECIPE_SET], recipes)
        outcome.recipes = [Path(path).stem for path in files]
        outcome.kept = kept
        texts.update(files)
    _write(host, texts, outcome)
    return outcome


def revert(directory: str | os.PathLike, only: str | None = None) -> Outcome:
    """Give a host the bytes back that it had before the sets, or one of them, were applied.

    Blocks are taken out of copies that the user made too. What somebody has edited there stays,
    as ``left`` says, and so do edited recipes, as ``kept`` says.

    Raises:
        PatchError: a block or an added file was edited; then nothing is changed.
    """
    root, sets, host, copies = _open(directory, only)
    examined = [examine(patch_set, root, host) for patch_set in _chosen(sets, only)]
    files = [*host.values(), *copies.values()]
    there = {block.marker.set for file in files for block in file.blocks}
    there |= {file.marker.set for file in files if file.marker is not None}
    gone = {name for name in there - {RECIPE} if only in (None, name)}
    refusals = [line for name in sorted(gone) for line in edited(root, host, name)]
    if refusals:
        raise PatchError(_and_more(refusals))

    texts: dict[str, str | None] = {}
    outcome = Outcome(root, examined, outside=_outside(root, host, sets))
    if only in (None, RECIPE_SET):
        gone.add(RECIPE)
    for file in host.values():
        if file.marker is None:
            stay = [block for block in file.blocks if block.marker.set not in gone]
            if len(stay) < len(file.blocks):
                texts[file.name] = "\n".join(put_in(file.pristine, stay))
        elif file.marker.set not in gone:
            continue
        elif file.marker.set != RECIPE or is_our_recipe(file):
            texts[file.name] = None
        else:
            outcome.kept.append(file.name)
    for file in copies.values():
        lines, left = revert_copy(file, gone)
        outcome.left += left
        if lines != file.lines:
            texts[file.name] = "\n".join(lines)
            outcome.copies.append(file.name)
    _write(host, texts, outcome)
    return outcome


def gravest(examined: list[Examination]) -> str:
    """The state of several sets together."""
    return max((found.state for found in examined), key=STATES.index)


def _open(
    directory: str | os.PathLike, only: str | None
) -> tuple[Path, tuple[PatchSet, ...], dict[str, HostFile], dict[str, HostFile]]:
    """The host folder, all sets, the files of the host, and apart from them the copies there."""
    sets = read_sets()
    names = [patch_set.name for patch_set in sets]
    if only is not None and only not in names:
        raise PatchError(f"unknown patch set {only!r}; {did_you_mean(only, names)}")
    root = find_host(directory)
    own = own_files(sets)
    host = read_host(root, own)
    for file in host.values():
        if file.damage is not None and file.name in own:
            raise PatchError(file.damage)
    copies = {name: host.pop(name) for name in find_copies(host, sets)}
    return root, sets, host, copies


def _outside(root: Path, host: dict[str, HostFile], sets: tuple[PatchSet, ...]) -> dict[str, Path]:
    """The files that the sets edit or add and that links lead out of the host to."""
    found = {name: leads_outside(root, name) for name in sorted(own_files(sets) & host.keys())}
    return {name: target for name, target in found.items() if target is not None}


def _chosen(sets: tuple[PatchSet, ...], only: str | None) -> list[PatchSet]:
    return [patch_set for patch_set in sets if only in (None, patch_set.name)]


def _refuse(root: Path, examined: list[Examination]) -> None:
    """Raise PatchError, of one line, for what forbids to apply these sets."""
    refusals = [line for found in examined for line in found.refusals]
    if refusals:
        raise PatchError(_and_more(refusals))
    lacking = [
        f"{found.patch_set.name} {lack.edit.id!r} in {lack.edit.file}"
        for found in examined
        for lack in found.lacks
    ]
    if lacking:
        number = sum(len(found.patch_set.edits) for found in examined)
        named = ", ".join(lacking[:_NAMED]) + (", ..." if len(lacking) > _NAMED else "")
        raise PatchError(
            f"{root}: {len(lacking)} of {number} edits do not find their anchor ({named}): "
            "nothing was changed; --check lists them with the lines to add by hand"
        )


def _and_more(refusals: list[str]) -> str:
    more = f" ({len(refusals) - 1} more; --check lists them)" if len(refusals) > 1 else ""
    return f"{refusals[0]}{more}; nothing was changed"


def _edited_files(host: dict[str, HostFile], examined: list[Examination]) -> dict[str, str]:
    """The texts of the host's files with the blocks that these sets have there now."""
    names = {found.patch_set.name for found in examined}
    wanted: dict[str, list[Block]] = {
        file.name: [block for block in file.blocks if block.marker.set not in names]
        for file in host.values()
        if file.blocks
    }
    for found in examined:
        for name, blocks in found.blocks.items():
            wanted.setdefault(name, []).extend(blocks)
    return {name: "\n".join(put_in(host[name].pristine, wanted[name])) for name in wanted}


def _added_files(host: dict[str, HostFile], examined: list[Examination]) -> dict[str, str | None]:
    """The texts of the files that these sets add; None for one that only an older version added."""
    names = {found.patch_set.name for found in examined}
    texts: dict[str, str | None] = {
        file.name: None
        for file in host.values()
        if file.marker is not None and file.marker.set in names
    }
    for found in examined:
        texts.update(found.added)
    return texts


def _write(host: dict[str, HostFile], texts: dict[str, str | None], outcome: Outcome) -> None:
    """Write what differs from the host, and note it."""
    changed = {
        name: text
        for name, text in texts.items()
        if text is None or name not in host or not host[name].says(text)
    }
    write_host(outcome.root, changed)
    outcome.written = sorted(name for name, text in changed.items() if text is not None)
    outcome.removed = sorted(name for name, text in changed.items() if text is None)
