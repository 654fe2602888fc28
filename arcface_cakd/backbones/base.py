"""What every backbone has in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.features import FaceFeatures, times_changed
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
        token_stage: the stage whose map the pixel features are, counted from 0; None for the
            final map, which the head reads. See ``take_tokens_from``.
        reads_class_token: whether ``head`` takes a class token (B, C) in place of the final map.
        built_as: the name that ``get_model`` built it by; None where something else did.
        amp_dtype: precision of the body: torch.float16, torch.bfloat16, or None for float32.
            The head, and all that is returned, is float32 at any setting (float64 in a model
            that was cast to float64, as references in tests are).
    """

    embedding_size: int
    token_dim: int | None
    grid: tuple[int, int] | None
    stage_dims: tuple[int, ...]
    token_stage: int | None = None
    reads_class_token: bool = False
    extent: float = float(CROP_SIZE)
    built_as: str | None = None
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

        Raises:
            BackboneError: body or head give something else than they promise, or change what they
                are given in place, which others look at too.
        """
        given = times_changed(images)
        with self.autocast(images.device.type):
            returned = self.body(images)
        if times_changed(images) != given:
            raise BackboneError(
                f"{self._named} changes its images in place in body, and so those that come after "
                "it: let the first operation give a new tensor"
            )
        final, maps = self._checked(returned, stages)
        final = at_least_float32(final)
        given = times_changed(final)
        with autocast(images.device.type, None):
            embedding = self.head(final)
        if times_changed(final) != given:
            raise BackboneError(
                f"{self._named} changes its final map in place in head, and so the pixel features: "
                "let the head's first operation give a new tensor, as with inplace=False"
            )
        return self._features(embedding, final, maps, stages)

    @property
    def _named(self) -> str:
        return f"network {self.built_as or type(self).__name__!r}"

    def _checked(self, returned: Any, stages: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What ``body`` returned, where it is what it promises; ``stages`` where they are used,
        and no widths that are traced."""
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            raise BackboneError(
                f"{self._named} returns a {type(returned).__name__} from body: let it return the "
                "final map (B, C, H, W) and a tuple of the stages' maps"
            )
        final, maps = returned
        maps = tuple(maps or ())
        if torch.jit.is_tracing():
            return final, maps
        used = maps if stages or self.token_stage is not None else ()
        widths = [
            m.shape[1] if isinstance(m, Tensor) and m.dim() == 4 else None for m in (final, *used)
        ]
        as_promised = not stages or tuple(widths[1:]) == tuple(self.stage_dims)
        if None in widths or not as_promised:
            raise BackboneError(
                f"{self._named}: body gives a final map and stages of {widths} channels (None: no "
                f"map (B, C, H, W)), and stage_dims are {self.stage_dims}: let both agree"
            )
        return final, maps

    def _features(
        self, embedding: Tensor, final: Tensor, maps: tuple[Tensor, ...], stages: bool
    ) -> FaceFeatures:
        """What ``forward_features`` returns, of what body and head gave."""
        pixels = final if self.token_stage is None else at_least_float32(maps[self.token_stage])
        height, width = pixels.shape[-2:]
        if not torch.jit.is_tracing():
            self._check_widths(embedding, pixels)
        return FaceFeatures(
            embedding=embedding,
            tokens=pixels.flatten(2).transpose(1, 2),
            grid=(height, width),
            stages=tuple(at_least_float32(m) for m in maps) if stages else (),
        )

    def _check_widths(self, embedding: Any, pixels: Tensor) -> None:
        if not isinstance(embedding, Tensor) or embedding.shape[-1] != self.embedding_size:
            raise BackboneError(
                f"{self._named}: head gives no tensor (B, {self.embedding_size}), which "
                "embedding_size promises: let both agree"
            )
        if pixels.shape[1] != self.token_dim:
            raise BackboneError(
                f"{self._named}: its pixel features have {pixels.shape[1]} channels, and token_dim "
                f"is {self.token_dim}: let both agree"
            )

    def take_tokens_from(self, stage: int) -> None:
        """Make a stage's map the pixel features: ``token_dim``, ``grid`` and ``extent`` follow.

        Args:
            stage: counted from 0. The last stage's are the final map, after what norm or
                convolution stands between that stage and the head; of an earlier one its map as
                it is.

        Raises:
            BackboneError: there is no such stage; the message names those that there are.
        """
        if self.token_dim is None:
            raise BackboneError(f"{type(self).__name__} gives embeddings only, and has no stages")
        final, maps = self._probe()
        maps = (*maps[:-1], final)
        if not 0 <= stage < len(maps):
            there = ", ".join(f"{i} ({m.shape[2]} x {m.shape[3]})" for i, m in enumerate(maps))
            raise BackboneError(f"there is no stage {stage}: it has {there}")
        _, self.token_dim, height, width = maps[stage].shape
        self.grid = (height, width)
        self.extent = self.extent_of([m.shape[-1] for m in maps[: stage + 1]])
        self.token_stage = None if stage == len(maps) - 1 else stage

    def extent_of(self, sides: Sequence[int]) -> float:
        """Pixels of the crop, from its upper left corner, that a stage's map covers.

        Here by the sides alone: where one does not divide the former, convolutions without
        padding leave out the rest, as EdgeNeXt's do from 7 to 3 (96 pixels), and with padding
        nothing is left out, as where a ResNet goes from 7 to 4.

        Args:
            sides: of the stages' maps, from the first to the one in question.
        """
        extent, former = float(CROP_SIZE), CROP_SIZE
        for side in sides:
            stride = max(round(former / side), 1)
            extent *= min(side * stride / former, 1.0)
            former = side
        return extent

    @torch.no_grad()
    def _probe(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What ``body`` gives for one blank face, in eval mode."""
        of = next(self.parameters())
        modes = {module: module.training for module in self.modules()}
        try:
            return self.eval().body(of.new_zeros(1, 3, CROP_SIZE, CROP_SIZE))
        finally:
            for module, training in modes.items():
                module.training = training

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, 112, 112) to embeddings (B, E), float32, not normalised."""
        return self.forward_features(images).embedding
