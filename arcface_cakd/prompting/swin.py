"""Prompts in Swin Transformers, v1 and v2, in timm's layout.

How prompts take part in window attention follows Visual Prompt Tuning (Jia et al., ECCV 2022).
What differs from the published code of that work: its prompts are laid out window-major where
the windows are batch-major, so that prompts of one image reach its batch-mates. Here they never
do. That work has no Swin v2 (Liu et al., CVPR 2022); here prompts take part in its cosine
attention like patches, without a position bias, and what they are told by the windows is
averaged before the norm that v2 has after attention.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_cakd.backbones import FaceBackbone
from arcface_cakd.precision import at_least_float32, autocast
from arcface_cakd.prompting.route import Begun, Prompted, Route, run_block

if TYPE_CHECKING:
    from timm.models.swin_transformer import SwinTransformerBlock, WindowAttention
    from timm.models.swin_transformer_v2 import SwinTransformerV2Block
    from timm.models.swin_transformer_v2 import WindowAttention as WindowAttentionV2
    from typing_extensions import TypeIs

    SwinBlock = SwinTransformerBlock | SwinTransformerV2Block
    SwinAttention = WindowAttention | WindowAttentionV2

MAX_LOGIT_SCALE = math.log(100.0)  # of cosine attention, in Swin v2


class SwinRoute(Route):
    """Places are stages; patch merging takes patches alone, so no prompt goes on to the next.

    Stages after the first place that carry no prompts are the plain teacher's.
    """

    unit = "stage"
    carries_on = False

    def __init__(self):
        self._biases: dict[tuple[int, int], _HeldBias] = {}

    @classmethod
    def takes(cls, teacher: FaceBackbone) -> bool:
        from timm.models.swin_transformer import SwinTransformer
        from timm.models.swin_transformer_v2 import SwinTransformerV2

        return isinstance(getattr(teacher, "trunk", None), SwinTransformer | SwinTransformerV2)

    def widths(self, teacher: FaceBackbone) -> list[int]:
        return [stage.blocks[0].dim for stage in _trunk(teacher).layers]

    def patch_size(self, teacher: FaceBackbone) -> tuple[int, int]:
        return _trunk(teacher).patch_embed.patch_size

    def begin(self, teacher: FaceBackbone, images: Tensor, first: int) -> Begun:
        swin = _trunk(teacher)
        maps = []
        with torch.no_grad():
            patches = swin.patch_embed(images)
            for stage in swin.layers[:first]:
                patches = stage(patches)
                maps.append(patches.permute(0, 3, 1, 2))
        return Begun(patches, tuple(maps))

    def finish(
        self,
        teacher: FaceBackbone,
        begun: Begun,
        first: int,
        prompts: dict[int, Tensor],
        recompute: bool,
    ) -> Prompted:
        swin = _trunk(teacher)
        dtype = teacher.amp_dtype or swin.patch_embed.proj.weight.dtype
        patches, maps = begun.tokens, list(begun.maps)
        carried = None
        for i, stage in enumerate(swin.layers[first:], first):
            patches = stage.downsample(patches)
            carried = prompts.get(i)
            for j, block in enumerate(stage.blocks):
                if carried is None:
                    patches = run_block(recompute, block, patches)
                    continue
                grid = patches.shape[1:3]
                bias = self._bias((i, j), block, grid, carried.shape[1], dtype)
                patches, carried = run_block(
                    recompute, prompted_block, block, patches, carried, bias
                )
            maps.append(patches.permute(0, 3, 1, 2))
        if carried is None:
            carried = patches.new_empty(len(patches), 0, patches.shape[-1])
        final = swin.norm(patches).permute(0, 3, 1, 2)
        return Prompted(final, tuple(maps), swin.norm(carried))

    def _bias(
        self,
        place: tuple[int, int],
        block: SwinBlock,
        grid: tuple[int, int],
        num_tokens: int,
        dtype: torch.dtype,
    ) -> Tensor:
        """``attention_bias`` of the block at ``place``, kept for as long as it holds."""
        sources = _bias_sources(block.attn)
        held = self._biases.get(place)
        if held is None or not held.is_of(sources, dtype):
            bias = attention_bias(block, grid, num_tokens, dtype)
            held = self._biases[place] = _HeldBias(sources, bias)
        return held.bias


def _trunk(teacher: FaceBackbone) -> Any:
    """timm's model in a teacher; to type checkers all modules inside of it are alike."""
    return teacher.trunk


class _HeldBias:
    """A bias, and what it was computed from; loading weights or moving the teacher outdates it."""

    def __init__(self, sources: tuple[Tensor, ...], bias: Tensor):
        self.sources = sources
        self.versions = [source._version for source in sources]
        self.bias = bias

    def is_of(self, sources: tuple[Tensor, ...], dtype: torch.dtype) -> bool:
        return (
            all(one is other for one, other in zip(self.sources, sources, strict=True))
            and self.versions == [source._version for source in sources]
            and self.bias.device == sources[0].device
            and self.bias.dtype == dtype
        )


def prompted_block(
    block: SwinBlock, patches: Tensor, prompts: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """One Swin block over patches and prompts.

    Args:
        block: timm's block, whose sub-modules are used as they are.
        patches: (B, H, W, C).
        prompts: (B, t, C).
        bias: what ``attention_bias(block, (H, W), t)`` gives, in the dtype of the attention.

    Returns:
        patches and prompts after the block, in the shapes they came in.
    """
    if _is_v2(block.attn):  # norms stand after attention and MLP, not before
        changes = _window_attention(block, patches, prompts, bias)

        def finish(tokens: Tensor, change: Tensor) -> Tensor:
            tokens = tokens + block.drop_path1(block.norm1(change))
            return tokens + block.drop_path2(block.norm2(block.mlp(tokens)))

    else:
        changes = _window_attention(block, block.norm1(patches), block.norm1(prompts), bias)

        def finish(tokens: Tensor, change: Tensor) -> Tensor:
            tokens = tokens + block.drop_path1(change)
            return tokens + block.drop_path2(block.mlp(block.norm2(tokens)))

    return finish(patches, changes[0]), finish(prompts, changes[1])


def _window_attention(
    block: SwinBlock, patches: Tensor, prompts: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """(Shifted-)window attention in which every window also holds its image's prompts.

    Windows that do not tile the grid stand over its edge, as in timm, with zeros there.

    Projections are linear, so those of the prompts are computed once per image, not once per
    window: q, k, v before they go to the windows, and the output after the mean over windows.
    """
    attn = block.attn
    batch, height, width, dim = patches.shape
    t = prompts.shape[1]
    win_h, win_w = block.window_size
    rows, columns = _windows(block, (height, width))
    padding = (0, 0, 0, columns * win_w - width, 0, rows * win_h - height)
    shift_h, shift_w = block.shift_size
    if shift_h or shift_w:
        patches = torch.roll(patches, (-shift_h, -shift_w), (1, 2))
    if any(padding):
        patches = F.pad(patches, padding)

    windows = patches.view(batch, rows, win_h, columns, win_w, dim).transpose(2, 3)
    windows = windows.reshape(batch, rows * columns, win_h * win_w, dim)
    own = _queries_keys_values(attn, windows)
    shared = _queries_keys_values(attn, prompts)
    # The batch stands before the windows, in patches and prompts alike: images do not mix.
    shared = shared.unsqueeze(1).expand(-1, rows * columns, -1, -1, -1, -1)
    # Windows go where heads are, so that one bias without a batch serves all images.
    order = (3, 0, 1, 4, 2, 5)  # (q k v, B, windows, heads, tokens, d)
    qkv = torch.cat([shared.permute(order), own.permute(order)], dim=4).flatten(2, 3)
    queries, keys, values = qkv.unbind(0)
    out = F.scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=bias.unsqueeze(0),  # of three dimensions it would keep torch from fusing all this
        dropout_p=attn.attn_drop.p if attn.training else 0.0,
        scale=1.0 if _is_v2(attn) else attn.scale,
    )

    out = out.unflatten(1, (rows * columns, attn.num_heads))  # (B, windows, heads, tokens, d)
    shared = out[..., :t, :].mean(1).transpose(1, 2).flatten(2)
    own = out[..., t:, :].unflatten(1, (rows, columns)).unflatten(4, (win_h, win_w))
    own = own.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, rows * win_h, columns * win_w, -1)
    own = own[:, :height, :width]
    if shift_h or shift_w:
        own = torch.roll(own, (shift_h, shift_w), (1, 2))
    return attn.proj_drop(attn.proj(own)), attn.proj_drop(attn.proj(shared))


def _queries_keys_values(attn: SwinAttention, tokens: Tensor) -> Tensor:
    """(..., C) to (..., 3, heads, d), such that logits are products of queries and keys."""
    if not _is_v2(attn):
        return attn.qkv(tokens).unflatten(-1, (3, attn.num_heads, -1))
    bias = None
    if attn.q_bias is not None:
        bias = torch.cat((attn.q_bias, attn.get_buffer("k_bias"), attn.v_bias))
    qkv = F.linear(tokens, attn.qkv.weight, bias).unflatten(-1, (3, attn.num_heads, -1))
    queries, keys, values = qkv.unbind(-3)
    scale = attn.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp().squeeze(-1)  # (heads, 1)
    queries = F.normalize(at_least_float32(queries), dim=-1) * scale
    keys = F.normalize(at_least_float32(keys), dim=-1)
    return torch.stack([queries.to(values.dtype), keys.to(values.dtype), values], dim=-3)


def _windows(block: SwinBlock, grid: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the windows that cover the grid."""
    height, width = grid
    win_h, win_w = block.window_size
    return math.ceil(height / win_h), math.ceil(width / win_w)


def attention_bias(
    block: SwinBlock,
    grid: tuple[int, int],
    num_tokens: int,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """What a block adds to its attention logits: relative position bias and shift mask.

    Both are zero wherever a prompt asks or is asked.

    Args:
        block: timm's block.
        grid: height and width of the map that the block is for.
        num_tokens: t, prompts in front of each window's own tokens.
        dtype: of the result; None means that of the block's weights.

    Returns:
        (windows * heads, t + window area, t + window area), without a graph.
    """
    attn = block.attn
    win_h, win_w = block.window_size
    area = win_h * win_w
    rows, columns = _windows(block, grid)
    device = attn.proj.weight.device
    # A mask made in inference mode could not be saved for a later backward pass.
    with torch.inference_mode(False), torch.no_grad(), autocast(device.type, None):
        bias = _bias_table(attn)[attn.get_buffer("relative_position_index").flatten()]
        bias = bias.view(area, area, -1).permute(2, 0, 1)
        # Of the map, timm asks for the shape alone.
        mask = block.get_attn_mask(bias.new_empty(1, rows * win_h, columns * win_w, 1))
        if mask is None:  # the block does not shift
            bias = bias.expand(rows * columns, -1, -1, -1)
        else:
            bias = bias + mask.unsqueeze(1)
        return F.pad(bias, (num_tokens, 0, num_tokens, 0)).flatten(0, 1).to(dtype or bias.dtype)


def _is_v2(attn: SwinAttention) -> TypeIs[WindowAttentionV2]:
    return hasattr(attn, "logit_scale")


def _bias_sources(attn: SwinAttention) -> tuple[Tensor, ...]:
    """The parameters that the position bias comes from."""
    if _is_v2(attn):
        return tuple(attn.cpb_mlp.parameters())
    return (attn.relative_position_bias_table,)


def _bias_table(attn: SwinAttention) -> Tensor:
    """Position bias by relative position, (positions, heads)."""
    if _is_v2(attn):
        return 16 * attn.cpb_mlp(attn.relative_coords_table).view(-1, attn.num_heads).sigmoid()
    return attn.relative_position_bias_table
