"""The room's own error."""

from arcface_cakd.errors import ArcfaceCakdError


class BenchError(ArcfaceCakdError):
    """Something that cannot be measured here."""
