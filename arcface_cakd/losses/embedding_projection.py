"""A learned map of the student's embedding onto the teacher's width."""

from torch import nn

from arcface_cakd.config import ConfigError
from arcface_cakd.losses.base import FeatureDims


def embedding_projection(loss: str, dims: FeatureDims, projection: bool) -> nn.Module:
    """A linear map without bias if ``projection``, else the identity.

    Args:
        loss: registered name of the loss that asks.
        dims: widths of both embeddings.
        projection: the setting of that name.

    Raises:
        ConfigError: the widths differ and ``projection`` is off.
    """
    widths = dims.student_embedding, dims.teacher_embedding
    if projection:
        return nn.Linear(*widths, bias=False)
    if widths[0] != widths[1]:
        raise ConfigError(
            f"{loss}: the student's embedding has width {widths[0]}, the teacher's {widths[1]}: "
            "set projection=True on this loss, or give both one width"
        )
    return nn.Identity()
