"""What makes a data set ready before training: packed, renumbered, indexed.

``pack_folder`` loads on first use: the command line's help needs none of it.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arcface_cakd.preparation.packing import pack_folder as pack_folder

_PUBLIC = {"pack_folder": "packing"}
__all__ = sorted(_PUBLIC)


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"arcface_cakd.preparation.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'arcface_cakd.preparation' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
