"""Lists of pairs, as verification sets come with: LFW's ``pairs.txt``, or two images a line."""

import re
from dataclasses import dataclass
from pathlib import Path

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.text_lines import read_lines

_PERSON = re.compile(r"[^/\\]*[^\d/\\][^/\\]*")
_TRUTH = {"1": True, "true": True, "same": True, "0": False, "false": False, "diff": False}


@dataclass(frozen=True)
class ListedPair:
    """A line of a list.

    Attributes:
        line: its number.
        images: as the list names them.
        same: whether they show one person; None where the line does not say it.
    """

    line: int
    images: tuple[str, str]
    same: bool | None


def read_pair_list(path: str | Path) -> list[ListedPair]:
    """The pairs of a list, in its order.

    Fields are separated by tabs, commas or spaces. A line has two images and, behind or before
    them, 1 or 0 (true or false, same or diff), or none of these; or it is LFW's: a person and the
    numbers of two images, or a person and a number twice, where image 3 of Ann_Lee is
    Ann_Lee/Ann_Lee_0003. Its first line, of one or two numbers, is passed over, as are empty
    lines and those that begin with #.

    Raises:
        DataError: no such file, or a line of another form.
    """
    path = Path(path)
    rows = [(number, _fields(line)) for number, line in enumerate(read_lines(path), start=1)]
    rows = [(number, fields) for number, fields in rows if fields and fields[0][0] != "#"]
    if len(rows) > 1 and _heads(rows[0][1], rows[1][1]):
        rows = rows[1:]
    found = [_pair(path, number, fields) for number, fields in rows]
    if not found:
        raise DataError(f"{path}: there is no pair in it")
    return found


def _fields(line: str) -> list[str]:
    for separator in "\t", ",":
        if separator in line:
            return [field.strip() for field in line.split(separator) if field.strip()]
    return line.split()


def _heads(first: list[str], second: list[str]) -> bool:
    """Whether a list begins with LFW's line of counts."""
    return len(first) < min(3, len(second)) and all(field.isdecimal() for field in first)


def _pair(path: Path, line: int, fields: list[str]) -> ListedPair:
    if len(fields) == 2:
        return ListedPair(line, (fields[0], fields[1]), None)
    if len(fields) == 4 and fields[1].isdecimal() and fields[3].isdecimal():
        images = _lfw(fields[0], fields[1]), _lfw(fields[2], fields[3])
        return ListedPair(line, images, fields[0] == fields[2])
    if len(fields) == 3:
        person, *numbers = fields
        # A person, and neither a file nor a record's key.
        if _PERSON.fullmatch(person) and all(number.isdecimal() for number in numbers):
            one, other = (_lfw(person, number) for number in numbers)
            return ListedPair(line, (one, other), True)
        if fields[2].lower() in _TRUTH:
            return ListedPair(line, (fields[0], fields[1]), _TRUTH[fields[2].lower()])
        if fields[0].lower() in _TRUTH:
            return ListedPair(line, (fields[1], fields[2]), _TRUTH[fields[0].lower()])
    raise DataError(
        f"{path}, line {line}: must be two images and 1 or 0, or as LFW has it; is "
        f"{' '.join(fields)[:60]!r}"
    )


def _lfw(person: str, number: str) -> str:
    return f"{person}/{person}_{int(number):04d}"
