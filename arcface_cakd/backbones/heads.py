"""Heads that turn a final map into an embedding."""

from torch import Tensor, nn


class FlattenHead(nn.Sequential):
    """Flatten -> Linear -> BatchNorm -> Linear(E) -> BatchNorm, the head of arcface_torch's ViTs.

    Crops are aligned, so a place in the map is a place on the face: flattening keeps what each
    place said, pooling would not.

    Args:
        channels: C of the final map.
        grid: (H, W) of the final map.
        embedding_size: E.
        hidden: width between the two linear layers; None means C, as in arcface_torch.
        dropout: probability of dropping an entry of the flattened map.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        embedding_size: int,
        hidden: int | None = None,
        dropout: float = 0.0,
    ):
        hidden = hidden or channels
        # The names of the layers that hold weights are those in arcface_torch's `feature`.
        super().__init__()
        self.add_module("flatten", nn.Flatten())
        self.add_module("dropout", nn.Dropout(dropout))
        self.add_module("0", nn.Linear(channels * grid[0] * grid[1], hidden, bias=False))
        self.add_module("1", nn.BatchNorm1d(hidden, eps=2e-5))
        self.add_module("2", nn.Linear(hidden, embedding_size, bias=False))
        self.add_module("3", nn.BatchNorm1d(embedding_size, eps=2e-5))

    def forward(self, final: Tensor) -> Tensor:
        """Final map (B, C, H, W), float32, to embedding (B, E)."""
        return super().forward(final)
