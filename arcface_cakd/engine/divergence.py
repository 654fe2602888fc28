"""Stops a run whose loss or gradient is no longer finite, and says why."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from arcface_cakd.backbones.onnx_teacher import ONNX
from arcface_cakd.config import TrainConfig
from arcface_cakd.distiller import THE_TEACHERS
from arcface_cakd.distributed import world_size
from arcface_cakd.engine.errors import DivergenceError

_NEVER = 2**62


class DivergenceGuard:
    """Remembers, on the device, the first step at which each watched value was not finite.

    ``observe`` queues a few small kernels and never waits for the device; ``check`` waits, and
    with several ranks is a collective, so that all of them stop together.

    Args:
        device: where the watched values are.
        advice: gives settings of this run that its user may change, for the message, by the
            names of what was not finite.
    """

    def __init__(self, device: torch.device, advice: Callable[[Sequence[str]], str]):
        self._device = device
        self._advice = advice
        self._first: dict[tuple[str, ...], Tensor] = {}

    def observe(self, step: int, names: tuple[str, ...], values: Tensor) -> None:
        """Watch ``values`` (len(names),), the same names at every call of a kind."""
        if names not in self._first:
            self._first[names] = torch.full((len(names),), _NEVER, device=self._device)
        fine = torch.isfinite(values.detach())
        self._first[names] = torch.where(
            fine, self._first[names], self._first[names].clamp(max=step)
        )

    def check(self, together: bool = True) -> None:
        """Stop if anything observed so far was not finite, on any rank.

        Args:
            together: False: look at this rank alone, no collective.

        Raises:
            DivergenceError: naming the first such step and what was not finite then.
        """
        if not self._first:
            return
        first = torch.cat(list(self._first.values()))
        if together and world_size() > 1:
            dist.all_reduce(first, op=dist.ReduceOp.MIN)
        steps = first.tolist()
        if min(steps) == _NEVER:
            return
        names = [name for kind in self._first for name in kind]
        culprits = [name for name, step in zip(names, steps, strict=True) if step == min(steps)]
        self.stop(min(steps), f"not finite: {', '.join(culprits)}", culprits)

    def stop(self, step: int, problem: str, culprits: Sequence[str] = ()) -> NoReturn:
        """End the run.

        Args:
            step: where it happened.
            problem: what is wrong.
            culprits: the names of what was not finite.

        Raises:
            DivergenceError: always.
        """
        raise DivergenceError(
            f"training diverged at step {step}: {problem}; nothing was saved since. "
            f"{self._advice(culprits)}"
        )


def advice(config: TrainConfig, culprits: Iterable[str] = ()) -> str:
    """What to change when a run of the built-in loop diverges."""
    if config.cakd is not None and is_the_teachers(culprits):
        return teachers_advice(config.cakd.teacher, config.fp16)
    ways = [f"lower lr (now {config.lr:g}) or lengthen warmup_epoch (now {config.warmup_epoch:g})"]
    if config.fp16:
        ways.append("set bf16=True instead of fp16=True")
    if config.clip_grad_norm is None:
        ways.append("set clip_grad_norm=5.0")
    if config.cakd is not None:
        ways.append("lower the weight of the term named")
    return "; ".join(ways)


def is_the_teachers(culprits: Iterable[str]) -> bool:
    """Whether the frozen teacher's own output was not finite, which no learning rate mends."""
    return any(name.startswith(THE_TEACHERS) for name in culprits)


def teachers_advice(teacher: Mapping[str, Any], fp16: bool) -> str:
    """What to change where the teacher's own output is not finite.

    Args:
        teacher: ``cakd.teacher``.
        fp16: whether the run is in float16.
    """
    overflows = "It is the teacher that overflows, whatever the student learns"
    of_a_file = teacher["network"].startswith(ONNX)  # and so in the precision of that
    if fp16 and not (teacher["bf16"] or of_a_file):
        return f"{overflows}, as float16 ends at 65504: set cakd.teacher.bf16=True"
    another = "other weights (cakd.teacher.weights)"
    if of_a_file:
        another = "another file (cakd.teacher.network)"
    also = " and a new folder for its cache (cakd.teacher.cache)" if teacher["cache"] else ""
    return f"{overflows}: take {another}{also}"
