"""Swin Transformers for 112 x 112 faces, on timm."""

import torch
from torch import Tensor

from arcface_cakd.backbones.base import FaceBackbone
from arcface_cakd.backbones.heads import FlattenHead
from arcface_cakd.backbones.timm_grid import TimmGrid, build
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.registry import BACKBONES


class Swin(FaceBackbone):
    """A Swin Transformer (Liu et al., ICCV 2021) with a face head.

    With patches of 2 pixels and windows of 7 the grids of four stages are 56, 28, 14 and 7, those
    of IResNet's stages; 49 tokens come out. State-dict keys are ``trunk.`` + timm's own, and
    ``feature.`` + the head's.

    Args:
        embed_dim: width of the first stage; each further stage doubles it.
        depths: blocks of each stage.
        num_heads: attention heads of each stage.
        patch_size: pixels across a patch.
        hidden: width inside the head; None means that of the last stage.
        drop_path: stochastic depth of the last block; it grows linearly from 0.
        dropout: on the flattened final map.
        fp16: whether the body runs in float16.
        num_features: E, the width of the embedding.
    """

    def __init__(
        self,
        embed_dim: int,
        depths: tuple[int, ...],
        num_heads: tuple[int, ...],
        *,
        patch_size: int = 2,
        hidden: int | None = None,
        drop_path: float = 0.1,
        dropout: float = 0.0,
        fp16: bool = False,
        num_features: int = 512,
    ):
        super().__init__()
        from timm.models.swin_transformer import SwinTransformer

        self.trunk = SwinTransformer(
            img_size=CROP_SIZE,
            patch_size=patch_size,
            num_classes=0,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            window_size=7,
            drop_path_rate=drop_path,
        )
        side = CROP_SIZE // patch_size // 2 ** (len(depths) - 1)
        self.embedding_size = num_features
        self.token_dim = self.trunk.num_features
        self.grid = (side, side)
        self.stage_dims = tuple(embed_dim * 2**i for i in range(len(depths)))
        self.amp_dtype = torch.float16 if fp16 else None
        self.feature = FlattenHead(self.token_dim, self.grid, num_features, hidden, dropout)

    def body(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = self.trunk.patch_embed(images)  # (B, H, W, C), as all maps inside timm's Swin
        stages = []
        for layer in self.trunk.layers:
            x = layer(x)
            stages.append(x.permute(0, 3, 1, 2))
        return self.trunk.norm(x).permute(0, 3, 1, 2), tuple(stages)

    def head(self, final: Tensor) -> Tensor:
        return self.feature(final)


@BACKBONES.register("swin_t")
def swin_t(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> Swin:
    """Swin-T (Liu et al., ICCV 2021), patches of 2: 28 M parameters without the head."""
    return Swin(
        96, (2, 2, 6, 2), (3, 6, 12, 24), dropout=dropout, fp16=fp16, num_features=num_features
    )


@BACKBONES.register("swin_s")
def swin_s(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> Swin:
    """Swin-S (Liu et al., ICCV 2021), patches of 2: 49 M parameters without the head."""
    return Swin(
        96, (2, 2, 18, 2), (3, 6, 12, 24), dropout=dropout, fp16=fp16, num_features=num_features
    )


@BACKBONES.register("swin_b")
def swin_b(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> Swin:
    """Swin-B (Liu et al., ICCV 2021), patches of 2: 87 M parameters without the head."""
    return Swin(
        128, (2, 2, 18, 2), (4, 8, 16, 32), dropout=dropout, fp16=fp16, num_features=num_features
    )


@BACKBONES.register("swinv2_t")
def swinv2_t(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> TimmGrid:
    """Swin v2 T (Liu et al., CVPR 2022), timm's, with patches of 2 and windows of 7: 28 M."""
    sizes = {"patch_size": 2, "window_size": 7}
    return build("swinv2_tiny_window8_256", dropout, fp16, num_features, **sizes)


@BACKBONES.register("swin_mini")
def swin_mini(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> Swin:
    """A Swin for CPUs: three stages, patches of 4, grids 28, 14 and 7."""
    return Swin(
        32,
        (2, 2, 2),
        (1, 2, 4),
        patch_size=4,
        hidden=64,
        drop_path=0.0,
        dropout=dropout,
        fp16=fp16,
        num_features=num_features,
    )
