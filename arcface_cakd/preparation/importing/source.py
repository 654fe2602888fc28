"""What the readers of other formats have in common."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.image_files import begins_as_image

_PART = re.compile(r"-(\d+)-of-(\d+)")


@dataclass(frozen=True)
class Sample:
    """An image of a data set of another format.

    Attributes:
        place: what names it, for messages.
        encoded: the image.
        label: whom it shows, a number or a name.
        problem: why it cannot be taken; None where nothing is wrong.
    """

    place: str
    encoded: bytes = b""
    label: int | str = ""
    problem: str | None = None


class Source(Protocol):
    """A data set of another format.

    Attributes:
        kind: the format's name.
        files: in order.
        label_names: of the labels 0 and up, where the format tells them.
        settings: what else decides which samples there are.
    """

    kind: str
    files: list[Path]
    label_names: Sequence[str] | None
    settings: dict[str, str]

    def count(self) -> int | None:
        """How many samples there are; None where only reading tells it."""
        ...

    def read(self, file: int, skip: int) -> Iterator[Sample]:
        """The samples of ``files[file]`` in order, without the first ``skip``.

        What is damaged comes as a sample with a problem; one that ends a file, as the last.
        """
        ...


def in_order(paths: Sequence[Path]) -> list[Path]:
    """Files in the order of the numbers in their names: 2 before 10.

    Raises:
        DataError: names say ``-of-00004`` and one of those is missing.
    """

    def key(path: Path) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", path.name)
        return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]

    parts: dict[tuple[str, int], set[int]] = {}  # numbers, by train and 4 of -00000-of-00004
    for path in paths:
        if found := _PART.search(path.name):
            start = path.name[: found.start()]
            parts.setdefault((start, int(found[2])), set()).add(int(found[1]))
    for (start, total), numbers in parts.items():
        first = int(min(numbers) == 1)  # counted from 1 on
        if missing := sorted(set(range(first, total + first)) - numbers):
            raise DataError(
                f"{paths[0].parent / start}: {len(missing)} of {total} files are missing, number "
                f"{missing[0]} first: bring them"
            )
    return sorted(paths, key=key)


def as_label(value: Any) -> int | str:
    """A label as a number where it is one, else as text, such as 007: see ``as_number``.

    Bytes that are no UTF-8 stand escaped in it, so that no two names become one.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        value = value.strip()
        if not value:
            raise ValueError("its label is empty")
        number = as_number(value)
        return value if number is None or str(number) != value else number
    if isinstance(value, bool) or value is None:
        raise ValueError(f"its label is {value}")
    if isinstance(value, float):
        if not math.isfinite(value) or value != int(value):
            raise ValueError(f"its label is {value:g}")
        return int(value)
    if isinstance(value, int | np.integer):
        return int(value)
    raise ValueError(f"its label is a {type(value).__name__}")


def as_number(label: int | str) -> int | None:
    """The number that a label is, None where it is a name.

    The text 007 is 7 among numbers; among names it is another than 7.
    """
    if isinstance(label, str):
        return int(label) if re.fullmatch(r"-?[0-9]{1,18}", label) else None
    return label


def is_image(value: Any) -> bool:
    return isinstance(value, bytes) and begins_as_image(value[:32])
