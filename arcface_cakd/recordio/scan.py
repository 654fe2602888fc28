"""A record file without its index: every record in turn."""

import os
from collections.abc import Iterator

from arcface_cakd.recordio.framing import RecordIOError, next_beginning, read_record
from arcface_cakd.recordio.record_files import MXRecordIO


def scan(
    path: str | os.PathLike, begin: int = 0, end: int | None = None
) -> Iterator[tuple[int, bytes | RecordIOError]]:
    """Byte offset and payload of every record, in the order of the file.

    Where a record is damaged its error is yielded instead, and reading goes on at the next place
    where one can begin.

    Args:
        path: the ``.rec`` file.
        begin, end: the bytes in which records begin; None: to the end of the file.

    Raises:
        RecordIOError: no such file, or one that cannot be opened.
    """
    reader = MXRecordIO(path, "r")
    buffer, offset = reader.mapped(), begin
    while offset < (len(buffer) if end is None else end):
        try:
            # A damaged head of the next record is that one's fault.
            payload, after = read_record(buffer, offset, reader.uri, is_indexed=lambda end: True)
        except RecordIOError as error:
            yield offset, error
            offset = next_beginning(buffer, offset + 4)
        else:
            yield offset, payload
            offset = after
