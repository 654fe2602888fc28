"""The error of this room."""

from arcface_cakd.errors import ArcfaceCakdError


class ExportError(ArcfaceCakdError):
    """A backbone that could not be exported, or whose export computes something else."""
