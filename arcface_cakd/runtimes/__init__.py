"""Exported models, each run by the runtime that its file is for."""

from arcface_cakd.runtimes.base import ExportedModel, RuntimeProblem
from arcface_cakd.runtimes.opening import ENDINGS, ending_of, files_of, installed, open_exported

__all__ = [
    "ENDINGS",
    "ExportedModel",
    "RuntimeProblem",
    "ending_of",
    "files_of",
    "installed",
    "open_exported",
]
