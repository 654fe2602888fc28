"""The error of this room."""

from arcface_cakd.errors import ArcfaceCakdError


class PatchError(ArcfaceCakdError):
    """A host that cannot be patched or reverted as it is, or a patch set that is malformed."""
