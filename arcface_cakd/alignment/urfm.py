"""Unified Receptive Fields Mapping (URFM): tokens of any grid to L local features of one face."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from arcface_cakd.alignment.attention import (
    MultiHeadSelfAttention,
    at_least_float32,
    multi_head_attention,
)
from arcface_cakd.alignment.geometry import (
    Anchor,
    FaceDistance,
    anchor_places,
    center_places,
    facial_distance,
    patch_places,
    read_saliency_map,
)
from arcface_cakd.alignment.pif import PIFSettings
from arcface_cakd.alignment.position import AnchorEncoding, PairEncoding
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


class TokenStandardization(nn.Module):
    """Standardises each channel of a backbone's features over batch and tokens (ours).

    A Transformer's tokens are nearly all alike: of those of the demo's Swin, 98 % of the power is
    in their common mean, 1 % tells one image from another (``eval/token_statistics.py``). Two
    sides mapped from that agree on the mean and have nothing left to align. LayerNorm, which
    looks at one token, keeps the mean; a BatchNorm without scale and shift takes it out.

    In training mode mean and (biased) variance are those of the rank's batch, prompts included;
    in evaluation mode they are running ones, which the state dict holds.

    Args:
        token_dim: width C of the tokens.
    """

    def __init__(self, token_dim: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(token_dim, affine=False)

    def forward(self, features: FaceFeatures) -> Tensor:
        """Tokens (B, N, C), then prompts (B, t, C) if any, as (B, N + t, C), at least float32."""
        tokens = features.tokens
        if features.prompts is not None:
            tokens = torch.cat([tokens, features.prompts], dim=1)
        return self.norm(at_least_float32(tokens).flatten(0, 1)).view_as(tokens)


class LocalCenterMapping(nn.Module):
    """One side of URFM: L learnable local centres attend to the tokens of a backbone.

    e_ij = (f_i W_q + b_i)(f_j W_k)^T / sqrt(d_head) + c_ij, f_i the local centres, f_j the
    tokens projected to width d, h_i = sum_j softmax_j(e_ij) f_j W_v, for each head (Zhao et al.;
    c_ij is ours).

    Args:
        token_dim: width C of the tokens, which come standardised.
        dim: common width d.
        num_heads: heads.
        anchor_distance: (L, A), see ``AnchorEncoding``.
        pair_distance: (L, N), see ``PairEncoding``; None leaves c out.
        pif: constants of the index function; None derives them.
    """

    def __init__(
        self,
        token_dim: int,
        dim: int,
        num_heads: int,
        anchor_distance: Tensor,
        pair_distance: Tensor | None = None,
        pif: PIFSettings | None = None,
    ):
        super().__init__()
        self.num_heads = num_heads
        self.project = nn.Linear(token_dim, dim)
        # Of unit variance, as what they are compared with: centres that start alike would all
        # look at the same mean of the face.
        self.centers = nn.Parameter(torch.randn(anchor_distance.shape[0], dim))
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight)
        self.anchor_encoding = AnchorEncoding(anchor_distance, dim, pif)
        self.pair_encoding = (
            None if pair_distance is None else PairEncoding(pair_distance, num_heads, pif)
        )

    def forward(self, tokens: Tensor, num_prompts: int = 0) -> tuple[Tensor, Tensor]:
        """Tokens (B, N + t, C), t prompts last -> h (B, L, d), lookup (B, heads, L, N + t)."""
        f = self.project(tokens)
        query = self.query(self.centers) + self.anchor_encoding()
        bias = None if self.pair_encoding is None else self.pair_encoding(num_prompts)
        return multi_head_attention(query[None], self.key(f), self.value(f), self.num_heads, bias)


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
        num_centers: local centres L, a square number.
        dim: common width d, a multiple of ``num_heads``.
        num_heads: heads of the mappings and of the MSA.
        face_distance: the facial part of D (both formulas are ours): ``"relative"``,
            ``"saliency"``, or None for the Euclidean distance alone.
        face_weight: weight of the facial part, the paper's gamma.
        position: ``"query"`` adds b_i to the queries, the paper's form, in which permuting the
            patches changes nothing; ``"query_key"`` (ours) also adds a term to each logit, by
            the distance between centre and patch.
        anchor: the anchor of b_i (ours): the nose tip, the image centre, or all five landmarks.
        pif: constants of the index function; None spreads the distances in use over the rows,
            see ``PIFSettings.spread``.
        saliency_map: a .npy file (H, W) over the crop for ``face_distance="saliency"``, in
            place of Gaussians at the landmarks.
        shared_msa: one MSA for both sides (ours: heads of separate ones do not correspond).
        stop_gradient: what the alignment losses train (ours). True: the student, its mapping
            and the prompts; the teacher-side mapping and the shared MSA learn from the anchoring
            alone. False: those, too.

    Without ``stop_gradient`` constant outputs minimise the alignment losses. It is not enough to
    anchor h: an MSA that the losses train, be it from the student's side alone, learned within
    40 steps of the demo's Swin to give all faces the same output: L_feat, 0.23 over the first 20
    steps, was 0.005 at the end of the next 20 (one run). What learns from the alignment losses
    therefore lies on the student's side only, the prompts excepted.

    Raises:
        ConfigError: ``num_centers`` is not square, ``dim`` not a multiple of ``num_heads``, or
            the saliency map is unusable or unused.
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
            saliency = read_saliency_map(saliency_map)
        centers = center_places(num_centers)

        def distance(places: Tensor) -> Tensor:
            return facial_distance(centers, places, face_distance, face_weight, saliency)

        def mapping(token_dim: int, grid: tuple[int, int], extent: float) -> LocalCenterMapping:
            pairs = distance(patch_places(grid, extent)) if position == "query_key" else None
            to_anchor = distance(anchor_places(anchor))
            return LocalCenterMapping(token_dim, dim, num_heads, to_anchor, pairs, pif)

        self.dim = dim
        self.num_centers = num_centers
        self.grids = {"student": tuple(student_grid), "teacher": tuple(teacher_grid)}
        self.stop_gradient = stop_gradient
        self.student_norm = TokenStandardization(student_dim)
        self.teacher_norm = TokenStandardization(teacher_dim)
        self.student = mapping(student_dim, student_grid, student_extent)
        self.teacher = mapping(teacher_dim, teacher_grid, teacher_extent)
        self.msa = MultiHeadSelfAttention(dim, num_heads)
        self.teacher_msa = None if shared_msa else MultiHeadSelfAttention(dim, num_heads)

    def forward(self, student: FaceFeatures, teacher: FaceFeatures) -> Alignment:
        """Local features of both sides of the same batch of faces.

        Raises:
            ConfigError: tokens of another grid than this module was built for.
        """
        self._check_grid("student", student)
        self._check_grid("teacher", teacher)
        return Alignment(self._map_student(student), *self._map_teacher(teacher))

    def _map_student(self, student: FaceFeatures) -> LocalFeatures:
        h, lookup = self.student(self.student_norm(student))
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
