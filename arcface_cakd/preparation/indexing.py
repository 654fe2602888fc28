"""The index of a record file, made anew from the records."""

import os
import struct
from pathlib import Path

import numpy as np

from arcface_cakd.files import atomic_path
from arcface_cakd.progress import track
from arcface_cakd.recordio import RecordIOError
from arcface_cakd.recordio.block_digests import renew_index_digest
from arcface_cakd.recordio.scan import scan

_ID = struct.Struct("<8xQ")  # behind flag and label
_MAX_KEY = 10**18


def rebuild_index(rec: str | os.PathLike, idx: str | os.PathLike) -> tuple[int, bool]:
    """Write the index of a record file, from the records themselves.

    A record's key is the ``id`` in its header, which im2rec and insightface's tools set to it.
    Where two have the same, or one has none, keys count from 0 in the order of the file. Where
    there are digests of the two files, the index's is written anew.

    Args:
        rec: the ``.rec`` file.
        idx: the ``.idx`` file to write, atomically.

    Returns:
        how many records there are, and whether their keys are their ids.

    Raises:
        RecordIOError: as ``scan``, or a record is damaged; nothing is written.
    """
    offsets: list[int] = []
    ids: list[int] = []
    for offset, payload in track(scan(rec), f"reading {Path(rec).name}", unit="records"):
        if isinstance(payload, RecordIOError):
            raise payload
        offsets.append(offset)
        if len(payload) >= _ID.size:
            ids.append(_ID.unpack_from(payload)[0])
    by_id = (
        len(ids) == len(offsets)
        and max(ids, default=0) < _MAX_KEY
        and len(np.unique(np.array(ids, dtype=np.uint64))) == len(ids)
    )
    keys = ids if by_id else range(len(offsets))
    with atomic_path(idx) as partial, open(partial, "w", encoding="ascii") as file:
        file.writelines(f"{key}\t{offset}\n" for key, offset in zip(keys, offsets, strict=True))
    renew_index_digest(rec)
    return len(offsets), by_id
