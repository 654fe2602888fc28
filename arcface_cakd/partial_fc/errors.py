"""The room's own error."""

from arcface_cakd.errors import ArcfaceCakdError


class PartialFCError(ArcfaceCakdError):
    """Labels, centres or settings that do not fit the classes."""
