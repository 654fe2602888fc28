"""Record files (``.rec`` with ``.idx``), in place of ``mxnet.recordio``.

``from arcface_cakd import recordio`` serves where ``from mxnet import recordio`` did: the same
names, signatures and bytes. Beyond mxnet, readers are memory-mapped, safe to share between
threads and processes, and hold what they read against the format (``RecordIOError``); writers
put their files in place whole, at ``close()``.
"""

from arcface_cakd.recordio.framing import MissingKeyError, RecordIOError
from arcface_cakd.recordio.header import IRHeader, pack, pack_img, unpack, unpack_img
from arcface_cakd.recordio.record_files import MXIndexedRecordIO, MXRecordIO

__all__ = [
    "IRHeader",
    "MXIndexedRecordIO",
    "MXRecordIO",
    "MissingKeyError",
    "RecordIOError",
    "pack",
    "pack_img",
    "unpack",
    "unpack_img",
]
