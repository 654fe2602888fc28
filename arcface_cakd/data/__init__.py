"""Data sets: training images, verification sets, packing.

The names below load on first use: what only draws or packs pictures does without PyTorch.
"""

import importlib

_PUBLIC = {
    "DataError": "errors",
    "FaceLandmarks": "face_landmarks",
    "FaceLoader": "loader",
    "VerificationSet": "bins",
    "as_batch": "tensors",
    "decode_image": "images",
    "get_dataloader": "loader",
    "pack_folder": "packing",
    "read_bin": "bins",
    "write_bin": "bins",
    "write_identity_records": "packing",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"arcface_cakd.data.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'arcface_cakd.data' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
