"""Prompts in plain Vision Transformers: arcface_torch's and timm's.

VPT-deep of Visual Prompt Tuning (Jia et al., ECCV 2022): in a plain ViT prompts are tokens like
all others. A block has no notion of place, so it is used as it is, on a longer sequence:
class and register tokens, prompts, patches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arcface_cakd.backbones import FaceBackbone
from arcface_cakd.backbones.vit import VisionTransformer
from arcface_cakd.prompting.route import Begun, Prompted, PromptingError, Route, run_block


@dataclass(frozen=True)
class _PlainViT:
    """The parts of a ViT.

    Attributes:
        embed: images to the tokens (B, P + N, C) that enter the first block, none left out.
        prefix: P, the tokens in front of the patches.
    """

    embed: Callable[[Tensor], Tensor]
    blocks: nn.ModuleList | nn.Sequential
    norm: nn.Module
    prefix: int
    patch_size: tuple[int, int]


class VitRoute(Route):
    """Places are blocks. Where fresh prompts enter, those that came along are dropped."""

    unit = "block"
    carries_on = True

    @classmethod
    def takes(cls, teacher: FaceBackbone) -> bool:
        return _find_parts(teacher) is not None

    def widths(self, teacher: FaceBackbone) -> list[int]:
        width, _ = teacher.map_shape
        return [width] * len(_parts(teacher).blocks)

    def patch_size(self, teacher: FaceBackbone) -> tuple[int, int]:
        return _parts(teacher).patch_size

    def begin(self, teacher: FaceBackbone, images: Tensor, first: int) -> Begun:
        vit = _parts(teacher)
        taps = _taps(teacher)
        _, grid = teacher.map_shape
        maps = []
        with torch.no_grad():
            x = vit.embed(images)
            for i, block in enumerate(vit.blocks[:first]):
                x = block(x)
                if i in taps:
                    maps.append(_as_map(x[:, vit.prefix :], grid))
        return Begun(x, tuple(maps))

    def finish(
        self,
        teacher: FaceBackbone,
        begun: Begun,
        first: int,
        prompts: dict[int, Tensor],
        recompute: bool,
    ) -> Prompted:
        vit = _parts(teacher)
        taps = _taps(teacher)
        _, grid = teacher.map_shape
        x, maps, carried = begun.tokens, list(begun.maps), 0
        for i, block in enumerate(vit.blocks[first:], first):
            if i in prompts:
                fixed, patches = x[:, : vit.prefix], x[:, vit.prefix + carried :]
                x = torch.cat([fixed, prompts[i], patches], dim=1)
                carried = prompts[i].shape[1]
            x = run_block(recompute, block, x)
            if i in taps:
                maps.append(_as_map(x[:, vit.prefix + carried :], grid))
        x = vit.norm(x)
        prefix, final_prompts, patches = x.split(
            [vit.prefix, carried, x.shape[1] - vit.prefix - carried], dim=1
        )
        token = prefix[:, 0] if vit.prefix else None  # class tokens come before registers
        return Prompted(_as_map(patches, grid), tuple(maps), final_prompts, token)


def _taps(teacher: FaceBackbone) -> set[int]:
    """The blocks whose maps are the stages'."""
    depth, stages = len(_parts(teacher).blocks), len(teacher.stage_dims)
    return {depth * (i + 1) // stages - 1 for i in range(stages)}


def _as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, grid)


def _parts(teacher: FaceBackbone) -> _PlainViT:
    """The parts of a teacher that is a plain ViT."""
    parts = _find_parts(teacher)
    if parts is None:
        raise PromptingError(f"{type(teacher).__name__} is no plain ViT")
    return parts


def _find_parts(teacher: FaceBackbone) -> _PlainViT | None:
    """The parts of a teacher that is a plain ViT; of others None."""
    if isinstance(teacher, VisionTransformer):
        patch = teacher.patch_embed.patch_size
        return _PlainViT(teacher.embed, teacher.blocks, teacher.norm, 0, patch)
    from timm.models.vision_transformer import VisionTransformer as TimmViT

    trunk = getattr(teacher, "trunk", None)
    if not isinstance(trunk, TimmViT):
        return None

    def embed(images: Tensor) -> Tensor:
        # Without timm's patch_drop, which leaves patches out in training.
        return trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(images)))

    # A hybrid's patches are of the map that its convolutions make: in pixels they are larger.
    patch = trunk.patch_embed.feat_ratio(as_scalar=False)
    return _PlainViT(embed, trunk.blocks, trunk.norm, trunk.num_prefix_tokens, patch)
