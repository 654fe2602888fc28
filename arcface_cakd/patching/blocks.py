"""The lines of ours that stand in a host's files, between marker lines that are comments.

A block::

    # >>> arcface-cakd <set> <version> <edit id> <checksum>
    # --- <a line of the host that the block replaces, with its own indentation>
    <lines of ours>
    # <<< arcface-cakd

To take a block out is to delete it and to put the ``# ---`` lines back, which needs nothing but
the file itself: it works for any version of a set. The marker is indented as the line behind
``# ---``; where somebody indented the block anew, that line is put back shifted as the marker
was. A file that is ours as a whole has one marker,
its first line, with ``file`` for an edit id; a recipe has ``recipe`` for a set. The checksum is
over what follows the marker, each line without outer whitespace, so that whoever edited it is
told before it is overwritten, while an indentation or a line ending may change. With ``by-hand``
in its place a block is the user's, who fitted it to a fork: its text is never compared with that
of its edit, and it stays as it is until it is taken out.
"""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from arcface_cakd.patching.errors import PatchError

BEGIN = "# >>> arcface-cakd"
END = "# <<< arcface-cakd"
ORIGINAL = "# --- "
FILE = "file"
RECIPE = "recipe"
BY_HAND = "by-hand"

_MARKER = re.compile(rf"{BEGIN} (\S+) ([0-9]+) (\S+) ([0-9a-f]{{8}}|{BY_HAND})")


@dataclass(frozen=True)
class Marker:
    """What the first marker line says.

    ``name`` is an edit's id, ``file`` or a recipe's name, ``checksum`` may be ``by-hand``.
    """

    set: str
    version: int
    name: str
    checksum: str

    def __str__(self) -> str:
        return f"{BEGIN} {self.set} {self.version} {self.name} {self.checksum}"


@dataclass(frozen=True)
class Block:
    """A block and where it stands.

    Attributes:
        at: index of its place in the host's own lines, those without any block.
        lines: all of it as it stands in the file, marker lines and line endings included.
        number: line number of its first marker in the file, from 1; 0 if it is not there yet.
    """

    marker: Marker
    at: int
    lines: tuple[str, ...]
    number: int = 0

    @property
    def body(self) -> tuple[str, ...]:
        return self.lines[1:-1]

    @property
    def originals(self) -> tuple[str, ...]:
        """The host's lines that this block replaces, indented as its marker is."""
        found = []
        for line in self.body:
            if not line.lstrip().startswith(ORIGINAL):
                break
            found.append(line.lstrip().removeprefix(ORIGINAL))
        old = indentation(found[:1])
        new = indentation(self.lines[:1])
        return tuple(
            new + line.removeprefix(old) if line.startswith(old) else line for line in found
        )

    @property
    def inserted(self) -> tuple[str, ...]:
        return self.body[len(self.originals) :]

    @property
    def intact(self) -> bool:
        """Whether nobody has edited it, or it is there by hand."""
        return self.by_hand or checksum(self.body) == self.marker.checksum

    @property
    def by_hand(self) -> bool:
        return self.marker.checksum == BY_HAND

    def of_version(self, version: int) -> "Block":
        return self._with(version=version)

    def put_by_hand(self) -> "Block":
        return self._with(checksum=BY_HAND)

    def _with(self, **changes) -> "Block":
        marker = dataclasses.replace(self.marker, **changes)
        first = self.lines[0].replace(str(self.marker), str(marker))
        return dataclasses.replace(self, marker=marker, lines=(first, *self.lines[1:]))


def checksum(lines: Iterable[str]) -> str:
    """Eight hexadecimal digits over the lines, each without outer whitespace."""
    text = "\n".join(line.strip() for line in lines)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def indentation(lines: Iterable[str]) -> str:
    """That of the first line which is not blank."""
    first = next((line for line in lines if line.strip()), "")
    return first[: len(first) - len(first.lstrip())]


def make_block(
    owner: tuple[str, int, str],
    at: int,
    originals: Sequence[str],
    inserted: Sequence[str],
    ending: str,
) -> Block:
    """A block of ``owner`` (set, version, edit id).

    ``inserted`` come with their indentation, ``originals`` as they stand in the file. ``ending``
    is what precedes the newline: "" or a carriage return.
    """
    indent = indentation((*originals, *inserted))
    body = [f"{indent}{ORIGINAL}{line}" for line in originals]
    body += [line + ending for line in inserted]
    marker = Marker(*owner, checksum(body))
    first, last = f"{indent}{marker}{ending}", f"{indent}{END}{ending}"
    return Block(marker, at, (first, *body, last))


def take_out(lines: Sequence[str], name: str) -> tuple[list[str], list[Block]]:
    """The host's own lines of a file, and the blocks that stand between them, in their order.

    Raises:
        PatchError: a marker line is damaged or lacks its counterpart; the text says where.
    """
    pristine: list[str] = []
    blocks: list[Block] = []
    opened: tuple[int, Marker] | None = None
    for number, line in enumerate(lines):
        text = line.strip()
        if text.startswith(BEGIN):
            marker = parse_marker(line)
            if opened is not None or marker is None:
                raise _damaged(name, number)
            opened = number, marker
        elif text.startswith(END):
            if opened is None:
                raise _damaged(name, number)
            begin, marker = opened
            block = Block(marker, len(pristine), tuple(lines[begin : number + 1]), begin + 1)
            blocks.append(block)
            pristine += block.originals
            opened = None
        elif opened is None:
            pristine.append(line)
    if opened is not None:
        raise _damaged(name, opened[0])
    return pristine, blocks


def put_in(pristine: Sequence[str], blocks: Iterable[Block]) -> list[str]:
    """The lines of a file with these blocks; at one place what inserts precedes what replaces.

    Those that are in the file already keep their order.
    """
    lines: list[str] = []
    done = 0
    for (at, _), group in itertools.groupby(sorted(blocks, key=_place), key=_place):
        together = list(group)
        there = iter(sorted((block for block in together if block.number), key=_number))
        for block in together:
            block = next(there) if block.number else block
            lines += [*pristine[done:at], *block.lines]
            done = at + len(block.originals)
    return [*lines, *pristine[done:]]


def _place(block: Block) -> tuple[int, bool]:
    return block.at, bool(block.originals)


def _number(block: Block) -> int:
    return block.number


def parse_marker(line: str) -> Marker | None:
    """What a marker line says; None if it is none."""
    match = _MARKER.fullmatch(line.strip())
    if match is None:
        return None
    owner, version, name, digits = match.groups()
    return Marker(owner, int(version), name, digits)


def mark_file(set_name: str, version: int, name: str, text: str) -> str:
    """The text of a file that is ours as a whole, its marker line first."""
    marker = Marker(set_name, version, name, checksum(text.split("\n")))
    return f"{marker}\n{text}"


def file_marker(lines: Sequence[str]) -> Marker | None:
    """The marker of a file that is ours as a whole; None for a file of the host."""
    marker = parse_marker(lines[0]) if lines else None
    ours = marker is not None and (marker.name == FILE or marker.set == RECIPE)
    return marker if ours else None


def _damaged(name: str, number: int) -> PatchError:
    return PatchError(
        f"{name}:{number + 1}: this marker line of arcface-cakd is damaged or lacks its "
        f"counterpart ('{BEGIN} ...' and '{END}'): restore it, or the file"
    )
