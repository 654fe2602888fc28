"""A distiller inside arcface_torch's training step."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.utils import clip_grad_norm_

from arcface_cakd.arcface_torch.user_errors import exiting_on_user_error
from arcface_cakd.config import ConfigError
from arcface_cakd.distiller import Distiller
from arcface_cakd.engine.divergence import DivergenceGuard, is_the_teachers, teachers_advice
from arcface_cakd.engine.meters import Meter
from arcface_cakd.engine.stepping import clipping_budgets
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import total
from arcface_cakd.partial_fc import MarginHead
from arcface_cakd.teacher_cache import TeacherCache, as_features

# Gradient norms cost a backward pass for each term: every so many log lines.
LINES_PER_NORMS = 10
# Keeps small gradients of single terms alive in float16; the loop's own scaler is out of reach.
_NORM_SCALE = 2.0**16


class HostDistiller(Distiller):
    """A ``Distiller`` that also keeps the figures for the host's log.

    Attributes:
        cache: the teacher's, where ``cakd.teacher.cache`` asks for one.
        frequent: micro-steps between two log lines.
        figures: what the latest log step found, by name: the terms, weighted, as means over the
            ranks and the micro-steps since the log step before; diagnostics of this rank's last
            batch; and, every ``LINES_PER_NORMS`` log steps, the norm of each term's gradient.
    """

    def __init__(self, *args: Any, frequent: int, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.frequent = frequent
        self._guard: DivergenceGuard | None = None
        groups = {g["name"]: g["params"] for g in self.parameter_groups(0.0, 0.0)}
        self._budgets = clipping_budgets(groups, self.config.clipping == "shared")
        self.figures: dict[str, float] = {}
        self._meter = Meter()
        self.cache: TeacherCache | None = None
        self._landmarks: Tensor | None = None
        self._places: Tensor | None = None

    def take(self, landmarks: Tensor | None, places: Tensor | None) -> None:
        """What rides with the labels of the images of the next training forward.

        Args:
            landmarks: (B, 5, 2), in pixels.
            places: (B, 2), each image's place in the order of the keys, and 1 where it is flipped.
        """
        self._landmarks, self._places = landmarks, places

    def forward(
        self, images: Tensor, landmarks: Tensor | None = None, known: FaceFeatures | None = None
    ) -> Tensor:
        """As a ``Distiller``'s; the host gives the images alone."""
        if self.training and landmarks is None:
            landmarks, self._landmarks = self._landmarks, None
            if landmarks is None and self.config.needs_landmarks:
                with exiting_on_user_error():
                    raise ConfigError(
                        'cakd.urfm.landmarks="image" needs the landmarks of every image, and this '
                        "train_v2.py does not hand them over: update it with `arcface-cakd patch`, "
                        'or set cakd.urfm.landmarks="template"'
                    )
        if self.training and known is None and self.config.teacher["cache"] is not None:
            known = self._known(images.device)
        with exiting_on_user_error(of_one_rank=True):
            # Only where there is one: what wraps this may know of images and landmarks alone.
            return super().forward(images, landmarks, *([] if known is None else [known]))

    def _known(self, device: torch.device) -> FaceFeatures | None:
        """What the teacher's cache says of the images at hand; None where nothing would use it."""
        places, self._places = self._places, None
        if not self.known_parts:
            return None
        if self.cache is None or places is None:
            with exiting_on_user_error():
                raise ConfigError(
                    "cakd.teacher.cache needs to know which image is which, and this train_v2.py "
                    "does not say: update it with `arcface-cakd patch`, or drop the setting"
                )
        positions, flips = places.cpu().long().numpy().T
        with exiting_on_user_error(of_one_rank=True):
            rows = self.cache.read(positions, flips.astype(bool), 0)
        known = {name: torch.from_numpy(array) for name, array in rows.items()}
        return as_features(known, self.cache.grid, device)

    def total(self, margin: Tensor, labels: Tensor, partial_fc: MarginHead) -> Tensor:
        """The loss of this micro-step: the weighted margin softmax loss and every term.

        With ``cakd.margin_weight`` 0 the host's loss is left where it is: no gradient of it is
        computed, and its centres, which then never have one, never move.
        """
        with exiting_on_user_error(of_one_rank=True):
            if self.config.margin_weight > 0:
                terms = self.all_terms(margin, labels, partial_fc)
            else:
                terms = self.all_terms(None, labels)
        step = self.losses.steps_done
        values = torch.stack([t.detach() for t in terms.values()])
        self._meter.update(tuple(terms), values)
        said = self.teacher_soundness
        if self._guard is None:
            self._guard = DivergenceGuard(values.device, self._advice)
        self._guard.observe(
            step, (*said, *terms), torch.cat([torch.stack(list(said.values())), values])
        )
        if step % self.frequent == 0:
            self.figures = dict(zip(terms, self._meter.read(), strict=True)) | self.diagnostics()
            if step % (self.frequent * LINES_PER_NORMS) == 0:
                # Not of the margin: the host's Partial FC computes its gradient in place, and
                # a second backward pass through it would be wrong.
                own = {name: term for name, term in terms.items() if name != "margin"}
                scale = _NORM_SCALE if self.amp_dtype is torch.float16 else 1.0
                norms = self.gradient_norms(own, scale)
                self.figures |= {f"gradient_norm/{name}": norm for name, norm in norms.items()}
        return total(terms.values())

    def check(self, together: bool = True) -> None:
        """End the program with one line where a term of a step so far, or what the teacher said,
        was not finite on any rank; a collective.

        The host has waited for the step when this is called: at the begin of the next one, and
        before anything is saved.

        Args:
            together: False: look at this rank alone, no collective.
        """
        if self._guard is not None:
            with exiting_on_user_error():
                self._guard.check(together)

    def _advice(self, culprits: Sequence[str]) -> str:
        fp16 = self.amp_dtype is torch.float16
        if is_the_teachers(culprits):
            return teachers_advice(self.config.teacher, fp16)
        way = "lower config.lr or lengthen warmup_epoch; lower the weight of the term named"
        return f"{way}; set config.bf16 instead of fp16" if fp16 else way

    def clip(self, max_norm: float) -> Tensor:
        """Clip the gradients of each of ``clipping_budgets``; the norm of all before, a scalar."""
        norms = [clip_grad_norm_(parameters, max_norm) for parameters in self._budgets.values()]
        return torch.stack(norms).norm()


def distiller_of(backbone: nn.Module) -> HostDistiller | None:
    """The distiller that the host's backbone is, in DistributedDataParallel or not; else None."""
    module = getattr(backbone, "module", backbone)
    return module if isinstance(module, HostDistiller) else None


def labels(backbone: nn.Module, batch_labels: Tensor) -> Tensor:
    """The labels of a batch, (B,) int64; what rides with them goes to the distiller.

    In distillation a loss of the step before that was not finite ends the program here.

    Args:
        backbone: the host's, in DistributedDataParallel or not.
        batch_labels: what the host's loader gave: one for each image, or (B, 1 + 10 + 2) or less
            as ``FaceItems`` has it.
    """
    distiller = distiller_of(backbone)
    if distiller is None:
        return batch_labels
    distiller.check()
    landmarks = 10 * distiller.config.needs_landmarks
    places = 2 * (distiller.config.teacher["cache"] is not None)
    # What a fork has of its own beside its labels is none of ours.
    if landmarks + places == 0 or batch_labels.shape[1:] != (1 + landmarks + places,):
        return batch_labels
    distiller.take(
        batch_labels[:, 1:11].unflatten(1, (5, 2)) if landmarks else None,
        batch_labels[:, -2:] if places else None,
    )
    return batch_labels[:, 0].long()


def total_loss(loss: Tensor, backbone: nn.Module, labels: Tensor, partial_fc: MarginHead) -> Tensor:
    """The loss to back-propagate: ``loss`` itself, or with the terms of distillation.

    Args:
        loss: scalar, Partial FC's margin softmax loss of the global batch.
        backbone: the host's, in DistributedDataParallel, after a training forward.
        labels: (B,) int64, of the local batch.
        partial_fc: the host's ``PartialFC_V2``.

    Returns:
        scalar: cakd.margin_weight * loss (nothing of it where that is 0) + the weighted terms,
        each a mean over the local batch.
        Partial FC scales its gradient so that a mean of each rank's own fits beside it.
    """
    distiller = distiller_of(backbone)
    return loss if distiller is None else distiller.total(loss, labels, partial_fc)


def comm_hook(backbone: nn.Module, hook: Callable) -> Callable:
    """The hook that averages gradients over the ranks: the host's own, or float32 in distillation.

    The host's compresses to float16 always, and gradients of alignment losses that are smaller
    than 6e-8 there would become zero. float32 doubles what the ranks exchange.
    """
    return hook if distiller_of(backbone) is None else allreduce_hook


def parameter_groups(backbone: nn.Module, cfg: Any) -> list[dict]:
    """The optimiser's groups but for Partial FC's, which the host puts last.

    One group for a plain backbone; ``student``, ``prompts`` and ``urfm`` in distillation, with
    ``cakd.lr_scale`` and ``cakd.weight_decay``.
    """
    distiller = distiller_of(backbone)
    if distiller is None:
        return [{"params": backbone.parameters()}]
    return distiller.parameter_groups(cfg.lr, cfg.weight_decay)


def clip_grad_norm(backbone: nn.Module, max_norm: float) -> Tensor:
    """Clip gradients in place; in distillation by the budgets that ``cakd.clipping`` says.

    Returns:
        scalar, the 2-norm of all gradients before clipping.
    """
    distiller = distiller_of(backbone)
    if distiller is None:
        return clip_grad_norm_(backbone.parameters(), max_norm)
    return distiller.clip(max_norm)
