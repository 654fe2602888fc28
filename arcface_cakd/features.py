"""What a backbone hands to distillation."""

from dataclasses import dataclass

from torch import Tensor


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
        if self.tokens is not None and self.tokens.shape[1] != self.grid[0] * self.grid[1]:
            raise ValueError(
                f"tokens {tuple(self.tokens.shape)} do not fill a grid of "
                f"{self.grid[0]} x {self.grid[1]}"
            )
