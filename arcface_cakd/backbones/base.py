"""What every backbone has in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.features import FaceFeatures
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.precision import at_least_float32, autocast


class BackboneError(ArcfaceCakdError):
    """A network that cannot be built as asked; the message names the network and the setting."""


class FaceBackbone(nn.Module, ABC):
    """A face recognition network for aligned crops: (B, 3, 112, 112) in [-1, 1] to (B, E).

    A subclass sets the attributes below, computes in ``body`` and ``head``, and keeps its
    state-dict keys those of the published architecture.

    Attributes:
        embedding_size: E, the width of the embedding.
        token_dim: C, the width of the pixel features; None in a teacher that has embeddings only.
        grid: (H, W) of the pixel features, or None likewise.
        extent: pixels of the crop that the grid covers, from its upper left corner; less than all
            where patches do not tile it.
        stage_dims: channels of each intermediate map, first stage first.
        amp_dtype: precision of the body: torch.float16, torch.bfloat16, or None for float32.
            The head, and all that is returned, is float32 at any setting (float64 in a model
            that was cast to float64, as references in tests are).
    """

    embedding_size: int
    token_dim: int | None
    grid: tuple[int, int] | None
    stage_dims: tuple[int, ...]
    extent: float = float(CROP_SIZE)
    amp_dtype: torch.dtype | None = None

    @property
    def map_shape(self) -> tuple[int, tuple[int, int]]:
        """``token_dim`` and ``grid``, of a network that has pixel features.

        Raises:
            BackboneError: it gives embeddings only.
        """
        if self.token_dim is None or self.grid is None:
            raise BackboneError(f"{type(self).__name__} gives embeddings only, no pixel features")
        return self.token_dim, self.grid

    @abstractmethod
    def body(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Images to the final map (B, C, H, W) and the maps of the stages."""

    @abstractmethod
    def head(self, final: Tensor) -> Tensor:
        """Final map (B, C, H, W), float32, to embedding (B, E)."""

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict in this network's keys, of one in those that others publish it with.

        Keys that are neither come back as they are: what does not fit is for strict loading to say.
        """
        return dict(state)

    def autocast(self, device_type: str) -> AbstractContextManager:
        """The precision of the body as a context; at float32 it switches autocast off."""
        return autocast(device_type, self.amp_dtype)

    def forward_features(self, images: Tensor, stages: bool = False) -> FaceFeatures:
        """Embedding, pixel features and, where asked for, the stages' maps; all float32.

        Args:
            images: (B, 3, 112, 112) float32 in [-1, 1], RGB.
            stages: whether to return the intermediate maps.
        """
        with self.autocast(images.device.type):
            final, maps = self.body(images)
        final = at_least_float32(final)
        height, width = final.shape[-2:]
        with autocast(images.device.type, None):
            embedding = self.head(final)
        return FaceFeatures(
            embedding=embedding,
            tokens=final.flatten(2).transpose(1, 2),
            grid=(height, width),
            stages=tuple(at_least_float32(m) for m in maps) if stages else (),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, 112, 112) to embeddings (B, E), float32, not normalised."""
        return self.forward_features(images).embedding
