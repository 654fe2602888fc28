"""Unified Receptive Fields Mapping (URFM): tokens of any grid to L local features of one face."""

import math
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from arcface_cakd.alignment.attention import MultiHeadSelfAttention
from arcface_cakd.alignment.geometry import Anchor, FaceDistance, Placing, read_saliency_map
from arcface_cakd.alignment.layout import FaceLayout
from arcface_cakd.alignment.local_features import Alignment, LocalFeatures
from arcface_cakd.alignment.mapping import LocalCenterMapping, Lookup, Rows, Values
from arcface_cakd.alignment.pif import PIFSettings
from arcface_cakd.alignment.position import AnchorEncoding, PairEncoding
from arcface_cakd.alignment.saliency import teacher_saliency
from arcface_cakd.alignment.standardization import (
    PromptTokens,
    Standardise,
    TokenStandardization,
)
from arcface_cakd.config import ConfigError, Range
from arcface_cakd.features import FaceFeatures
from arcface_cakd.landmarks import ARCFACE_TEMPLATE, CROP_SIZE
from arcface_cakd.registry import SECTIONS

Landmarks = Literal["template", "image"]
_FACE_WEIGHT = 1.0


@SECTIONS.register("urfm")
class URFM(nn.Module):
    """Maps student and teacher tokens to local features that compare one to one.

    A mapping for each side, then a multi-head self-attention (MSA). Zhao et al., ACM MM 2023;
    choices of this project are marked "ours".

    By default (ours) the teacher's local features are its own tokens, standardised, each centre's
    a mean of those around its place, and so are the student's, of tokens that a learned linear
    map takes to the teacher's width; both sides look at the same part of the face. The paper's
    form, as far as it is known, has everything learned on both sides: ``lookup="content"``,
    ``shared_lookup=False``, ``fixed_values=False``, ``prompt_tokens="learned"``,
    ``residual=False``; what was measured of it is in ``docs/method.md``.

    Tokens are standardised first (ours, see ``TokenStandardization``): in training mode an
    image's local features therefore depend on its whole batch, in evaluation mode not.

    Args:
        student_dim: width of the student's tokens, and ``teacher_dim`` of the teacher's.
        student_grid: (H, W) of the student's tokens, and ``teacher_grid`` of the teacher's.
        student_extent: pixels of the crop that the student's patches cover, and
            ``teacher_extent`` the teacher's (108 for arcface_torch's ViT).
        num_centers: local centres L, a square number on a grid.
        placing: where on the face the local centres are (ours): ``"grid"`` regularly over the
            crop, ``"landmarks"`` on and around the landmarks, see ``geometry.center_places``.
        lookup: what a centre's attention over the patches goes by: ``"content"``, the paper's
            form, centres as queries and tokens as keys; ``"position"`` (ours), the distance
            between centre and patch alone.
        shared_lookup: one table of the terms by distance for both sides (ours), so that the
            receptive fields of both stay one. What is shared counts as the teacher's side.
        shared_centers: one set of learnable centres for both sides, with ``lookup="content"``. By
            default (ours) each side has its own, at the same places: their queries meet keys of
            another projection. What is shared counts as the teacher's side.
        fixed_values: the teacher's local features are means of its own standardised tokens
            (ours), which nothing that is learned can make constant; ``False``: of tokens that
            learned maps have taken to width d.
        standardise: ``"place"`` or ``"channel"``, and ``prompt_tokens``: whether prompts are
            tokens too, ``"none"``, ``"detached"`` or ``"learned"``: see ``TokenStandardization``.
        residual: whether the MSA has one, see ``MultiHeadSelfAttention``.
        dim: common width d, a multiple of ``num_heads``; None: the teacher's width, the only one
            with ``fixed_values``.
        num_heads: heads of the mappings and of the MSA; None: the most, up to 8, that divide d.
        face_distance: the facial part of D (both formulas are ours): ``"relative"``,
            ``"saliency"``, or None for the Euclidean distance alone.
        face_weight: weight of the facial part, the paper's gamma.
        position: ``"query"`` adds b_i to the queries, the paper's form, in which permuting the
            patches changes nothing; ``"query_key"`` (ours) also adds a term to each logit, by
            the distance between centre and patch.
        landmarks: which landmarks anchors, centres placed at them and the facial distance go by:
            ``"template"``, those of the ArcFace template, for every face; ``"image"`` (ours),
            those of each image, which ``forward`` is given. The constants of the index function
            and the receptive fields to start with are the template's.
        anchor: the anchor of b_i (ours), with ``lookup="content"``: the nose tip, the image
            centre, or all five landmarks, each with a table of its own, whose entries are summed.
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
        layout: the places of centres, anchors and patches, a ``FaceLayout``.
        without_effect: settings that change nothing beside the others, a line each.

    Raises:
        ConfigError: ``num_centers`` does not fit ``placing``, ``dim`` is no multiple of
            ``num_heads`` or not the teacher's width where it must be, a lookup would go by
            nothing, the saliency map is unusable or unused, or nothing looks at the landmarks of
            an image.
    """

    saliency: Tensor  # of a teacher whose saliency is measured

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
        lookup: Lookup = "position",
        shared_lookup: bool = True,
        shared_centers: bool = False,
        fixed_values: bool = True,
        standardise: Standardise = "place",
        prompt_tokens: PromptTokens = "none",
        residual: bool = True,
        dim: Annotated[int | None, Range(1)] = None,
        num_heads: Annotated[int | None, Range(1)] = None,
        face_distance: FaceDistance = "relative",
        face_weight: Annotated[float, Range(0.0)] = _FACE_WEIGHT,
        landmarks: Landmarks = "template",
        position: Literal["query", "query_key"] = "query_key",
        anchor: Anchor = "nose",
        pif: PIFSettings | None = None,
        saliency_map: str | None = None,
        shared_msa: bool = True,
        stop_gradient: bool = True,
    ):
        super().__init__()
        dim = teacher_dim if dim is None else dim
        if fixed_values and dim != teacher_dim:
            raise ConfigError(
                f"urfm.dim {dim}: with urfm.fixed_values it is the width of the teacher's tokens, "
                f"{teacher_dim}: leave it out, or set urfm.fixed_values=False"
            )
        if num_heads is None:
            num_heads = next(heads for heads in range(8, 0, -1) if dim % heads == 0)
        if dim % num_heads:
            raise ConfigError(f"urfm.dim {dim} must be a multiple of urfm.num_heads {num_heads}")
        by_content = lookup == "content"
        if not by_content and position == "query":
            raise ConfigError(
                'urfm.lookup="position" goes by the distance between centre and patch, which '
                'urfm.position="query" leaves out: set urfm.position="query_key", or '
                'urfm.lookup="content"'
            )
        saliency = None
        if saliency_map is not None:
            if face_distance != "saliency":
                raise ConfigError(
                    'urfm.saliency_map is for face_distance="saliency", but face_distance is '
                    f"{face_distance!r}: set one or drop the other"
                )
            if saliency_map != "teacher":
                saliency = read_saliency_map(saliency_map)
        self.layout = FaceLayout(
            {"student": student_grid, "teacher": teacher_grid},
            {"student": student_extent, "teacher": teacher_extent},
            num_centers,
            placing,
            anchor,
            face_distance,
            face_weight,
            saliency,
        )
        self.by_image = landmarks == "image"
        by_face = face_distance is not None and face_weight > 0 and saliency_map is None
        by_anchor = by_content and anchor != "center"
        if self.by_image and not (by_face or placing == "landmarks" or by_anchor):
            nose = 'urfm.anchor="nose", ' if by_content else ""
            lacking = [
                *(["urfm.face_distance"] if face_distance is None else []),
                *(["urfm.face_weight above 0"] if face_weight == 0 else []),
                *(["urfm.saliency_map=None"] if saliency_map is not None else []),
            ]
            raise ConfigError(
                f'urfm.landmarks="image" changes nothing here: set {nose}'
                f'urfm.placing="landmarks" or {" and ".join(lacking)}, or leave it at "template"'
            )
        self.shared_lookup = shared_lookup
        with_pairs = position == "query_key"
        self.without_effect = _without_effect(by_content, anchor, shared_centers)
        if not with_pairs and not shared_lookup:
            self.without_effect.append(
                'cakd.urfm.shared_lookup=False has no effect: with urfm.position="query" there are '
                "no terms by distance to share; drop it"
            )
        if face_distance is None and face_weight != _FACE_WEIGHT:
            self.without_effect.append(
                f"cakd.urfm.face_weight={face_weight:g} has no effect, as urfm.face_distance is "
                "None: drop it"
            )
        if saliency_map is not None and face_weight == 0:
            self.without_effect.append(
                "cakd.urfm.saliency_map has no effect, as urfm.face_weight is 0: raise that, or "
                "drop it"
            )

        def mapping(
            side: str, token_dim: int, values: Values, own: bool = True, own_table: bool = True
        ) -> LocalCenterMapping:
            anchors = pairs = None
            if by_content:
                anchors = AnchorEncoding(self.layout.to_anchors(), dim, pif)
            if with_pairs:
                distance, in_use = self.layout.to_patches(side), self._in_use(side)
                pairs = PairEncoding(distance, num_heads, pif, in_use, own_table)
            return LocalCenterMapping(token_dim, dim, num_heads, anchors, pairs, values, own)

        self.dim = dim
        self.num_centers = num_centers
        self.grids: dict[str, tuple[int, int]] = {
            "student": (student_grid[0], student_grid[1]),
            "teacher": (teacher_grid[0], teacher_grid[1]),
        }
        self.stop_gradient = stop_gradient
        self.student_norm = TokenStandardization(
            student_dim, math.prod(student_grid), standardise, prompt_tokens
        )
        self.teacher_norm = TokenStandardization(
            teacher_dim, math.prod(teacher_grid), standardise, prompt_tokens
        )
        self.student = mapping(
            "student",
            student_dim,
            "projected" if fixed_values else "learned",
            own=not shared_centers,
            own_table=not shared_lookup,
        )
        self.teacher = mapping("teacher", teacher_dim, "tokens" if fixed_values else "learned")
        self.msa = MultiHeadSelfAttention(dim, num_heads, residual)
        self.teacher_msa = None
        if not shared_msa:
            self.teacher_msa = MultiHeadSelfAttention(dim, num_heads, residual)
        self._saliency_pending = saliency_map == "teacher"
        if self._saliency_pending:
            self._teacher_extent = teacher_extent
            # Below 0: not known yet.
            self.register_buffer("saliency", torch.full(tuple(teacher_grid), -1.0))
            self.register_load_state_dict_post_hook(_await_saliency)

    def forward(
        self, student: FaceFeatures, teacher: FaceFeatures, landmarks: Tensor | None = None
    ) -> Alignment:
        """Local features of both sides of the same batch of faces.

        Args:
            landmarks: (B, 5, 2) of the images, in pixels of the crop and the template's order,
                where ``landmarks="image"``; else not looked at. In evaluation mode the template's
                stand in for missing ones.

        Raises:
            ConfigError: tokens of another grid than this module was built for, or missing
                landmarks.
            ValueError: landmarks of another shape.
        """
        student_tokens = self._tokens("student", student)
        teacher_tokens = self._tokens("teacher", teacher)
        if self.by_image and self.training and landmarks is None:
            raise ConfigError(
                'urfm.landmarks="image" needs the landmarks of every image, and this batch comes '
                'without: load them, or set urfm.landmarks="template"'
            )
        if self._saliency_pending:
            self._settle_saliency(teacher_tokens)
        rows: dict[str, Rows] = {"student": (None, None), "teacher": (None, None)}
        if self.by_image and landmarks is not None:
            expected = (len(student_tokens), *ARCFACE_TEMPLATE.shape)
            if landmarks.shape != expected:  # one face's would be taken for every image's
                raise ValueError(
                    f"landmarks must be {expected}, in pixels of the crop, got "
                    f"{tuple(landmarks.shape)}"
                )
            rows = self._rows(landmarks)
        return Alignment(
            self._map_student(student, rows["student"]),
            *self._map_teacher(teacher, rows["teacher"]),
        )

    @torch.no_grad()
    def _rows(self, landmarks: Tensor) -> dict[str, Rows]:
        """The rows that a batch of faces looks up, by side: see ``LocalCenterMapping.rows``."""
        to_anchors = self.layout.to_anchors(landmarks)
        return {
            side: mapping.rows(
                to_anchors,
                None if mapping.pair_encoding is None else self.layout.to_patches(side, landmarks),
            )
            for side, mapping in (("student", self.student), ("teacher", self.teacher))
        }

    def _map_student(self, student: FaceFeatures, rows: Rows) -> LocalFeatures:
        # What is shared is the teacher side's.
        centers: Tensor | None = None
        table: Tensor | None = None
        if self.student.centers is None:
            centers = self.teacher.centers
        if self.shared_lookup and self.teacher.pair_encoding is not None:
            table = self.teacher.pair_encoding.table
        if self.stop_gradient:
            centers = None if centers is None else centers.detach()
            table = None if table is None else table.detach()
        h, lookup = self.student(self.student_norm(student), 0, centers, table, rows)
        if self.stop_gradient and self.teacher_msa is None:  # the MSA is the teacher side's
            attended, attention = _with_constant_parameters(self.msa, h)
        else:
            attended, attention = self.msa(h)
        return LocalFeatures(h, attended, attention, lookup.detach())

    def _map_teacher(self, teacher: FaceFeatures, rows: Rows) -> tuple[LocalFeatures, Tensor]:
        msa = self.msa if self.teacher_msa is None else self.teacher_msa
        tokens = self.teacher_norm(teacher)
        num_prompts = tokens.shape[1] - math.prod(self.grids["teacher"])
        given = (tokens, num_prompts, None, None, rows)
        h, lookup = self.teacher(*given)
        attended, attention = msa(h)
        anchored = attended
        if self.stop_gradient:
            # What is aligned passes through constant parameters, so that prompts still learn
            # from it; h and what is anchored keep theirs.
            if tokens.requires_grad:
                aligned, _ = _with_constant_parameters(self.teacher, *given)
                attended, attention = _with_constant_parameters(msa, aligned)
            else:
                attended, attention = attended.detach(), attention.detach()
        return LocalFeatures(h, attended, attention, lookup.detach()), anchored

    def buffers_replaced(self) -> None:
        """Its buffers have other values than its forward pass left: the saliency of a teacher's
        first batch, where it is measured by that, is looked at again."""
        self._saliency_pending = "saliency" in self._buffers

    def _settle_saliency(self, teacher_tokens: Tensor) -> None:
        """Measure by the saliency of the state dict or, in training, of this first batch."""
        known, estimated = bool((self.saliency >= 0).all()), False
        if self.training and not known:
            saliency = teacher_saliency(teacher_tokens).view_as(self.saliency)
            estimated = bool(saliency.isfinite().all())  # else the next batch may do
            if estimated:
                self.saliency.copy_(saliency)
        self.layout.use_map(None)
        if known or estimated:
            # By the buffer, as it was rounded, so that a resumed run measures by the same.
            self.layout.use_map(self.saliency.cpu(), self._teacher_extent)
            self._saliency_pending = False
        for side, mapping in (("student", self.student), ("teacher", self.teacher)):
            to_anchors, to_patches = self.layout.to_anchors(), self.layout.to_patches(side)
            mapping.move(to_anchors, to_patches, self._in_use(side) if estimated else None)

    def _in_use(self, side: str) -> Tensor:
        """The distances (n,) that are looked up in the table of a side."""
        sides = self.grids if self.shared_lookup else (side,)
        return torch.cat([self.layout.to_patches(name).flatten() for name in sides])

    def _tokens(self, side: str, features: FaceFeatures) -> Tensor:
        """The tokens of a side, which must lie on the grid that this module was built for."""
        tokens, grid = features.pixel_features
        if tuple(grid) != self.grids[side]:
            raise ConfigError(
                f"urfm was built for {side} tokens on a {self.grids[side]} grid, but these lie on "
                f"{tuple(grid)}: build it with the grid of the network in use"
            )
        return tokens


def _with_constant_parameters(module: nn.Module, *inputs):
    """``module(*inputs)``, through which gradients reach the inputs but no parameter."""
    constants = {name: p.detach() for name, p in module.named_parameters()}
    return functional_call(module, constants, inputs)


def _without_effect(by_content: bool, anchor: Anchor, shared_centers: bool) -> list[str]:
    """What ``URFM.without_effect`` says; defaults are not mentioned."""
    by_position = 'with urfm.lookup="position" there are no learnable centres and no anchors'
    lines = []
    if not by_content and anchor != "nose":
        lines.append(f"cakd.urfm.anchor={anchor!r} has no effect: {by_position}")
    if not by_content and shared_centers:
        lines.append(f"cakd.urfm.shared_centers=True has no effect: {by_position}")
    return lines


def _await_saliency(urfm: URFM, incompatible_keys) -> None:
    urfm.buffers_replaced()
