"""Tables of text: a heading, and lines of fields with tabs between."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from arcface_cakd.files import write_text


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table, atomically."""
    lines = ("\t".join(map(table_field, row)) + "\n" for row in (columns, *rows))
    write_text(path, "".join(lines))


def table_field(text: str) -> str:
    """A text as it stands in a table: names of files may hold what no text has."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
