"""Unified Receptive Fields Mapping (URFM): tokens of any grid to L local features of one face."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from arcface_cakd.alignment.attention import MultiHeadSelfAttention
from arcface_cakd.alignment.geometry import (
    Anchor,
    FaceDistance,
    Placing,
    anchor_places,
    center_places,
    facial_distance,
    patch_places,
    read_saliency_map,
)
from arcface_cakd.alignment.mapping import LocalCenterMapping, TokenStandardization
from arcface_cakd.alignment.pif import PIFSettings
from arcface_cakd.alignment.saliency import teacher_saliency
from arcface_cakd.config import ConfigError, Range
from arcface_cakd.features import FaceFeatures
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.registry import SECTIONS


@dataclass(frozen=True)
class LocalFeatures:
    """One side's local features, float32.

    Attributes:
        h: (B, L, d) local features, one for each local centre.
        attended: (B, L, d), MSA(h).
        attention: (B, heads, L, L), the softmax maps of that MSA.
        lookup: (B, heads, L, N + t), where each local centre looks: its attention over the
            patches, then the prompts. Detached.
    """

    h: Tensor
    attended: Tensor
    attention: Tensor
    lookup: Tensor

    def detach(self) -> "LocalFeatures":
        """The same values without their graph."""
        parts = (self.h, self.attended, self.attention, self.lookup)
        return LocalFeatures(*(part.detach() for part in parts))


@dataclass(frozen=True)
class Alignment:
    """What the alignment losses compare, and what the anchoring holds fast.

    Attributes:
        student: the student's local features.
        teacher: the teacher's.
        anchored: (B, L, d), MSA(h) of the teacher, from which ``Anchoring`` predicts: the values
            of ``teacher.attended``, but their gradient reaches the teacher-side parameters.
    """

    student: LocalFeatures
    teacher: LocalFeatures
    anchored: Tensor


@SECTIONS.register("urfm")
class URFM(nn.Module):
    """Maps student and teacher tokens to local features that compare one to one.

    A mapping of its own for each side, then a multi-head self-attention (MSA). Zhao et al.,
    ACM MM 2023; choices of this project are marked "ours".

    Each side's tokens are standardised first (ours, see ``TokenStandardization``): in training
    mode an image's local features therefore depend on its whole batch, in evaluation mode not.

    Args:
        student_dim: width of the student's tokens, and ``teacher_dim`` of the teacher's.
        student_grid: (H, W) of the student's tokens, and ``teacher_grid`` of the teacher's.
        student_extent: pixels of the crop that the student's patches cover, and
            ``teacher_extent`` the teacher's (108 for arcface_torch's ViT).
        num_centers: local centres L, a square number on a grid.
        placing: where on the face the local centres are (ours): ``"grid"`` regularly over the
            crop, ``"landmarks"`` on and around the landmarks, see ``geometry.center_places``.
        shared_centers: one set of learnable centres for both sides. By default (ours) each side
            has its own, at the same places: their queries meet keys of another projection. What
            is shared counts as the teacher's side.
        dim: common width d, a multiple of ``num_heads``.
        num_heads: heads of the mappings and of the MSA.
        face_distance: the facial part of D (both formulas are ours): ``"relative"``,
            ``"saliency"``, or None for the Euclidean distance alone.
        face_weight: weight of the facial part, the paper's gamma.
        position: ``"query"`` adds b_i to the queries, the paper's form, in which permuting the
            patches changes nothing; ``"query_key"`` (ours) also adds a term to each logit, by
            the distance between centre and patch.
        anchor: the anchor of b_i (ours): the nose tip, the image centre, or all five landmarks,
            each with a table of its own, whose entries are summed.
        pif: constants of the index function; None spreads the distances in use over the rows,
            see ``PIFSettings.spread``.
        saliency_map: for ``face_distance="saliency"``, in place of Gaussians at the landmarks: a
            .npy file (H, W) over the crop, or ``"teacher"`` (ours), the map that
            ``teacher_saliency`` makes of the first training batch. The state dict keeps it. The
            constants of the index function stay those of the Gaussians, which stand in for the
            map before that batch; the tables that start as receptive fields start anew with it.
        shared_msa: one MSA for both sides (ours: heads of separate ones do not correspond).
        stop_gradient: what the alignment losses train (ours). True: the student, its mapping
            and the prompts; the teacher-side mapping and the shared MSA learn from the anchoring
            alone. False: those, too.

    Without ``stop_gradient`` constant outputs minimise the alignment losses. It is not enough to
    anchor h: an MSA that the losses train, be it from the student's side alone, learned within
    40 steps of the demo's Swin to give all faces the same output: L_feat, 0.23 over the first 20
    steps, was 0.005 at the end of the next 20 (one run). What learns from the alignment losses
    therefore lies on the student's side only, the prompts excepted.

    Attributes:
        places: (n, 2) float64 each, in pixels of the crop: of the local centres (``"center"``),
            the anchors (``"anchor"``) and the patches of each side (``"student"``, ``"teacher"``).

    Raises:
        ConfigError: ``num_centers`` does not fit ``placing``, ``dim`` is no multiple of
            ``num_heads``, or the saliency map is unusable or unused.
    """

    def __init__(
        self,
        student_dim: int,
        student_grid: tuple[int, int],
        teacher_dim: int,
        teacher_grid: tuple[int, int],
        student_extent: float = CROP_SIZE,
        teacher_extent: float = CROP_SIZE,
        *,
        num_centers: Annotated[int, Range(1)] = 49,
        placing: Placing = "grid",
        shared_centers: bool = False,
        dim: Annotated[int, Range(1)] = 256,
        num_heads: Annotated[int, Range(1)] = 8,
        face_distance: FaceDistance = "relative",
        face_weight: Annotated[float, Range(0.0)] = 1.0,
        position: Literal["query", "query_key"] = "query_key",
        anchor: Anchor = "nose",
        pif: PIFSettings | None = None,
        saliency_map: str | None = None,
        shared_msa: bool = True,
        stop_gradient: bool = True,
    ):
        super().__init__()
        if dim % num_heads:
            raise ConfigError(f"urfm.dim {dim} must be a multiple of urfm.num_heads {num_heads}")
        saliency = None
        if saliency_map is not None:
            if face_distance != "saliency":
                raise ConfigError(
                    'urfm.saliency_map is for face_distance="saliency", but face_distance is '
                    f"{face_distance!r}: set one or drop the other"
                )
            if saliency_map != "teacher":
                saliency = read_saliency_map(saliency_map)
        self.places = {
            "center": center_places(num_centers, placing),
            "anchor": anchor_places(anchor),
            "student": patch_places(student_grid, student_extent),
            "teacher": patch_places(teacher_grid, teacher_extent),
        }
        self._distance = partial(
            facial_distance,
            self.places["center"],
            face_distance=face_distance,
            face_weight=face_weight,
        )

        def mapping(side: str, token_dim: int, own_centers: bool = True) -> LocalCenterMapping:
            pairs = None
            if position == "query_key":
                pairs = self._distance(self.places[side], saliency_map=saliency)
            to_anchor = self._distance(self.places["anchor"], saliency_map=saliency)
            return LocalCenterMapping(token_dim, dim, num_heads, to_anchor, pairs, pif, own_centers)

        self.dim = dim
        self.num_centers = num_centers
        self.grids = {"student": tuple(student_grid), "teacher": tuple(teacher_grid)}
        self.stop_gradient = stop_gradient
        self.student_norm = TokenStandardization(student_dim)
        self.teacher_norm = TokenStandardization(teacher_dim)
        self.student = mapping("student", student_dim, own_centers=not shared_centers)
        self.teacher = mapping("teacher", teacher_dim)
        self.msa = MultiHeadSelfAttention(dim, num_heads)
        self.teacher_msa = None if shared_msa else MultiHeadSelfAttention(dim, num_heads)
        self._saliency_pending = saliency_map == "teacher"
        if self._saliency_pending:
            self._teacher_extent = teacher_extent
            # Below 0: not known yet.
            self.register_buffer("saliency", torch.full(tuple(teacher_grid), -1.0))
            self.register_load_state_dict_post_hook(_await_saliency)

    def forward(self, student: FaceFeatures, teacher: FaceFeatures) -> Alignment:
        """Local features of both sides of the same batch of faces.

        Raises:
            ConfigError: tokens of another grid than this module was built for.
        """
        self._check_grid("student", student)
        self._check_grid("teacher", teacher)
        if self._saliency_pending:
            self._settle_saliency(teacher)
        return Alignment(self._map_student(student), *self._map_teacher(teacher))

    def _map_student(self, student: FaceFeatures) -> LocalFeatures:
        centers = None
        if self.student.centers is None:  # shared, and then the teacher side's
            centers = self.teacher.centers
            centers = centers.detach() if self.stop_gradient else centers
        h, lookup = self.student(self.student_norm(student), centers=centers)
        if self.stop_gradient and self.teacher_msa is None:  # the MSA is the teacher side's
            attended, attention = _with_constant_parameters(self.msa, h)
        else:
            attended, attention = self.msa(h)
        return LocalFeatures(h, attended, attention, lookup.detach())

    def _map_teacher(self, teacher: FaceFeatures) -> tuple[LocalFeatures, Tensor]:
        msa = self.msa if self.teacher_msa is None else self.teacher_msa
        tokens = self.teacher_norm(teacher)
        num_prompts = 0 if teacher.prompts is None else teacher.prompts.shape[1]
        h, lookup = self.teacher(tokens, num_prompts)
        attended, attention = msa(h)
        anchored = attended
        if self.stop_gradient:
            # What is aligned passes through constant parameters, so that prompts still learn
            # from it; h and what is anchored keep theirs.
            if tokens.requires_grad:
                aligned, _ = _with_constant_parameters(self.teacher, tokens, num_prompts)
                attended, attention = _with_constant_parameters(msa, aligned)
            else:
                attended, attention = attended.detach(), attention.detach()
        return LocalFeatures(h, attended, attention, lookup.detach()), anchored

    def _settle_saliency(self, teacher: FaceFeatures) -> None:
        """Measure by the saliency of the state dict or, in training, of this first batch."""
        known, estimated = bool((self.saliency >= 0).all()), False
        if self.training and not known:
            saliency = teacher_saliency(teacher.tokens).view_as(self.saliency)
            estimated = bool(saliency.isfinite().all())  # else the next batch may do
            if estimated:
                self.saliency.copy_(saliency)
        by_map = {}
        if known or estimated:
            # By the buffer, as it was rounded, so that a resumed run measures by the same.
            by_map = {"saliency_map": self.saliency.cpu(), "map_extent": self._teacher_extent}
            self._saliency_pending = False
        to_anchor = self._distance(self.places["anchor"], **by_map)
        for side, mapping in (("student", self.student), ("teacher", self.teacher)):
            to_patches = self._distance(self.places[side], **by_map)
            mapping.move(to_anchor, to_patches, restart=estimated)

    def _check_grid(self, side: str, features: FaceFeatures) -> None:
        if tuple(features.grid) != self.grids[side]:
            raise ConfigError(
                f"urfm was built for {side} tokens on a {self.grids[side]} grid, but these lie on "
                f"{tuple(features.grid)}: build it with the grid of the network in use"
            )


def _with_constant_parameters(module: nn.Module, *inputs: Tensor | int):
    """``module(*inputs)``, through which gradients reach the inputs but no parameter."""
    constants = {name: p.detach() for name, p in module.named_parameters()}
    return functional_call(module, constants, inputs)


def _await_saliency(urfm: URFM, incompatible_keys) -> None:
    urfm._saliency_pending = True
