"""APT, the Adaptable Prompting Teacher: learnable tokens in a frozen Swin.

Zhao et al., ACM MM 2023 (arXiv 2306.14662): the teacher stays as it is, and t prompts that enter
each of its stages learn, beside the student, what makes it teach well. How prompts take part in
window attention follows Visual Prompt Tuning (Jia et al., ECCV 2022). What differs from the
published code of that work: its prompts are laid out window-major where the windows are
batch-major, so that prompts of one image reach its batch-mates. Here they never do.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_cakd.backbones import FaceBackbone
from arcface_cakd.backbones._base import full_precision
from arcface_cakd.config.settings import Range
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.features import FaceFeatures
from arcface_cakd.registry import SECTIONS

if TYPE_CHECKING:
    from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock


class PromptingError(ArcfaceCakdError):
    """A teacher, or images, that prompts cannot be used with."""


@SECTIONS.register("prompts")
class AdaptablePrompts(nn.Module):
    """t learnable prompts for each stage of a frozen Swin teacher.

    Stage i computes [x, p] = B_i([x, p_i]): the prompts p_i take part in its (shifted-)window
    attention and its MLPs as tokens without a place. Patch merging takes x alone, and the next
    stage starts with prompts of its own. The final patches and the final prompts, both through
    the teacher's last norm, are the teacher's pixel features; its head sees patches only.

    Only the prompts are parameters, and only they are in the state dict: ``prompts.<stage>``,
    (t, d_i), initialised from U(-v, v) with v = sqrt(6 / (3 * patch_h * patch_w + d_i)). The
    teacher is an argument of ``forward``: it is never changed.

    Args:
        teacher: a Swin: ``swin_t``, ``swin_s``, ``swin_b``, ``swin_mini``, ``timm:swin_*``.
        num_tokens: t, prompts per stage; with 0 the features are the plain teacher's.
        dropout: probability of dropping an entry of the learnable prompts, in training.

    Raises:
        PromptingError: the teacher is no Swin, or has windows that do not tile its grids.
    """

    def __init__(
        self,
        teacher: FaceBackbone,
        *,
        num_tokens: Annotated[int, Range(0)] = 8,
        dropout: Annotated[float, Range(0.0, 1.0)] = 0.0,
    ):
        super().__init__()
        swin = _swin_of(teacher)
        _check_windows(swin)
        self.num_tokens = num_tokens
        self.dropout = dropout
        self.patch_size = swin.patch_embed.patch_size
        self.prompts = nn.ParameterList(
            nn.Parameter(torch.empty(num_tokens, dim)) for dim in _stage_dims(swin)
        )
        self._biases: dict[tuple[int, int], _HeldBias] = {}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the prompts anew, as Visual Prompt Tuning does."""
        for prompt in self.prompts:
            bound = math.sqrt(6 / (3 * math.prod(self.patch_size) + prompt.shape[1]))
            nn.init.uniform_(prompt, -bound, bound)

    def forward(self, teacher: FaceBackbone, images: Tensor, stages: bool = False) -> FaceFeatures:
        """Features of the prompted teacher, in its own precision, returned in float32.

        Args:
            teacher: the teacher that these prompts were made for, or one of the same shape;
                frozen and in eval mode.
            images: (B, 3, 112, 112) float32 in [-1, 1], RGB.
            stages: whether to return the map of each stage (patches only).

        Returns:
            embedding (B, E) and tokens (B, N, C) of the patches; prompts (B, t, C).

        Raises:
            PromptingError: the images or the teacher are not of the right shape.
        """
        swin = _swin_of(teacher)
        self._check(swin, images)
        if self.num_tokens == 0:
            plain = teacher.forward_features(images, stages)
            return replace(plain, prompts=plain.tokens[:, :0])
        dtype = teacher.amp_dtype or swin.patch_embed.proj.weight.dtype
        maps = []
        with teacher.autocast(images.device.type):
            patches = swin.patch_embed(images)
            for i, (stage, learned) in enumerate(zip(swin.layers, self.prompts, strict=True)):
                patches = stage.downsample(patches)
                prompts = F.dropout(learned, self.dropout, self.training)
                prompts = prompts.expand(len(images), -1, -1)
                for j, block in enumerate(stage.blocks):
                    bias = self._bias((i, j), block, dtype)
                    patches, prompts = prompted_block(block, patches, prompts, bias)
                maps.append(patches.permute(0, 3, 1, 2))
            final = swin.norm(patches).permute(0, 3, 1, 2)
            prompts = swin.norm(prompts)
        final = full_precision(final)
        with torch.autocast(images.device.type, enabled=False):
            embedding = teacher.head(final)
        return FaceFeatures(
            embedding=embedding,
            tokens=final.flatten(2).transpose(1, 2),
            grid=tuple(final.shape[-2:]),
            prompts=full_precision(prompts),
            stages=tuple(full_precision(m) for m in maps) if stages else (),
        )

    def _check(self, swin: SwinTransformer, images: Tensor) -> None:
        expected = tuple(swin.patch_embed.img_size)
        if tuple(images.shape[-2:]) != expected:
            raise PromptingError(
                f"the prompted teacher takes images of {expected[0]} x {expected[1]} pixels, "
                f"got {tuple(images.shape)}: align and crop them to that size"
            )
        dims = [prompt.shape[1] for prompt in self.prompts]
        if _stage_dims(swin) != dims:
            raise PromptingError(
                f"these prompts are for a teacher with stages of width {dims}, and this one has "
                f"{_stage_dims(swin)}: use the teacher that they were trained with"
            )

    def _bias(
        self, place: tuple[int, int], block: SwinTransformerBlock, dtype: torch.dtype
    ) -> Tensor:
        """``attention_bias`` of the block at ``place``, kept for as long as it holds."""
        table = block.attn.relative_position_bias_table
        held = self._biases.get(place)
        if held is None or not held.is_of(table, dtype):
            bias = attention_bias(block, self.num_tokens, dtype)
            held = self._biases[place] = _HeldBias(table, bias)
        return held.bias


class _HeldBias:
    """A bias, and what it was computed from; loading weights or moving the teacher outdates it."""

    def __init__(self, table: Tensor, bias: Tensor):
        self.table = table
        self.version = table._version
        self.bias = bias

    def is_of(self, table: Tensor, dtype: torch.dtype) -> bool:
        return (
            self.table is table
            and self.version == table._version
            and self.bias.device == table.device
            and self.bias.dtype == dtype
        )


def prompted_block(
    block: SwinTransformerBlock, patches: Tensor, prompts: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """One Swin block over patches and prompts.

    Args:
        block: timm's block, whose sub-modules are used as they are.
        patches: (B, H, W, C).
        prompts: (B, t, C).
        bias: what ``attention_bias(block, t)`` gives, in the dtype of the attention.

    Returns:
        patches and prompts after the block, in the shapes they came in.
    """
    change, prompt_change = _window_attention(
        block, block.norm1(patches), block.norm1(prompts), bias
    )

    def finish(tokens: Tensor, change: Tensor) -> Tensor:
        tokens = tokens + block.drop_path1(change)
        return tokens + block.drop_path2(block.mlp(block.norm2(tokens)))

    return finish(patches, change), finish(prompts, prompt_change)


def _window_attention(
    block: SwinTransformerBlock, patches: Tensor, prompts: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """(Shifted-)window attention in which every window also holds its image's prompts.

    Projections are linear, so those of the prompts are computed once per image, not once per
    window: q, k, v before they go to the windows, and the output after the mean over windows.
    """
    attn = block.attn
    batch, height, width, dim = patches.shape
    t = prompts.shape[1]
    win_h, win_w = block.window_size
    rows, columns = height // win_h, width // win_w
    shift_h, shift_w = block.shift_size
    if shift_h or shift_w:
        patches = torch.roll(patches, (-shift_h, -shift_w), (1, 2))

    windows = patches.view(batch, rows, win_h, columns, win_w, dim).transpose(2, 3)
    windows = windows.reshape(batch, rows * columns, win_h * win_w, dim)
    own = attn.qkv(windows).unflatten(-1, (3, attn.num_heads, -1))
    shared = attn.qkv(prompts).unflatten(-1, (3, attn.num_heads, -1))
    # The batch stands before the windows, in patches and prompts alike: images do not mix.
    shared = shared.unsqueeze(1).expand(-1, rows * columns, -1, -1, -1, -1)
    # Windows go where heads are, so that one bias without a batch serves all images.
    order = (3, 0, 1, 4, 2, 5)  # (q k v, B, windows, heads, tokens, d)
    qkv = torch.cat([shared.permute(order), own.permute(order)], dim=4).flatten(2, 3)
    out = F.scaled_dot_product_attention(
        *qkv.unbind(0),
        attn_mask=bias,
        dropout_p=attn.attn_drop.p if attn.training else 0.0,
        scale=attn.scale,
    )

    out = out.unflatten(1, (rows * columns, attn.num_heads))  # (B, windows, heads, tokens, d)
    shared = out[..., :t, :].mean(1).transpose(1, 2).flatten(2)
    own = out[..., t:, :].unflatten(1, (rows, columns)).unflatten(4, (win_h, win_w))
    own = own.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, height, width, -1)
    if shift_h or shift_w:
        own = torch.roll(own, (shift_h, shift_w), (1, 2))
    return attn.proj_drop(attn.proj(own)), attn.proj_drop(attn.proj(shared))


def attention_bias(
    block: SwinTransformerBlock, num_tokens: int, dtype: torch.dtype | None = None
) -> Tensor:
    """What a block adds to its attention logits: relative position bias and shift mask.

    Both are zero wherever a prompt asks or is asked.

    Args:
        block: timm's block.
        num_tokens: t, prompts in front of each window's own tokens.
        dtype: of the result; None means that of the block's weights.

    Returns:
        (windows * heads, t + window area, t + window area), without a graph.
    """
    attn = block.attn
    # A mask made in inference mode could not be saved for a later backward pass.
    with torch.inference_mode(False), torch.no_grad():
        bias = attn.relative_position_bias_table[attn.relative_position_index.flatten()]
        bias = bias.view(attn.window_area, attn.window_area, -1).permute(2, 0, 1)
        mask = block.get_attn_mask()
        if mask is None:  # the block does not shift
            rows, columns = (
                side // window
                for side, window in zip(block.input_resolution, block.window_size, strict=True)
            )
            bias = bias.expand(rows * columns, -1, -1, -1)
        else:
            bias = bias + mask.to(bias).unsqueeze(1)
        return F.pad(bias, (num_tokens, 0, num_tokens, 0)).flatten(0, 1).to(dtype or bias.dtype)


def _swin_of(teacher: nn.Module) -> SwinTransformer:
    from timm.models.swin_transformer import SwinTransformer

    swin = getattr(teacher, "trunk", None)
    if not isinstance(swin, SwinTransformer):
        raise PromptingError(
            f"cakd.prompts needs a Swin teacher, and {type(teacher).__name__} is none: take "
            "swin_t, swin_s, swin_b, swin_mini or a timm:swin_* model, or set cakd.prompts=None"
        )
    return swin


def _stage_dims(swin: SwinTransformer) -> list[int]:
    return [stage.blocks[0].dim for stage in swin.layers]


def _check_windows(swin: SwinTransformer) -> None:
    height, width = swin.patch_embed.grid_size
    for i, stage in enumerate(swin.layers):
        if not isinstance(stage.downsample, nn.Identity):  # timm pads odd grids before merging
            height, width = (height + 1) // 2, (width + 1) // 2
        for block in stage.blocks:
            win_h, win_w = block.window_size
            planned = tuple(block.input_resolution) == (height, width)
            if not planned or height % win_h or width % win_w:
                raise PromptingError(
                    f"cakd.prompts: windows of {win_h} x {win_w} do not tile the {height} x {width}"
                    f" grid of the teacher's stage {i}: choose a patch size with which they do, as "
                    "swin_t, swin_s, swin_b and swin_mini have, or set cakd.prompts=None"
                )
