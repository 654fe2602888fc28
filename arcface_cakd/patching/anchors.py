"""Where in a file an edit goes, and the block that it becomes there."""

from collections.abc import Sequence
from dataclasses import dataclass

from arcface_cakd.patching.blocks import Block, make_block
from arcface_cakd.patching.edits import Edit, PatchSet


@dataclass(frozen=True)
class Place:
    """An anchor's occurrence: index of its first line, and what indents all of its lines."""

    index: int
    indentation: str


def find_anchor(edit: Edit, lines: Sequence[str]) -> list[Place]:
    """Every place where the anchor's lines stand one after another, equally indented.

    Whitespace at the end of a line does not count.
    """
    places = []
    for index in range(len(lines) - len(edit.anchor) + 1):
        first = lines[index].rstrip()
        indentation = first.removesuffix(edit.anchor[0])
        if not first or indentation.strip() or indentation == first:
            continue
        wanted = [(indentation + line).rstrip() for line in edit.anchor]
        if wanted == [line.rstrip() for line in lines[index : index + len(wanted)]]:
            places.append(Place(index, indentation))
    return places


def block_at(patch_set: PatchSet, edit: Edit, place: Place, lines: Sequence[str]) -> Block:
    """The block of an edit at a place of the host's lines, with the file's line endings."""
    at = place.index + (len(edit.anchor) if edit.action == "after" else 0)
    originals = lines[at : at + 1] if edit.action == "change" else []
    ending = "\r" if lines[0].endswith("\r") else ""
    return _block(patch_set, edit, at, originals, place.indentation, ending)


def block_by_hand(patch_set: PatchSet, edit: Edit) -> Block:
    """The block of an edit as it stands in the original host, for one that lacks the anchor."""
    originals = [edit.indentation + edit.anchor[0]] if edit.action == "change" else []
    return _block(patch_set, edit, 0, originals, edit.indentation, "").put_by_hand()


def stands_at(block: Block, edit: Edit, place: Place) -> bool:
    """Whether a block is where an edit would put its own at a place."""
    at = place.index + (len(edit.anchor) if edit.action == "after" else 0)
    if edit.action == "change":
        return block.at <= at < block.at + len(block.originals)
    return block.at == at


def same_text(block: Block, edit: Edit) -> bool:
    """Whether a block holds what the edit says, however its lines are indented."""
    originals = edit.anchor if edit.action == "change" else ()
    return _stripped(block.originals) == _stripped(originals) and (
        _stripped(block.inserted) == _stripped(edit.lines)
    )


def same_shape(block: Block, edit: Edit) -> bool:
    """Whether a block holds what the edit says, with its indentation but for a common shift."""
    indents = [
        [len(line) - len(line.lstrip()) for line in lines if line.strip()]
        for lines in (block.inserted, edit.lines)
    ]
    shifts = {found - wanted for found, wanted in zip(*indents, strict=False)}
    return same_text(block, edit) and len(shifts) <= 1


def _block(patch_set, edit, at, originals, indentation, ending) -> Block:
    inserted = [indentation + line if line else "" for line in edit.lines]
    return make_block((patch_set.name, patch_set.version, edit.id), at, originals, inserted, ending)


def _stripped(lines: Sequence[str]) -> list[str]:
    return [line.strip() for line in lines]
