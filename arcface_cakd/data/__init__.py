"""Data sets: training images, verification sets.

The names below load on first use: what only draws or writes pictures does without PyTorch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arcface_cakd.data.augmentation import Augmentation as Augmentation
    from arcface_cakd.data.bins import VerificationSet as VerificationSet
    from arcface_cakd.data.bins import read_bin as read_bin
    from arcface_cakd.data.bins import write_bin as write_bin
    from arcface_cakd.data.errors import DataError as DataError
    from arcface_cakd.data.face_landmarks import FaceLandmarks as FaceLandmarks
    from arcface_cakd.data.images import decode_image as decode_image
    from arcface_cakd.data.loader import FaceLoader as FaceLoader
    from arcface_cakd.data.loader import get_dataloader as get_dataloader
    from arcface_cakd.data.record_sets import write_identity_records as write_identity_records
    from arcface_cakd.data.tensors import as_batch as as_batch

_PUBLIC = {
    "Augmentation": "augmentation",
    "DataError": "errors",
    "FaceLandmarks": "face_landmarks",
    "FaceLoader": "loader",
    "VerificationSet": "bins",
    "as_batch": "tensors",
    "decode_image": "images",
    "get_dataloader": "loader",
    "read_bin": "bins",
    "write_bin": "bins",
    "write_identity_records": "record_sets",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"arcface_cakd.data.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'arcface_cakd.data' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
