"""What users made of our lines: copies of patched files, which are theirs.

A patched script that somebody copied carries blocks, and trains with them. No set edits it, so
patching leaves it as it is.
"""

from arcface_cakd.patching.blocks import RECIPE, put_in, take_out
from arcface_cakd.patching.edits import PatchSet
from arcface_cakd.patching.folder import HostFile


def own_files(sets: tuple[PatchSet, ...]) -> set[str]:
    """The paths that the sets edit or add."""
    edited = {edit.file for patch_set in sets for edit in patch_set.edits}
    return edited | {file.path for patch_set in sets for file in patch_set.added}


def find_copies(host: dict[str, HostFile], sets: tuple[PatchSet, ...]) -> list[str]:
    """The names of the files that carry lines of ours and are none of the sets'.

    A file is no copy if all its blocks are of edits that the sets no longer have, or if it alone
    stands for a file that its set adds: an older version edited or added it.
    """
    own = own_files(sets)
    edits = {(patch_set.name, edit.id) for patch_set in sets for edit in patch_set.edits}
    added = {
        patch_set.name
        for patch_set in sets
        for file in patch_set.added
        if file.path in host and _owner(host[file.path]) == patch_set.name
    }
    return [
        file.name
        for file in host.values()
        if file.name not in own
        and (
            file.damage is not None
            or _owner(file) in added
            or any((block.marker.set, block.marker.name) in edits for block in file.blocks)
        )
    ]


def revert_copy(file: HostFile, gone: set[str]) -> tuple[list[str], list[str]]:
    """The lines of a copy without the blocks of these sets, and a line for each thing that stays.

    A block that somebody edited stays, as does what is ours as a whole or cannot be read.
    """
    if file.damage is not None:
        return file.lines, [f"{file.name}: kept, its marker lines of arcface-cakd are damaged"]
    if file.marker is not None:
        kept = [f"{file.name}: kept, a copy of a file of arcface-cakd"]
        return file.lines, kept * (_owner(file) in gone)
    stay = [b for b in file.blocks if b.marker.set not in gone or not b.intact]
    lines = put_in(file.pristine, stay)
    left = [
        f"{file.name}:{block.number}: kept, this block of arcface-cakd was edited"
        for block in take_out(lines, file.name)[1]
        if block.marker.set in gone
    ]
    return lines, left


def _owner(file: HostFile) -> str | None:
    """The set that added a file."""
    return None if file.marker is None or file.marker.set == RECIPE else file.marker.set
