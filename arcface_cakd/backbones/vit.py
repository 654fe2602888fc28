"""Plain Vision Transformers: arcface_torch's ``vit_*``, and a small one for CPUs.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, arXiv 2010.11929, as arcface_torch
has it for faces: 12 x 12 patches of 9 pixels (the last 4 rows and columns of the crop stay
unseen), no class token, ReLU6 in the MLPs, no biases on queries, keys and values, a head on the
flattened tokens. State-dict keys, parameter order, initial distributions and outputs are
arcface_torch's.

In training most of them see nine tokens in ten: a tenth, drawn for each image, is left out of the
blocks, and a learned token without a place stands there afterwards. arcface_torch does so at any
``mask_ratio`` above zero: its names ending in ``mask_005`` say a twentieth and mask a tenth. So
do ours, since their weights were trained with it.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from arcface_cakd.backbones.base import FaceBackbone
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.precision import autocast
from arcface_cakd.registry import BACKBONES

STAGES = 4  # maps taken from the blocks, at equal steps


class PatchEmbed(nn.Module):
    """Images (B, 3, 112, 112) to (B, N, C), one token for each whole patch, row by row."""

    def __init__(self, patch_size: int, dim: int):
        super().__init__()
        self.patch_size = (patch_size, patch_size)
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention over (B, N, C)."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        # The dropouts never drop here; arcface_torch's files name them in their metadata.
        self.attn_drop = nn.Dropout(0.0)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(*qkv.unbind(0))
        return self.proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Linear, ReLU6, Linear over the last dimension."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.ReLU6()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class StochasticDepth(nn.Module):
    """Drops whole images' residuals with probability ``p`` in training, and scales the others."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = x.new_empty(len(x), 1, 1).bernoulli_(1 - self.p)
        return x * (kept / (1 - self.p))


class Block(nn.Module):
    """LayerNorm, attention, LayerNorm, MLP, with residuals, over (B, N, C)."""

    def __init__(self, dim: int, num_heads: int, drop_path: float, mlp_ratio: int = 4):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads)
        self.drop_path = StochasticDepth(drop_path) if drop_path else nn.Identity()
        self.mlp = Mlp(dim, mlp_ratio * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class VisionTransformer(FaceBackbone):
    """The Vision Transformer of arcface_torch.

    Pixel features are the tokens after the last norm; the stages are what four blocks at equal
    steps leave. In training with ``mask_ratio`` the tokens of a masked place are the learned
    mask token, and zero in the stages' maps.

    In arcface_torch the blocks always run in float16 on a GPU; here they do with ``fp16`` or
    another ``amp_dtype``. Patches are embedded in full precision, and residuals add up in it.

    Args:
        num_features: E, the width of the embedding.
        embed_dim: C, the width of the tokens.
        depth: number of blocks.
        num_heads: attention heads of each block.
        patch_size: pixels across a patch.
        mlp_ratio: width inside the MLPs, in widths of the tokens.
        drop_path: stochastic depth of the last block; it grows linearly from 0.
        mask_ratio: share of the tokens that training leaves out.
        checkpointing: whether training recomputes each block in its backward pass, which costs
            a third more time and saves most of the memory.
        dropout: probability of dropping an entry of the flattened tokens.
        fp16: whether the blocks run in float16.
    """

    token_dim: int
    grid: tuple[int, int]

    def __init__(
        self,
        num_features: int,
        embed_dim: int,
        depth: int,
        num_heads: int = 8,
        *,
        patch_size: int = 9,
        mlp_ratio: int = 4,
        drop_path: float = 0.1,
        mask_ratio: float = 0.1,
        checkpointing: bool = False,
        dropout: float = 0.0,
        fp16: bool = False,
    ):
        super().__init__()
        from timm.layers import trunc_normal_  # its draws are not those of newer torch's own

        side = CROP_SIZE // patch_size
        self.embedding_size = num_features
        self.token_dim = embed_dim
        self.grid = (side, side)
        self.extent = float(side * patch_size)  # 108 of 112 pixels with patches of 9
        stages = min(depth, STAGES)
        self.taps = [depth * (i + 1) // stages - 1 for i in range(stages)]
        self.stage_dims = (embed_dim,) * stages
        self.amp_dtype = torch.float16 if fp16 else None
        self.mask_ratio = mask_ratio
        self.checkpointing = checkpointing
        self.dropout = dropout

        self.patch_embed = PatchEmbed(patch_size, embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, side * side, embed_dim))
        self.pos_drop = nn.Dropout(0.0)
        steps = max(depth - 1, 1)
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, drop_path * i / steps, mlp_ratio) for i in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.feature = nn.Sequential(
            nn.Linear(side * side * embed_dim, embed_dim, bias=False),
            nn.BatchNorm1d(embed_dim, eps=2e-5),
            nn.Linear(embed_dim, num_features, bias=False),
            nn.BatchNorm1d(num_features, eps=2e-5),
        )
        # Without masking it is only there for the files: no gradient ever reaches it.
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dim), requires_grad=mask_ratio > 0)
        nn.init.normal_(self.mask_token, std=0.02)
        trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def embed(self, images: Tensor) -> Tensor:
        """Images (B, 3, 112, 112) to what enters the first block, (B, N, C), all N tokens."""
        with autocast(images.device.type, None):
            return self.patch_embed(images) + self.pos_embed

    def body(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = self.embed(images)
        kept = None
        if self.training and self.mask_ratio > 0:
            kept = self._draw(x)
            x = _take(x, kept)
        maps = []
        for i, block in enumerate(self.blocks):
            if self.checkpointing and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
            if i in self.taps:
                maps.append(self._as_map(x, kept, x.new_zeros(())))
        return self._as_map(self.norm(x), kept, self.mask_token), tuple(maps)

    def extent_of(self, sides: Sequence[int]) -> float:
        return self.extent  # all maps are of the same patches

    def head(self, final: Tensor) -> Tensor:
        # Token by token, not channel by channel, as the weights of arcface_torch have it.
        flat = final.flatten(2).transpose(1, 2).flatten(1)
        return self.feature(F.dropout(flat, self.dropout, self.training))

    def _draw(self, x: Tensor) -> Tensor:
        """The places (B, kept) that each image keeps, in the order of arcface_torch's draw."""
        batch, places, _ = x.shape
        order = torch.rand(batch, places, device=x.device).argsort(1)
        return order[:, : int(places * (1 - self.mask_ratio))]

    def _as_map(self, tokens: Tensor, kept: Tensor | None, masked: Tensor) -> Tensor:
        """Tokens (B, N or kept, C) as (B, C, H, W), with ``masked`` at the places left out."""
        if kept is not None:
            shape = (len(tokens), self.grid[0] * self.grid[1], self.token_dim)
            full = masked.to(tokens.dtype).expand(shape)
            tokens = full.scatter(1, kept.unsqueeze(-1).expand_as(tokens), tokens)
        return tokens.transpose(1, 2).unflatten(2, self.grid)


def _take(x: Tensor, places: Tensor) -> Tensor:
    return x.gather(1, places.unsqueeze(-1).expand(-1, -1, x.shape[2]))


def _register(name: str, summary: str, **shape) -> Callable[..., VisionTransformer]:
    @BACKBONES.register(name)
    def factory(
        dropout: float = 0.0, fp16: bool = False, num_features: int = 512
    ) -> VisionTransformer:
        return VisionTransformer(num_features, dropout=dropout, fp16=fp16, **shape)

    factory.__name__, factory.__doc__ = name, summary
    return factory


vit_t = _register(
    "vit_t",
    "ViT-T (Dosovitskiy et al., ICLR 2021): 10 M parameters without the head.",
    embed_dim=256,
    depth=12,
)
vit_t_dp005_mask0 = _register(
    "vit_t_dp005_mask0",
    "ViT-T for large data: less stochastic depth, no masking.",
    embed_dim=256,
    depth=12,
    drop_path=0.05,
    mask_ratio=0.0,
)
vit_s = _register(
    "vit_s",
    "ViT-S (Dosovitskiy et al., ICLR 2021): 38 M parameters without the head.",
    embed_dim=512,
    depth=12,
)
vit_s_dp005_mask_0 = _register(
    "vit_s_dp005_mask_0",
    "ViT-S for large data: less stochastic depth, no masking.",
    embed_dim=512,
    depth=12,
    drop_path=0.05,
    mask_ratio=0.0,
)
vit_b = _register(
    "vit_b",
    "ViT-B (Dosovitskiy et al., ICLR 2021): 76 M parameters without the head, checkpointed.",
    embed_dim=512,
    depth=24,
    checkpointing=True,
)
vit_b_dp005_mask_005 = _register(
    "vit_b_dp005_mask_005",
    "ViT-B for large data: less stochastic depth.",
    embed_dim=512,
    depth=24,
    drop_path=0.05,
    checkpointing=True,
)
vit_l_dp005_mask_005 = _register(
    "vit_l_dp005_mask_005",
    "ViT-L (Dosovitskiy et al., ICLR 2021): 170 M parameters without the head, checkpointed.",
    embed_dim=768,
    depth=24,
    drop_path=0.05,
    checkpointing=True,
)
vit_h = _register(
    "vit_h",
    "ViT-H (Dosovitskiy et al., ICLR 2021): 604 M parameters without the head, checkpointed.",
    embed_dim=1024,
    depth=48,
    mask_ratio=0.0,
    checkpointing=True,
)
vit_mini = _register(
    "vit_mini",
    "A ViT for CPUs: 49 patches of 16 pixels, 0.25 M parameters without the head.",
    embed_dim=64,
    depth=4,
    num_heads=4,
    patch_size=16,
    drop_path=0.0,
    mask_ratio=0.0,
)
