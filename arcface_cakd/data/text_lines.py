"""Lists and tables that users bring, as lines of text."""

import os
from pathlib import Path

from arcface_cakd.data.errors import DataError


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
