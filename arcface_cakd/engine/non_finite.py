"""What becomes of a step with a value that is not finite: it ends the run, or is left out."""

import logging

import torch
import torch.distributed as dist
from torch import Tensor

from arcface_cakd.config import TrainConfig
from arcface_cakd.distiller import Distiller
from arcface_cakd.distributed import is_main, world_size
from arcface_cakd.engine.builders import Run
from arcface_cakd.engine.divergence import DivergenceGuard
from arcface_cakd.engine.meters import Meter
from arcface_cakd.engine.soundness import KeptBuffers, not_finite_buffers

logger = logging.getLogger("arcface_cakd")

_STATISTICS = "statistics that the forward pass moves"


class NonFinitePolicy:
    """Judges each micro-step's loss and each optimiser step's gradient, by ``config.non_finite``.

    ``"stop"`` queues small kernels and waits for the device where it is told to look. ``"skip"``
    looks at once, on all ranks together, and where a value is not finite on any of them gives the
    buffers (BatchNorm's statistics, memory banks) back what they were before. What was drawn,
    schedules and the order of images go on as if nothing had happened.

    Args:
        run: what is trained.
        config: its config.
        guard: what ends the run.
        meter: counts what is left out, and keeps that in a checkpoint.
    """

    def __init__(self, run: Run, config: TrainConfig, guard: DivergenceGuard, meter: Meter):
        self._run, self._guard, self._meter = run, guard, meter
        self.skips = config.non_finite == "skip"
        self._limit = config.non_finite_limit
        self._kept: KeptBuffers | None = None

    def before_forward(self) -> None:
        """A forward pass in training mode is about to begin."""
        self._kept = KeptBuffers(self._run) if self.skips else None

    def takes(self, step: int, names: tuple[str, ...], values: Tensor, look: bool) -> bool:
        """Whether a micro-step is to be learned from, the same on every rank.

        Args:
            step: its number.
            names: of the terms of its loss.
            values: (len(names),), the terms.
            look: whether "stop" may wait for the device.

        Raises:
            DivergenceError: see the class; or more was left out than ``non_finite_limit``.
        """
        if isinstance(self._run.model, Distiller):
            teachers = self._run.model.teacher_soundness
            names = (*teachers, *names)
            values = torch.cat([torch.stack(list(teachers.values())).to(values), values])
        if not self.skips:
            self._observe(step, names, values, look)
            return True
        assert self._kept is not None  # before_forward was called
        moved = torch.tensor([float("nan") if not_finite_buffers(self._run) else 0.0])
        culprits = _culprits((*names, _STATISTICS), torch.cat([values, moved.to(values)]))
        if culprits:
            self._kept.give_back()
            self._leave_out(step, culprits, "micro-step")
        self._kept = None
        return not culprits

    def takes_gradient(self, step: int, norms: dict[str, Tensor], look: bool) -> bool:
        """Whether an optimiser step is to be made, the same on every rank.

        Args:
            step: the micro-step that it ends with.
            norms: of its gradients, by what to call them; empty where nobody is to judge.
            look: see ``takes``.

        Raises:
            DivergenceError: see ``takes``.
        """
        if not norms:
            return True
        names, values = tuple(norms), torch.stack(list(norms.values()))
        if not self.skips:
            self._observe(step, names, values, look)
            return True
        culprits = _culprits(names, values)
        if culprits:
            self._leave_out(step, culprits, "optimiser step")
        return not culprits

    def _observe(self, step: int, names: tuple[str, ...], values: Tensor, look: bool) -> None:
        self._guard.observe(step, names, values)
        if look:
            self._guard.check()

    def _leave_out(self, step: int, culprits: list[str], what: str) -> None:
        problem = f"not finite: {', '.join(culprits)}"
        if self._meter.left_out >= self._limit:
            self._guard.stop(
                step, f"{problem}, after {self._limit} left out (non_finite_limit)", culprits
            )
        self._meter.leave_out()
        if is_main():
            count = f"{self._meter.left_out} of at most {self._limit}"
            logger.warning("step %d: %s: the %s is left out (%s)", step, problem, what, count)


def _culprits(names: tuple[str, ...], values: Tensor) -> list[str]:
    """The names of what is not finite on any rank; a collective."""
    bad = (~torch.isfinite(values.detach())).to(torch.int32)
    if world_size() > 1:
        dist.all_reduce(bad, op=dist.ReduceOp.MAX)
    return [name for name, found in zip(names, bad.tolist(), strict=True) if found]
