"""Student, frozen teacher, prompts, URFM and losses as one module."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arcface_cakd.alignment import URFM, Alignment, Anchoring, LocalFeatures, alignment_figures
from arcface_cakd.backbones import FaceBackbone, OnnxTeacher, load_weights
from arcface_cakd.config import CakdConfig, ConfigError
from arcface_cakd.distiller.description import describe, without_effect
from arcface_cakd.distiller.requirements import (
    check_embeddings_suffice,
    check_feedback,
    teacher_partial_fc,
)
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses import FeatureDims, LossBatch, WeightedLosses
from arcface_cakd.losses.base import PIXEL_FEATURES
from arcface_cakd.partial_fc import FROM_DATA, MarginHead, PartialFC
from arcface_cakd.prompting import AdaptablePrompts, Preservation

THE_TEACHERS = "the teacher's "
"""How the names of what the teacher says begin, where nothing that is learned has changed it."""


@dataclass
class _Forward:
    """What one training forward leaves for ``terms``."""

    images: Tensor
    student: FaceFeatures
    teacher: FaceFeatures
    unprompted: FaceFeatures | None
    alignment: Alignment | None


@dataclass
class _Snapshot:
    """What the last step leaves for ``diagnostics``: no graph, so that it holds no memory."""

    images: Tensor
    prompted: Tensor
    unprompted: Tensor | None
    local: tuple[LocalFeatures, LocalFeatures] | None
    soundness: dict[str, Tensor]


@torch.no_grad()
def _zero_if_finite(tensor: Tensor) -> Tensor:
    """() float32: 0, or NaN where a value is not finite; nothing of the tensor's size is made."""
    low, high = tensor.aminmax()
    return 0.0 * low.float() + 0.0 * high.float()


class Distiller(nn.Module):
    """A student that learns from a frozen teacher, as one module of a training loop.

    ``distiller(images)`` is the student's embedding, in training and in eval, so that the
    module stands wherever the plain student stood. In training it also runs the teacher, and
    ``terms`` then gives the weighted losses to add to the margin softmax loss.

    The teacher follows ``.to()`` and ``.cuda()`` until ``drop_teacher``, but is no part of
    ``parameters()``, ``state_dict()`` or ``train()``: it stays frozen and in eval mode. What is
    learned beside the student (prompts, URFM, heads) is in ``state_dict()``.

    With prompts, anchoring, preservation and losses that look at the teacher's output alone
    compare with the *unprompted* teacher, which costs a second teacher forward from the first
    prompts on, without gradient, per step, unless ``forward`` is told.

    Args:
        student: the network to train.
        teacher: the network to learn from; it is frozen here, whatever it was.
        config: the ``cakd`` entry, validated (``CakdConfig``) or as an edict. With a teacher of
            embeddings only (``onnx:<file>``), without prompts, URFM, and losses that need more.
        num_classes: identities of the training set, for losses that need it.
        run_steps: micro-steps of the whole run, for weights that change over all of it.

    Raises:
        ConfigError: a loss needs what the entry switches off, or anything what the teacher lacks.
    """

    def __init__(
        self,
        student: FaceBackbone,
        teacher: FaceBackbone,
        config: CakdConfig | Mapping,
        num_classes: int | None = None,
        run_steps: int | None = None,
    ):
        super().__init__()
        if not isinstance(config, CakdConfig):
            config = CakdConfig.from_entry(config)
        self.config = config
        self.num_classes = num_classes
        self.student = student
        if config.student_weights is not None:
            load_weights(student, config.student_weights)
        # In a tuple, a module is not registered as a submodule.
        self._frozen: tuple[FaceBackbone] | tuple[FaceBackbone, PartialFC] = (
            teacher.requires_grad_(False).eval(),
        )
        self._dropped = False
        if config.teacher["bf16"]:
            teacher.amp_dtype = torch.bfloat16

        if teacher.token_dim is None:
            check_embeddings_suffice(config)
        student_width, student_grid = student.map_shape
        dims = FeatureDims(
            student_embedding=student.embedding_size,
            teacher_embedding=teacher.embedding_size,
            student_tokens=student_width,
            teacher_tokens=teacher.token_dim,
            student_stages=student.stage_dims,
            teacher_stages=teacher.stage_dims,
            num_classes=num_classes,
            student_grid=student_grid,
            teacher_grid=teacher.grid,
            num_centers=None if config.urfm is None else config.urfm["num_centers"],
        )
        self.losses = WeightedLosses(config.losses, dims, run_steps)
        self._student_stages = bool(self.losses.needing("stages", "student_stages"))
        self._teacher_stages = bool(self.losses.needing("stages"))
        if config.urfm is None:
            for name in self.losses.needing("alignment"):
                raise ConfigError(
                    f"loss {name!r} compares local features, but cakd.urfm is None: set "
                    "cakd.urfm=edict() or drop the loss"
                )
        if teacher.token_dim is None and self.losses.needing(*PIXEL_FEATURES):
            check_embeddings_suffice(config, *self.losses.needing(*PIXEL_FEATURES))
        for name in self.losses.needing("centers")[:1]:
            fc = teacher_partial_fc(config, teacher, num_classes, f"loss {name!r}")
            self._frozen = (teacher, fc)

        # Those of the data are computed when there is a data set: by ``engine.give_centers``.
        self._has_centers = config.teacher["centers"] != FROM_DATA
        self.prompts = None
        if config.prompts is not None:
            self.prompts = AdaptablePrompts(teacher, **config.prompts)
            check_feedback(self.prompts, dims)
        self.urfm = None
        if config.urfm is not None:
            self.urfm = URFM(
                student_width,
                student_grid,
                *teacher.map_shape,
                student.extent,
                teacher.extent,
                **config.urfm,
            )
        self.anchoring = None
        if config.anchoring is not None and self.urfm is not None:
            self.anchoring = Anchoring(
                self.urfm.dim, self.urfm.num_centers, teacher.embedding_size, **config.anchoring
            )
        self.preservation = None
        if config.preservation is not None:
            self.preservation = Preservation(**config.preservation)
            if self.preservation.needs_centers and self.teacher_fc is None:
                wants = "cakd.preservation of kind 'margin'"
                fc = teacher_partial_fc(config, teacher, num_classes, wants)
                self._frozen = (teacher, fc)
        self._pending: _Forward | None = None
        self._last: _Snapshot | None = None

    @property
    def teacher(self) -> FaceBackbone:
        """The frozen teacher, without prompts."""
        return self._frozen[0]

    @property
    def teacher_fc(self) -> PartialFC | None:
        """The teacher's frozen class centres under ArcFace, where something needs them."""
        return self._frozen[1] if len(self._frozen) > 1 else None

    @property
    def awaits_centers(self) -> bool:
        """Whether class centres that ``take_centers`` has to bring are still missing."""
        return self.teacher_fc is not None and not self._has_centers

    def take_centers(self, centers: Tensor) -> None:
        """Take the teacher's class centres (num_classes, E), of ``centers="from_data"``."""
        assert self.teacher_fc is not None
        self.teacher_fc.set_centers(centers)
        self._has_centers = True

    @property
    def amp_dtype(self) -> torch.dtype | None:
        """Precision of student, teacher and URFM; None is float32.

        With ``cakd.teacher.bf16`` the teacher's is bfloat16, whatever this is set to.
        """
        return self.student.amp_dtype

    @amp_dtype.setter
    def amp_dtype(self, dtype: torch.dtype | None) -> None:
        self.student.amp_dtype = dtype
        if not self.config.teacher["bf16"]:
            self.teacher.amp_dtype = dtype

    def drop_teacher(self) -> None:
        """Free the memory of the teacher's weights, where no step will run it.

        From then on a forward in training mode, and ``features``, need ``known``. With prompts,
        whose teacher runs in each step, nothing is done.
        """
        if self.prompts is None and not self._dropped:
            self.teacher.to("meta")
            if isinstance(self.teacher, OnnxTeacher):
                self.teacher.close()
            self._dropped = True

    def _apply(self, fn, recurse=True):
        for module in self._frozen[1:] if self._dropped else self._frozen:
            module._apply(fn)
        return super()._apply(fn, recurse)

    def forward(
        self, images: Tensor, landmarks: Tensor | None = None, known: FaceFeatures | None = None
    ) -> Tensor:
        """Images (B, 3, 112, 112) in [-1, 1] to the student's embeddings (B, E), float32.

        Args:
            landmarks: (B, 5, 2) of the images, in pixels: in training, where
                ``cakd.urfm.landmarks`` is ``"image"``.
            known: in training, what the unprompted teacher says of the images, where it need not
                be run for that: at least ``known_parts``.
        """
        if not self.training:
            return self.student(images)
        student, teacher, unprompted, alignment = self._features(images, landmarks, known)
        self._pending = _Forward(images, student, teacher, unprompted, alignment)
        return student.embedding

    def features(
        self, images: Tensor, landmarks: Tensor | None = None, known: FaceFeatures | None = None
    ) -> tuple[FaceFeatures, FaceFeatures, Alignment | None]:
        """The features of student and (prompted) teacher, and what URFM makes of them.

        Args:
            images: (B, 3, 112, 112) float32 in [-1, 1].
            landmarks: see ``URFM.forward``.
            known: see ``forward``.
        """
        student, teacher, _, alignment = self._features(images, landmarks, known, alone=True)
        return student, teacher, alignment

    def _features(
        self,
        images: Tensor,
        landmarks: Tensor | None,
        known: FaceFeatures | None,
        alone: bool = False,
    ) -> tuple[FaceFeatures, FaceFeatures, FaceFeatures | None, Alignment | None]:
        """``features``, and third what the unprompted teacher says, where terms compare with it,
        unless the prompted one shall stand ``alone``."""
        student = self.student.forward_features(images, stages=self._student_stages)
        unprompted = known
        if self.prompts is None:
            teacher = unprompted = self._unprompted(images) if known is None else known
        elif known is None and self._compares_unprompted and not alone:
            teacher, unprompted = self.prompts.beside_unprompted(
                self.teacher, images, stages=self._teacher_stages
            )
        else:
            teacher = self.prompts(self.teacher, images, stages=self._teacher_stages)
        alignment = None
        if self.urfm is not None:
            with self.student.autocast(images.device.type):
                alignment = self.urfm(student, teacher, landmarks)
        return student, teacher, unprompted, alignment

    @property
    def known_parts(self) -> tuple[str, ...]:
        """What a step uses of the unprompted teacher: of ``embedding``, ``tokens``, ``stages``."""
        if self.prompts is not None:
            return ("embedding",) if self._compares_unprompted else ()
        parts = ["embedding"]
        if self.urfm is not None or self.losses.needing("tokens"):
            parts.append("tokens")
        return (*parts, "stages") if self._teacher_stages else tuple(parts)

    @property
    def _compares_unprompted(self) -> bool:
        kept = self.preservation is not None and self.preservation.needs_unprompted
        return kept or self.anchoring is not None or self.targets_unprompted

    @property
    def targets_unprompted(self) -> bool:
        """Whether losses compare with another output than the prompted teacher's."""
        unprompted = self.prompts is not None and self.config.output_target == "unprompted"
        return unprompted and bool(self.losses.at_output)

    @torch.no_grad()
    def _unprompted(self, images: Tensor) -> FaceFeatures:
        if self._dropped:
            raise RuntimeError("the teacher's weights were dropped: give `known`")
        return self.teacher.forward_features(images, stages=self._teacher_stages)

    def terms(
        self, labels: Tensor | None, partial_fc: MarginHead | None = None
    ) -> dict[str, Tensor]:
        """The weighted terms to add to the margin softmax loss, by name.

        Call it once after each training forward, which it uses up.

        Args:
            labels: (B,) int64, of the local batch; None where there are none.
            partial_fc: the margin softmax head, for losses that need logits or centres.

        Returns:
            scalars (float32), each a mean over the local batch times its weight: one per entry
            of ``cakd.losses``, and ``anchoring`` and ``preservation`` where they are on.

        Raises:
            RuntimeError: there was no training forward since the last call, or the teacher's class
                centres are still to come.
        """
        if self._pending is None:
            raise RuntimeError("terms() needs a forward in training mode before each call")
        if self.awaits_centers:
            raise RuntimeError(
                "terms() needs take_centers() first: cakd.teacher.centers is of data"
            )
        now, self._pending = self._pending, None
        batch = LossBatch(
            labels=labels,
            partial_fc=partial_fc,
            alignment=now.alignment,
            unprompted=now.unprompted,
            teacher_fc=self.teacher_fc,
        )
        output = now.unprompted if self.targets_unprompted else None
        terms = self.losses(now.student, now.teacher, batch, output)
        if self.anchoring is not None:
            # With it URFM is on, and each forward keeps what the unprompted teacher says.
            assert now.alignment is not None and now.unprompted is not None
            anchored = self.anchoring(now.alignment.anchored, now.unprompted.embedding)
            terms["anchoring"] = self.anchoring.weight * anchored
        if self.preservation is not None:
            kept = self.preservation(
                now.teacher.embedding,
                None if now.unprompted is None else now.unprompted.embedding,
                labels,
                self.teacher_fc if self.preservation.needs_centers else None,
            )
            terms["preservation"] = self.preservation.weight * kept
        if self.prompts is not None:
            self.prompts.take_feedback(now.student.embedding, now.teacher.embedding)
        self._last = _Snapshot(
            images=now.images,
            prompted=now.teacher.embedding.detach(),
            unprompted=None if now.unprompted is None else now.unprompted.embedding,
            local=None
            if now.alignment is None
            else (now.alignment.student.detach(), now.alignment.teacher.detach()),
            soundness=self._soundness(now),
        )
        return terms

    @property
    def teacher_soundness(self) -> dict[str, Tensor]:
        """Scalars (float32) by name, of the last step: 0 where what the teacher said is finite,
        else NaN. Names begin with ``THE_TEACHERS`` where no prompts were in it."""
        return {} if self._last is None else self._last.soundness

    def _soundness(self, now: _Forward) -> dict[str, Tensor]:
        found = {}
        if now.unprompted is not None:
            found[f"{THE_TEACHERS}embedding"] = _zero_if_finite(now.unprompted.embedding)
        said, whose = now.teacher, THE_TEACHERS
        if self.prompts is not None:
            whose = "the prompted teacher's "
            found[f"{whose}embedding"] = _zero_if_finite(said.embedding)
        if said.tokens is not None:
            found[f"{whose}pixel features"] = _zero_if_finite(said.tokens)
        return found

    def all_terms(
        self,
        margin: Tensor | None,
        labels: Tensor | None,
        partial_fc: MarginHead | None = None,
    ) -> dict[str, Tensor]:
        """All that a training step adds up: ``margin``, weighted, and after it ``terms``.

        Args:
            margin: scalar, the margin softmax loss of the global batch; None where
                ``cakd.margin_weight`` is 0, which leaves ``margin`` out.
            labels: see ``terms``.
            partial_fc: see ``terms``.
        """
        own = {} if margin is None else {"margin": self.config.margin_weight * margin}
        return own | self.terms(labels, partial_fc)

    def announce(self, logger: logging.Logger) -> None:
        """Log what is on, and warn of what the entry asks for without effect."""
        logger.info("%s", describe(self))
        for line in without_effect(self):
            logger.warning("%s", line)

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict]:
        """Optimiser groups ``student``, ``prompts`` and ``urfm``, empty ones left out.

        Args:
            lr: learning rate of the student; the others have it times ``cakd.lr_scale``.
            weight_decay: of the student; the others have ``cakd.weight_decay``.
        """
        student = [p for p in self.student.parameters() if p.requires_grad]
        prompts = [] if self.prompts is None else list(self.prompts.parameters())
        own = {id(p) for p in (*self.student.parameters(), *prompts)}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in own]
        scale, decay = self.config.lr_scale, self.config.weight_decay
        groups = [
            {"name": "student", "params": student, "lr": lr, "weight_decay": weight_decay},
            {
                "name": "prompts",
                "params": prompts,
                "lr": lr * scale.prompts,
                "weight_decay": decay.prompts,
            },
            {"name": "urfm", "params": rest, "lr": lr * scale.urfm, "weight_decay": decay.urfm},
        ]
        return [group for group in groups if group["params"]]

    def gradient_norms(self, terms: dict[str, Tensor], scale: float = 1.0) -> dict[str, float]:
        """The norm of each term's gradient on the student's parameters, of the local batch.

        Call it before the loss's own backward; it costs one backward per term.

        Args:
            terms: scalars, by name.
            scale: what the terms are multiplied by in the backward pass, and the norms divided by
                afterwards: in float16 small gradients would vanish without it.
        """
        parameters = [p for p in self.student.parameters() if p.requires_grad]
        norms = {}
        for name, term in terms.items():
            if not term.requires_grad:
                norms[name] = 0.0
                continue
            gradients = torch.autograd.grad(
                scale * term, parameters, retain_graph=True, allow_unused=True
            )
            present = [g.detach().norm() for g in gradients if g is not None]
            norms[name] = float(torch.stack(present).norm()) / scale if present else 0.0
        return norms

    @torch.no_grad()
    def diagnostics(self) -> dict[str, float]:
        """Figures on the last step, by name.

        With URFM those of ``alignment_figures``. With prompts ``prompted_cosine``: mean cosine
        between the prompted and the unprompted teacher's embeddings, which falls when prompts
        lead it astray; and ``prompt_norm``: the largest 2-norm of a learned prompt, which grows
        where the alignment losses find a way around the student.
        """
        figures: dict[str, float] = {}
        last = self._last
        if last is None:
            return figures
        if last.local is not None and self.urfm is not None:
            extents = {"student": self.student.extent, "teacher": self.teacher.extent}
            figures |= alignment_figures(*last.local, self.urfm.grids, extents)
        if self.prompts is not None:
            plain = last.unprompted
            if plain is None:
                plain = self._unprompted(last.images).embedding
            cosine = nn.functional.cosine_similarity(last.prompted, plain)
            figures["prompted_cosine"] = float(cosine.mean())
            norms = [prompt.norm(dim=-1) for prompt in self.prompts.prompts.values()]
            figures["prompt_norm"] = float(torch.cat(norms).max()) if norms[0].numel() else 0.0
        return figures
