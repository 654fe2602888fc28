"""The learning rate over a run: linear warm-up, then polynomial decay to zero."""

from typing import Any

from torch.optim import Optimizer


def warmup_polynomial(step: int, warmup_steps: int, total_steps: int, power: float = 1.0) -> float:
    """The factor on the learning rate after ``step`` micro-steps, as arcface_torch has it.

    step / warmup_steps up to ``warmup_steps``, then
    ((total_steps - step) / (total_steps - warmup_steps)) ** power. Before the first micro-step
    the factor is 1, as in arcface_torch, whose scheduler leaves the rate alone at step 0: its
    very first micro-step runs at the full rate, warm-up or not.

    Args:
        step: micro-steps done, from 0.
        warmup_steps: length of the warm-up; 0 for none.
        total_steps: where the factor reaches 0.
        power: exponent of the decay; arcface_torch trains with 1.
    """
    if step == 0:
        return 1.0
    if step <= warmup_steps:
        return step / warmup_steps
    if step >= total_steps:
        return 0.0
    return ((total_steps - step) / (total_steps - warmup_steps)) ** power


class Schedule:
    """Sets the learning rate of every group of an optimiser, each from its own base rate.

    The rate is a function of the step alone, so a resumed run may have another number of
    epochs or another base rate than the one that was stopped.

    Args:
        optimizer: the ``lr`` that its groups have now is their base rate.
        warmup_steps: see ``warmup_polynomial``.
        total_steps: see ``warmup_polynomial``.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, total_steps: int):
        self.optimizer = optimizer
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.base_rates = [group["lr"] for group in optimizer.param_groups]
        self._done = 0

    def step(self) -> None:
        """Move on by one micro-step."""
        self._done += 1
        self._set_rates()

    def state_dict(self) -> dict[str, Any]:
        """``steps``, and besides what arcface_torch's scheduler goes on from."""
        return {
            "steps": self._done,
            "last_epoch": self._done,
            "_step_count": self._done + 1,
            "base_lrs": self.base_rates,
            "_last_lr": [group["lr"] for group in self.optimizer.param_groups],
            "warmup_iters": self.warmup_steps,
            "total_iters": self.total_steps,
            "power": 1.0,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a ``state_dict``, or from that of arcface_torch's scheduler."""
        self._done = state["steps"] if "steps" in state else state["last_epoch"]
        self._set_rates()

    def _set_rates(self) -> None:
        factor = warmup_polynomial(self._done, self.warmup_steps, self.total_steps)
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * factor
