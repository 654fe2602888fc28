"""What a patch set is to a host: its state, what the host lacks, and the lines it would get."""

from dataclasses import dataclass
from pathlib import Path

from arcface_cakd.patching.anchors import (
    block_at,
    block_by_hand,
    find_anchor,
    same_shape,
    same_text,
    stands_at,
)
from arcface_cakd.patching.blocks import BY_HAND, FILE, RECIPE, Block, mark_file
from arcface_cakd.patching.edits import Edit, PatchSet
from arcface_cakd.patching.errors import PatchError
from arcface_cakd.patching.folder import HostFile

# The states of a set in a host, from the best to the gravest.
PATCHED, UNPATCHED, OLDER, PARTLY, FOREIGN = STATES = (
    "patched",
    "unpatched",
    "older",
    "partly",
    "foreign",
)


@dataclass(frozen=True)
class Lack:
    """An edit whose anchor the host does not hold as often as it must.

    Attributes:
        found: how often the anchor is there; None where the whole file is missing.
        by_hand: how many blocks stand in for it that were put in by hand.
        block: the lines to add by hand, with their markers.
    """

    edit: Edit
    found: int | None
    by_hand: int
    block: tuple[str, ...]


@dataclass(frozen=True)
class Examination:
    """A set against a host.

    Attributes:
        state: ``"patched"``; ``"unpatched"``; ``"older"``: an older version of the set is there,
            or what differs from this one; ``"partly"``: some edits are not there as often as
            they must be; ``"foreign"``: it cannot be applied.
        lacks: anchors that are not there as they must be.
        refusals: what else forbids to apply the set, a line each.
        notes: what to look at among the blocks put in by hand, a line each.
        versions: the versions of the set that were found, rising; not of blocks put in by hand.
        blocks: by file, the blocks that the applied set has there, in the order of its edits.
        added: by path, the texts of the files that the applied set adds.
    """

    patch_set: PatchSet
    state: str
    lacks: tuple[Lack, ...]
    refusals: tuple[str, ...]
    notes: tuple[str, ...]
    versions: tuple[int, ...]
    blocks: dict[str, list[Block]]
    added: dict[str, str]


@dataclass(frozen=True)
class _Resolved:
    """One edit against the file it is for. ``present``: its blocks there, ``wanted``: to be."""

    edit: Edit
    present: list[Block]
    wanted: list[Block]
    lack: Lack | None = None


def examine(patch_set: PatchSet, root: Path, host: dict[str, HostFile]) -> Examination:
    """Compare a set with a host; nothing is changed."""
    resolved = [_resolve(patch_set, edit, host.get(edit.file)) for edit in patch_set.edits]
    lacks = tuple(result.lack for result in resolved if result.lack is not None)
    refusals = _refusals(patch_set, root, host)
    added = {
        file.path: mark_file(patch_set.name, patch_set.version, FILE, file.text)
        for file in patch_set.added
    }
    state = FOREIGN if lacks or refusals else _state(patch_set, resolved, added, host)
    blocks: dict[str, list[Block]] = {}
    for result in resolved:
        blocks.setdefault(result.edit.file, []).extend(result.wanted)
    handled = {(result.edit.file, result.edit.id) for result in resolved}
    for file, block in _by_hand(patch_set.name, host):
        if (file.name, block.marker.name) not in handled:
            blocks.setdefault(file.name, []).append(block)
    notes = tuple(_notes(patch_set, host))
    versions = tuple(sorted(set(_found(patch_set.name, host))))
    return Examination(patch_set, state, lacks, refusals, notes, versions, blocks, added)


def _state(
    patch_set: PatchSet,
    resolved: list[_Resolved],
    added: dict[str, str],
    host: dict[str, HostFile],
) -> str:
    """The state of a set that can be applied."""
    found = _found(patch_set.name, host)
    if not found and not _by_hand(patch_set.name, host):
        return UNPATCHED
    missing = any(path not in host for path in added)
    # Of other versions: what no edit and no added file of this version accounts for.
    ours = [block for result in resolved for block in result.present if not block.by_hand]
    left = len(found) - len(ours) - len(added)
    if (
        not missing
        and not left
        and all(result.present == result.wanted for result in resolved)
        and all(host[path].says(text) for path, text in added.items())
    ):
        return PATCHED
    if found and patch_set.version not in found:
        return OLDER
    wrong_number = any(len(result.present) != len(result.wanted) for result in resolved)
    return PARTLY if missing or wrong_number or len(set(found)) > 1 else OLDER


def edited(root: Path, host: dict[str, HostFile], set_name: str) -> list[str]:
    """A line for each block and each added file of a set that somebody has edited."""
    lines = []
    for file in host.values():
        if file.marker is not None and file.marker.set == set_name and not file.intact:
            lines.append(
                f"{root / file.name}: this file of arcface-cakd was edited: restore or delete it; "
                "to keep it, rename it and delete its first line"
            )
        lines += [
            f"{root / file.name}:{block.number}: this block of arcface-cakd was edited: move "
            f"your lines out of it, or restore it, or put {BY_HAND} in the place of its "
            "checksum to keep it as it is, or delete it and put its '# ---' lines back"
            for block in file.blocks
            if block.marker.set == set_name and not block.intact
        ]
    return lines


def refuse_unknown_sets(root: Path, host: dict[str, HostFile], sets: tuple[PatchSet, ...]) -> None:
    """Raise PatchError if the host holds lines of a set that this version does not have."""
    known = {RECIPE, *(patch_set.name for patch_set in sets)}
    for file in host.values():
        markers = [file.marker] if file.marker else [block.marker for block in file.blocks]
        for marker in markers:
            if marker.set not in known:
                raise PatchError(
                    f"{root / file.name}: holds lines of the patch set {marker.set!r}, which "
                    "this version does not have: upgrade arcface_cakd"
                )


def _found(set_name: str, host: dict[str, HostFile]) -> list[int]:
    """The versions of all blocks and added files of a set, one for each; none put in by hand."""
    markers = [block.marker for file in host.values() for block in file.blocks if not block.by_hand]
    markers += [file.marker for file in host.values() if file.marker is not None]
    return [marker.version for marker in markers if marker.set == set_name]


def _by_hand(set_name: str, host: dict[str, HostFile]) -> list[tuple[HostFile, Block]]:
    return [
        (file, block)
        for file in host.values()
        for block in file.blocks
        if block.by_hand and block.marker.set == set_name
    ]


def _notes(patch_set: PatchSet, host: dict[str, HostFile]) -> list[str]:
    """A line for each block by hand that this version of its set may ask to change."""
    edits = {(edit.file, edit.id) for edit in patch_set.edits}
    notes = []
    for file, block in _by_hand(patch_set.name, host):
        where, marker = f"{file.name}:{block.number}", block.marker
        if (file.name, marker.name) not in edits:
            notes.append(
                f"{where}: the block by hand is for {marker.set} {marker.name}, which version "
                f"{patch_set.version} does not have in this file: left as it is"
            )
        elif marker.version != patch_set.version:
            notes.append(
                f"{where}: the block by hand is for version {marker.version} of {marker.set} "
                f"{marker.name}: left as it is; compare it with version {patch_set.version} and "
                "write that into its marker"
            )
    return notes


def _refusals(patch_set: PatchSet, root: Path, host: dict[str, HostFile]) -> tuple[str, ...]:
    newest = max(_found(patch_set.name, host), default=0)
    refusals = []
    if newest > patch_set.version:
        refusals.append(
            f"{root}: has version {newest} of {patch_set.name}, newer than the installed "
            f"version {patch_set.version}: upgrade arcface_cakd"
        )
    refusals += edited(root, host, patch_set.name)
    for file in patch_set.added:
        there = host.get(file.path)
        if there is not None and (there.marker is None or there.marker.set != patch_set.name):
            refusals.append(f"{root / file.path}: is in the place of a file to add: rename it")
    return tuple(refusals)


def _resolve(patch_set: PatchSet, edit: Edit, file: HostFile | None) -> _Resolved:
    """Keep an edit's blocks, or place them anew, or say what its anchor lacks."""
    to_add = block_by_hand(patch_set, edit).lines
    if file is None or file.marker is not None:
        return _Resolved(edit, [], [], Lack(edit, None, 0, to_add))
    present = [
        block
        for block in file.blocks
        if (block.marker.set, block.marker.name) == (patch_set.name, edit.id)
    ]
    by_hand = [block for block in present if block.by_hand]
    ours = [block for block in present if not block.by_hand]
    number = edit.count - len(by_hand)  # of ours that there must be
    kept = [block if block.by_hand else block.of_version(patch_set.version) for block in present]
    # The indentation of what replaces a line follows from the line, in every version of a set.
    if len(ours) == number and all(
        same_shape(block, edit) and (block in kept or edit.action == "change") for block in ours
    ):
        return _Resolved(edit, present, kept)
    places = [
        place
        for place in find_anchor(edit, file.pristine)
        if not any(stands_at(block, edit, place) for block in by_hand)
    ]
    if number == 0 or len(places) == number:
        placed = [block_at(patch_set, edit, place, file.pristine) for place in places[:number]]
        return _Resolved(edit, present, [*by_hand, *placed])
    if len(ours) == number and all(block.intact and same_text(block, edit) for block in ours):
        # Where somebody changed the anchor since: we could not put them back.
        return _Resolved(edit, present, kept)
    return _Resolved(edit, present, [], Lack(edit, len(places), len(by_hand), to_add))
