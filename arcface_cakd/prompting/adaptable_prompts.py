"""The prompts of APT, whatever Transformer they are for.

Zhao et al., ACM MM 2023 (arXiv 2306.14662): the teacher stays as it is, and t prompts that enter
each of its stages learn, beside the student, what makes it teach well. How prompts take part in
attention follows Visual Prompt Tuning (Jia et al., ECCV 2022). Its deep form has fresh prompts at
every block; here they enter at every stage of a Swin, as Zhao et al. have them, and at every block
of a plain ViT, which has no stages.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_cakd.backbones import FaceBackbone
from arcface_cakd.config.settings import Range
from arcface_cakd.distributed import all_reduce_mean
from arcface_cakd.features import FaceFeatures
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.precision import at_least_float32, autocast
from arcface_cakd.prompting.route import Prompted, PromptingError, Route
from arcface_cakd.prompting.swin import SwinRoute
from arcface_cakd.prompting.vit import VitRoute
from arcface_cakd.registry import SECTIONS


@SECTIONS.register("prompts")
class AdaptablePrompts(nn.Module):
    """t learnable prompts at each stage of a frozen Swin, or each block of a frozen plain ViT.

    Stage i of a Swin computes [x, p] = B_i([x, p_i]): the prompts p_i take part in its
    (shifted-)window attention and its MLPs as tokens without a place. Patch merging takes x
    alone, and the next stage starts with prompts of its own. In a plain ViT they stand between
    class and register tokens, where there are any, and patches; where fresh prompts enter, what
    became of the former ones is dropped, and elsewhere it is carried on. The final patches and
    the final prompts, both through the teacher's last norm, are the teacher's pixel features; its
    head sees patches only.

    Only the prompts are parameters, and only they are in the state dict: ``prompts.<place>``,
    (t, d_i), initialised from U(-v, v) with v = sqrt(6 / (3 * patch_h * patch_w + d_i)), patches
    in pixels; the published code of Visual Prompt Tuning has the first stage's width for d_i at
    every stage of a Swin. The teacher is an argument of ``forward``: it is never changed.

    With ``feedback`` the prompts also know how far behind the student is: each place adds a learned
    linear map, 0 at first, of the gap that ``take_feedback`` left. The idea is that of Lin et al.,
    "Perspective-Aware Teaching", ICCV 2025, whose convolutional prompts are fed the difference of
    both sides' feature maps in the batch before, image by image, though these are other images.
    Here, for tokens that all images share, it is the batch's mean difference of the embeddings.

    Args:
        teacher: a Swin (``swin_t``, ``swinv2_t``, ..., ``timm:swin_*``, ``timm:swinv2_*``) or a
            plain ViT (``vit_s``, ``vit_mini``, ..., ``timm:vit_*``, ``timm:deit_*``).
        num_tokens: t, prompts per place; with 0 the features are the plain teacher's.
        dropout: probability of dropping an entry of the learnable prompts, in training.
        places: the stages of a Swin, or blocks of a ViT, that fresh prompts enter, counted from
            0; None means all. What comes before the first of them runs without a graph.
        checkpointing: whether blocks are recomputed in the backward pass, which costs a third
            more time of the teacher and saves most of its memory.
        feedback: whether the gap between student and teacher of the batch before shifts the
            prompts; for embeddings of one width.

    Attributes:
        gap: (E,) float32, with ``feedback``; the same on every rank.
        reach_the_end: whether prompts leave the teacher, as features of their own.

    Raises:
        PromptingError: the teacher is no such Transformer, lacks one of the places, or has the
            map of a stage before its last for pixel features; feedback without prompts.
    """

    gap: Tensor

    def __init__(
        self,
        teacher: FaceBackbone,
        *,
        num_tokens: Annotated[int, Range(0)] = 8,
        dropout: Annotated[float, Range(0.0, 0.99)] = 0.0,
        places: Annotated[tuple[int, ...] | None, Range(0)] = None,
        checkpointing: bool = False,
        feedback: bool = False,
    ):
        super().__init__()
        self._route = _route_for(teacher)
        if teacher.token_stage is not None:
            raise PromptingError(
                f"cakd.teacher.stage {teacher.token_stage}: a prompted teacher's pixel features "
                f"are its last stage's ({len(teacher.stage_dims) - 1}), with the prompts that "
                "leave it: set cakd.teacher.stage=None, or cakd.prompts=None"
            )
        widths = self._route.widths(teacher)
        self.num_tokens = num_tokens
        self.dropout = dropout
        self.places = _checked_places(places, len(widths), self._route.unit)
        last = len(widths) - 1
        self.reach_the_end = self._route.carries_on or self.places[-1] == last
        self.checkpointing = checkpointing
        self.patch_size = self._route.patch_size(teacher)
        # Pairs, because of a dict ParameterDict would sort the keys, as strings.
        self.prompts = nn.ParameterDict(
            [(str(i), nn.Parameter(torch.empty(num_tokens, widths[i]))) for i in self.places]
        )
        self.feedback: nn.ParameterDict | None = None
        if feedback:
            if num_tokens == 0:
                raise PromptingError(
                    "cakd.prompts.feedback shifts prompts, and num_tokens=0 leaves none: set "
                    "num_tokens, or feedback=False"
                )
            width = teacher.embedding_size
            self.register_buffer("gap", torch.zeros(width))
            self.feedback = nn.ParameterDict(
                [
                    (str(i), nn.Parameter(torch.empty(num_tokens * widths[i], width)))
                    for i in self.places
                ]
            )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the prompts anew, as Visual Prompt Tuning does; feedback starts without effect."""
        for weight in () if self.feedback is None else self.feedback.values():
            nn.init.zeros_(weight)
        for prompt in self.prompts.values():
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
            embedding (B, E) and tokens (B, N, C) of the patches; prompts (B, t, C), or (B, 0, C)
            where a Swin's last stage is none of the places.

        Raises:
            PromptingError: the images or the teacher are not of the right shape.
        """
        return self._passes(teacher, images, stages, unprompted=False)[0]

    def beside_unprompted(
        self, teacher: FaceBackbone, images: Tensor, stages: bool = False
    ) -> tuple[FaceFeatures, FaceFeatures]:
        """What ``forward`` gives, and what the teacher gives without prompts, which has no graph.

        What comes before the first place is the same in both, and computed once.
        """
        prompted, unprompted = self._passes(teacher, images, stages, unprompted=True)
        assert unprompted is not None
        return prompted, unprompted

    def _passes(
        self, teacher: FaceBackbone, images: Tensor, stages: bool, unprompted: bool
    ) -> tuple[FaceFeatures, FaceFeatures | None]:
        self._check(teacher, images)
        if self.num_tokens == 0:
            with torch.no_grad():
                plain = teacher.forward_features(images, stages)
            tokens, _ = plain.pixel_features
            return replace(plain, prompts=tokens[:, :0]), plain
        entering = {}
        for place in self.places:
            learned = F.dropout(self._learned(str(place)), self.dropout, self.training)
            entering[place] = learned.expand(len(images), -1, -1)
        first = self.places[0]
        with teacher.autocast(images.device.type):
            begun = self._route.begin(teacher, images, first)
            body = self._route.finish(teacher, begun, first, entering, self.checkpointing)
        prompted = replace(_features(teacher, body, stages), prompts=at_least_float32(body.prompts))
        if not unprompted:
            return prompted, None
        with torch.no_grad():
            with teacher.autocast(images.device.type):
                body = self._route.finish(teacher, begun, first, {}, recompute=False)
            return prompted, _features(teacher, body, stages)

    @torch.no_grad()
    def take_feedback(self, student: Tensor, teacher: Tensor) -> None:
        """Keep the gap of a batch for the next one, where ``feedback`` is on; then a collective.

        Args:
            student: embeddings (B, E), of which the mean over all ranks of u(student) -
                u(teacher) is the gap, u to unit length.
            teacher: embeddings (B, E) of the same images.
        """
        if self.feedback is None:
            return
        ours, theirs = (F.normalize(at_least_float32(x), dim=1) for x in (student, teacher))
        self.gap.copy_(all_reduce_mean((ours - theirs).mean(0)))

    def _learned(self, place: str) -> Tensor:
        """The prompts (t, d) of a place, in float32."""
        prompts = self.prompts[place]
        if self.feedback is None:
            return prompts
        # A copy, as the gap moves on before the backward pass.
        shift = F.linear(self.gap.clone(), self.feedback[place])
        return prompts + at_least_float32(shift).view_as(prompts)

    def _check(self, teacher: FaceBackbone, images: Tensor) -> None:
        if tuple(images.shape[-2:]) != (CROP_SIZE, CROP_SIZE):
            raise PromptingError(
                f"the prompted teacher takes images of {CROP_SIZE} x {CROP_SIZE} pixels, "
                f"got {tuple(images.shape)}: align and crop them to that size"
            )
        unit = self._route.unit
        if not self._route.takes(teacher):
            raise PromptingError(
                f"these prompts are for the {unit}s of another kind of network than "
                f"{_kind(teacher)}: use the teacher that they were trained with"
            )
        widths = self._route.widths(teacher)
        dims = [self.prompts[str(i)].shape[1] for i in self.places]
        if self.places[-1] >= len(widths) or [widths[i] for i in self.places] != dims:
            raise PromptingError(
                f"these prompts are for {unit}s {list(self.places)} of widths {dims}, and this "
                f"teacher's {unit}s have {widths}: use the teacher that they were trained with"
            )


def _features(teacher: FaceBackbone, body: Prompted, stages: bool) -> FaceFeatures:
    """What the teacher's head makes of its body, in float32; without the prompts."""
    final = at_least_float32(body.final)
    height, width = final.shape[-2:]
    read = final
    if teacher.reads_class_token:
        assert body.class_token is not None
        read = at_least_float32(body.class_token)
    with autocast(final.device.type, None):
        embedding = teacher.head(read)
    return FaceFeatures(
        embedding=embedding,
        tokens=final.flatten(2).transpose(1, 2),
        grid=(height, width),
        stages=tuple(at_least_float32(m) for m in body.maps) if stages else (),
    )


def _route_for(teacher: FaceBackbone) -> Route:
    for kind in (SwinRoute, VitRoute):
        if kind.takes(teacher):
            return kind()
    raise PromptingError(
        "cakd.prompts needs a Swin or a plain ViT (with absolute positions) as teacher, and "
        f"{_kind(teacher)} is neither: take swin_t, swin_s, swin_b, swinv2_t, swin_mini, vit_t, "
        "vit_s, vit_b, vit_l_dp005_mask_005, vit_h, vit_mini, cvlface_vit_b, or a timm:swin_*, "
        "timm:swinv2_*, timm:vit_* or timm:deit_* model, or set cakd.prompts=None"
    )


def _kind(teacher: nn.Module) -> str:
    return type(getattr(teacher, "trunk", teacher)).__name__


def _checked_places(places: tuple[int, ...] | None, number: int, unit: str) -> tuple[int, ...]:
    if places is None:
        return tuple(range(number))
    if not places or len(set(places)) != len(places) or not set(places) <= set(range(number)):
        raise PromptingError(
            f"cakd.prompts.places {list(places)}: name some of the teacher's {unit}s, "
            f"0 to {number - 1}, each once, or None for all"
        )
    return tuple(sorted(places))
