"""How the weight of a term changes over a run."""

from dataclasses import dataclass
from typing import Annotated, Literal

from arcface_cakd.config.settings import Range
from arcface_cakd.registry import SECTIONS


@SECTIONS.register("schedule")
@dataclass(frozen=True)
class WeightSchedule:
    """A factor on the weight of a loss, a function of the micro-steps done since the run began.

    Attributes:
        kind: "constant", 1 throughout; "warmup", from ``floor`` linearly to 1; "decay", from 1
            linearly to ``floor``.
        steps: micro-steps that the change takes; the factor stays where it ends. One micro-step
            is one batch, so with ``gradient_acc`` there are several to a step of the optimiser.
        floor: the factor before a warm-up or after a decay.
    """

    kind: Literal["constant", "warmup", "decay"] = "constant"
    steps: Annotated[int, Range(1)] = 1
    floor: Annotated[float, Range(0.0, 1.0)] = 0.0

    def factor(self, step: int) -> float:
        """The factor after ``step`` micro-steps."""
        if self.kind == "constant":
            return 1.0
        progress = min(step / self.steps, 1.0)
        share = progress if self.kind == "warmup" else 1.0 - progress
        return self.floor + (1.0 - self.floor) * share
