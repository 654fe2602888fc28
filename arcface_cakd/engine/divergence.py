"""Stops a run whose loss or gradient is no longer finite, and says why."""

from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from arcface_cakd.distributed import world_size
from arcface_cakd.engine.errors import DivergenceError

_NEVER = 2**62


class DivergenceGuard:
    """Remembers, on the device, the first step at which each watched value was not finite.

    ``observe`` queues a few small kernels and never waits for the device; ``check`` waits, and
    with several ranks is a collective, so that all of them stop together.

    Args:
        device: where the watched values are.
        advice: settings of this run that its user may change, for the message.
    """

    def __init__(self, device: torch.device, advice: str):
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

    def check(self) -> None:
        """Stop if anything observed so far was not finite, on any rank.

        Raises:
            DivergenceError: naming the first such step and what was not finite then.
        """
        if not self._first:
            return
        first = torch.cat(list(self._first.values()))
        if world_size() > 1:
            dist.all_reduce(first, op=dist.ReduceOp.MIN)
        steps = first.tolist()
        if min(steps) == _NEVER:
            return
        names = [name for kind in self._first for name in kind]
        culprits = ", ".join(
            name for name, step in zip(names, steps, strict=True) if step == min(steps)
        )
        self.stop(min(steps), f"not finite: {culprits}")

    def stop(self, step: int, problem: str) -> NoReturn:
        """End the run.

        Raises:
            DivergenceError: always.
        """
        raise DivergenceError(
            f"training diverged at step {step}: {problem}; nothing was saved since. {self._advice}"
        )
