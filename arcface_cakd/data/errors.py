"""The error of the data room."""

from arcface_cakd.errors import ArcfaceCakdError


class DataError(ArcfaceCakdError):
    """A data set that cannot be used; the message names the file and the record."""
