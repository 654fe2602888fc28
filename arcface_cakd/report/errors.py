"""The error of this room."""

from arcface_cakd.errors import ArcfaceCakdError


class ReportError(ArcfaceCakdError, ValueError):
    """A run that cannot be shown, or a page that cannot be drawn; the message says what to do."""
