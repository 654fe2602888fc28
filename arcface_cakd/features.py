"""What a backbone hands to distillation."""

from dataclasses import dataclass

import torch
from torch import Tensor


def times_changed(tensor: Tensor) -> int | None:
    """How often a tensor was changed in place; None where that is not counted: in inference mode,
    and where operations are recorded to be run elsewhere."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or tensor.is_inference():
        return None
    return tensor._version


@dataclass(frozen=True)
class FaceFeatures:
    """The features of a batch of faces, in float32 whatever the precision of the backbone.

    Attributes:
        embedding: (B, E), not normalised, as ``backbone(images)`` returns it.
        tokens: (B, N, C) pixel features in row-major order over ``grid``, N = H * W; None from a
            teacher that gives embeddings only.
        grid: (H, W) of the tokens, or None likewise.
        prompts: (B, t, C) final prompts of a prompted teacher, else None.
        stages: intermediate maps (B, C_i, H_i, W_i), one per stage, where they were asked for.
    """

    embedding: Tensor
    tokens: Tensor | None
    grid: tuple[int, int] | None
    prompts: Tensor | None = None
    stages: tuple[Tensor, ...] = ()

    def __post_init__(self):
        if self.tokens is None:
            return
        tokens, (height, width) = self.pixel_features
        if tokens.shape[1] != height * width:
            raise ValueError(
                f"tokens {tuple(tokens.shape)} do not fill a grid of {height} x {width}"
            )

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """``embedding``, ``tokens`` and ``stages``, those that there are."""
        tokens = () if self.tokens is None else (self.tokens,)
        return (self.embedding, *tokens, *self.stages)

    @property
    def pixel_features(self) -> tuple[Tensor, tuple[int, int]]:
        """``tokens`` and ``grid``, of a network that has them.

        Raises:
            ValueError: they are of a teacher that gives embeddings only.
        """
        if self.tokens is None or self.grid is None:
            raise ValueError("no tokens on a grid: the teacher gives embeddings only")
        return self.tokens, self.grid
