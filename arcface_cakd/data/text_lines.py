"""Lists and tables that users bring, as lines of text."""

import logging
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from arcface_cakd.data.errors import DataError

logger = logging.getLogger("arcface_cakd")


def read_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a file in UTF-8, without their ends, which are newlines as systems write them.

    Empty lines at the end are none. Other breaks than newlines stay in a line, for names of files
    and folders may hold them.

    Raises:
        DataError: it cannot be read, or is no such text.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text in UTF-8 ({error.reason}): save it as that") from error
    text = text.rstrip("\n")
    return text.split("\n") if text else []


def table_field(text: str) -> str:
    """A text as it stands in a table: names of files may hold what no text has."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def label_text(text: str) -> str:
    """A text for a title or a legend, which matplotlib shows as it is.

    Else it takes what stands between dollars for mathematics, leaves what begins with ``_`` out
    of legends, and cannot draw what is no UTF-8, as in a file's name.
    """
    text = table_field(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def warn_of_alike(place: str | os.PathLike, names: Iterable[str]) -> None:
    """Say in the log which names of people are likely one person's, and count as two people's.

    Those are names that differ in capitals, in blanks, or in how Unicode writes a letter, which
    is e with an accent or é.

    Args:
        place: where they are, for the message.
        names: each once.
    """
    first: dict[str, str] = {}
    alike = []
    for name in names:
        other = first.setdefault(_plain(name), name)
        if other != name:
            alike.append((other, name))
    if alike:
        logger.warning(
            "%s: %s and %s are taken for two people, and differ by capitals, blanks or the form of "
            "a letter alone; %d name(s) do: give those of one person one name",
            *(place, ascii(alike[0][0]), ascii(alike[0][1]), len(alike)),
        )


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
