"""Tables of text: a heading, and lines of fields with tabs between."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from arcface_cakd.data.text_lines import table_field
from arcface_cakd.files import write_text


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table, atomically."""
    lines = ("\t".join(map(table_field, row)) + "\n" for row in (columns, *rows))
    write_text(path, "".join(lines))
