"""Names of people, as folders and tables have them."""

import logging
import os
import unicodedata
from collections.abc import Iterable

logger = logging.getLogger("arcface_cakd")


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
