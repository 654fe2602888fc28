"""Edits to arcface_torch, kept as data in ``patches/``: applied, checked, reverted.

Imports neither torch nor the host.
"""

from arcface_cakd.patching.edits import PatchSet, read_sets
from arcface_cakd.patching.errors import PatchError
from arcface_cakd.patching.host import Outcome, check, gravest, patch, revert
from arcface_cakd.patching.status import Examination, Lack

__all__ = [
    "Examination",
    "Lack",
    "Outcome",
    "PatchError",
    "PatchSet",
    "check",
    "gravest",
    "patch",
    "read_sets",
    "revert",
]
