"""One optimiser step: gradients summed, averaged over ranks, clipped, applied."""

from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from arcface_cakd.distributed import world_size

BUCKET_BYTES = 25 * 2**20


def average_gradients(parameters: Iterable[Tensor], bucket_bytes: int = BUCKET_BYTES) -> None:
    """Replace each gradient by its mean over the ranks, in place; a collective.

    Why not DistributedDataParallel: its hooks expect every backward to end in a parameter's
    gradient, while here the distillation terms are computed outside the wrapped forward, the
    gradient norms of single terms are taken in between, and gradients are summed over
    micro-steps before they are exchanged. It also regroups its buckets after the first step
    of a process, and the order in which more than two ranks add up depends on the grouping:
    a resumed run would differ from a straight one in the last bits. Here the buckets are a
    function of the parameters alone, and there is one exchange for each optimiser step.

    Args:
        parameters: replicated on all ranks, in the same order. One without a gradient takes
            part as zero and stays without.
        bucket_bytes: largest message, but for a single parameter that is larger.
    """
    if world_size() == 1:
        return
    bucket: list[Tensor] = []
    size = 0
    for parameter in parameters:
        bytes_ = parameter.numel() * parameter.element_size()
        if bucket and (size + bytes_ > bucket_bytes or parameter.dtype != bucket[0].dtype):
            _average_bucket(bucket)
            bucket, size = [], 0
        bucket.append(parameter)
        size += bytes_
    if bucket:
        _average_bucket(bucket)


def _average_bucket(parameters: list[Tensor]) -> None:
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    parts = flat.split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        if parameter.grad is not None:
            parameter.grad.copy_(part.view_as(parameter))


def clipping_budgets(
    groups: Mapping[str, list[Tensor]], shared: bool = False
) -> dict[str, list[Tensor]]:
    """The parameters whose gradients are clipped together, by what to call them.

    ``student`` has a budget of its own, and the rest (prompts, URFM, heads) share a second one,
    so that what distillation adds cannot shrink the student's steps; unless ``shared``.

    Args:
        groups: parameters by the name of their optimiser group. Those of ``partial_fc``, whose
            gradient is that of the global batch, are never clipped, as in arcface_torch.
        shared: one budget for everything.
    """
    replicated = {name: params for name, params in groups.items() if name != "partial_fc"}
    heads = [p for name, params in replicated.items() if name != "student" for p in params]
    if shared and heads:
        return {"student and distillation heads": [*replicated["student"], *heads]}
    budgets = {"student": replicated["student"], "distillation heads": heads}
    return {name: params for name, params in budgets.items() if params}


class Stepper:
    """Backward passes and optimiser steps.

    The groups of the optimiser are known by their ``"name"``: ``partial_fc`` holds this rank's
    class centres; all other groups are replicated on the ranks.

    Args:
        optimizer: see above.
        clip_grad_norm: largest 2-norm of each of ``clipping_budgets``; None clips nothing.
        scaler: for float16, else None.
        shared_clipping: one budget for the student and all that distillation adds.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        clip_grad_norm: float | None,
        scaler: torch.amp.GradScaler | None = None,
        shared_clipping: bool = False,
    ):
        self.optimizer = optimizer
        self.scaler = scaler
        self._clip = clip_grad_norm
        groups = {group["name"]: group["params"] for group in optimizer.param_groups}
        self._replicated = [p for name in groups if name != "partial_fc" for p in groups[name]]
        self._centers = groups.get("partial_fc", [])
        self._budgets = clipping_budgets(groups, shared_clipping)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of ``loss`` to what has been summed since the last ``prepare``."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def prepare(self, all_norms: bool = False) -> dict[str, Tensor]:
        """Average the summed gradients over the ranks and clip them.

        Args:
            all_norms: give those also of what is not clipped, this rank's class centres included.

        Returns:
            the norm of each budget before clipping, by name; empty where nothing is clipped, and
            where every micro-step was left out.
        """
        average_gradients(self._replicated)
        if not self._has_gradients:
            return {}
        norms = self._norms(self._unclipped()) if all_norms else {}
        return norms | self._clipped()

    @property
    def _has_gradients(self) -> bool:
        return any(p.grad is not None for p in self._replicated)

    def _unclipped(self) -> dict[str, list[Tensor]]:
        centers = {"class centres": self._centers}
        return centers if self._clip is not None else self._budgets | centers

    @staticmethod
    def _norms(groups: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
        found = {}
        for name, parameters in groups.items():
            gradients = [p.grad for p in parameters if p.grad is not None]
            if gradients:
                norms = torch.stack([torch.linalg.vector_norm(g) for g in gradients])
                found[f"gradient of the {name}"] = torch.linalg.vector_norm(norms)
        return found

    def _clipped(self) -> dict[str, Tensor]:
        if self._clip is None:
            return {}
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        return {
            f"gradient of the {name}": clip_grad_norm_(parameters, self._clip)
            for name, parameters in self._budgets.items()
        }

    def apply(self) -> None:
        """Step the optimiser and forget the gradients.

        With a scaler, a step whose gradients overflowed is skipped and the scale halved.
        """
        if self.scaler is None:
            self.optimizer.step()
        elif self._has_gradients:  # where every micro-step was left out it would have nothing
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.drop()

    def drop(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad()
