"""Data sets: training images, verification sets, packing."""

from arcface_cakd.data.bins import VerificationSet, read_bin, write_bin
from arcface_cakd.data.errors import DataError
from arcface_cakd.data.images import decode_image
from arcface_cakd.data.loader import FaceLoader, get_dataloader
from arcface_cakd.data.packing import pack_folder, write_identity_records

__all__ = [
    "DataError",
    "FaceLoader",
    "VerificationSet",
    "decode_image",
    "get_dataloader",
    "pack_folder",
    "read_bin",
    "write_bin",
    "write_identity_records",
]
