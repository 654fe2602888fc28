"""What the ways of prompts through different Transformers have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from arcface_cakd.backbones import FaceBackbone
from arcface_cakd.errors import ArcfaceCakdError


class PromptingError(ArcfaceCakdError):
    """A teacher, or images, that prompts cannot be used with."""


class Prompted(NamedTuple):
    """What a teacher's body gives with prompts.

    Attributes:
        final: the final map (B, C, H, W).
        maps: those of the stages.
        prompts: the final prompts (B, t, C); none (B, 0, C) where the last stage carries none.
        class_token: (B, C), of a network that has one.
    """

    final: Tensor
    maps: tuple[Tensor, ...]
    prompts: Tensor
    class_token: Tensor | None = None


class Begun(NamedTuple):
    """What a teacher's body gives before the first place, with prompts or without; no graph.

    Attributes:
        tokens: what enters the first place, as the kind of network has it.
        maps: those of the stages so far.
    """

    tokens: Tensor
    maps: tuple[Tensor, ...]


class Route(ABC):
    """The way of prompts through one kind of Transformer.

    A route holds no teacher, only what it may keep from one pass to the next. Prompts enter at
    places, counted from 0: the stages or blocks of the teacher.

    Attributes:
        unit: what a place is called in messages.
        carries_on: whether prompts go on to places that no fresh ones enter.
    """

    unit: str
    carries_on: bool

    @classmethod
    @abstractmethod
    def takes(cls, teacher: FaceBackbone) -> bool:
        """Whether the teacher is of this route's kind."""

    @abstractmethod
    def widths(self, teacher: FaceBackbone) -> list[int]:
        """The width of the tokens at each place."""

    @abstractmethod
    def patch_size(self, teacher: FaceBackbone) -> tuple[int, int]:
        """Height and width of a patch, in pixels."""

    @abstractmethod
    def begin(self, teacher: FaceBackbone, images: Tensor, first: int) -> Begun:
        """The body of the teacher before a place.

        Args:
            teacher: frozen and in eval mode.
            images: (B, 3, 112, 112).
            first: the place.
        """

    @abstractmethod
    def finish(
        self,
        teacher: FaceBackbone,
        begun: Begun,
        first: int,
        prompts: dict[int, Tensor],
        recompute: bool,
    ) -> Prompted:
        """The body of the teacher from a place on, with prompts, or as it is where there are none.

        Args:
            teacher: the same.
            begun: what ``begin`` gave for ``first``.
            first: the first place that prompts enter.
            prompts: (B, t, d_i) by the place i where they enter.
            recompute: whether blocks are recomputed in the backward pass, not remembered.
        """


def run_block(recompute: bool, block: Callable, *inputs: Any) -> Any:
    """``block(*inputs)``, recomputed in the backward pass if it is to be and there is one."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)
