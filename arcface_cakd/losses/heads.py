"""How many heads the attention of a loss has."""

from arcface_cakd.config import ConfigError

HEAD_WIDTH = 64  # that of every ViT's heads


def heads_of(loss: str, width: int, num_heads: int | None) -> int:
    """``num_heads``, or where that is None one for each 64 channels where 64 divides ``width``,
    else one.

    Args:
        loss: registered name of the loss that asks.
        width: of the teacher's tokens.
        num_heads: the setting of that name.

    Raises:
        ConfigError: ``num_heads`` does not divide ``width``; it names the ``loss``.
    """
    if num_heads is None:
        return 1 if width % HEAD_WIDTH else width // HEAD_WIDTH
    if width % num_heads:
        raise ConfigError(
            f"{loss}: num_heads={num_heads} does not divide {width}, the width of the "
            "teacher's tokens: set a divisor of it, or None"
        )
    return num_heads
