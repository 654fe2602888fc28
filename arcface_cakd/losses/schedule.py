"""How the weight of a term changes over a run."""

from dataclasses import dataclass
from typing import Annotated, Literal

from arcface_cakd.config.settings import ConfigError, Range
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
            None: those of the whole run.
        floor: the factor before a warm-up or after a decay.

    Raises:
        ConfigError: steps or floor of a constant weight.
    """

    kind: Literal["constant", "warmup", "decay"] = "constant"
    steps: Annotated[int | None, Range(1)] = None
    floor: Annotated[float, Range(0.0, 1.0)] = 0.0

    def __post_init__(self) -> None:
        if self.kind == "constant" and (self.steps is not None or self.floor != 0.0):
            raise ConfigError(
                "steps and floor of a schedule are of a weight that changes: set its kind to "
                '"warmup" or "decay", or drop them'
            )

    def describe(self, run_steps: int | None = None) -> str:
        """What becomes of the weight, for a line of the log; "" where it is constant."""
        steps = run_steps if self.steps is None else self.steps
        if self.kind == "constant" or steps is None:
            return ""
        way = "rising from" if self.kind == "warmup" else "falling to"
        return f" {way} {self.floor:g} of it over {steps} steps"

    def factor(self, step: int, run_steps: int | None = None) -> float:
        """The factor after ``step`` micro-steps.

        Args:
            run_steps: micro-steps of the whole run; where they are not known, a change that takes
                the whole run does not take place, and the factor is 1.
        """
        steps = run_steps if self.steps is None else self.steps
        if self.kind == "constant" or steps is None:
            return 1.0
        progress = min(step / max(steps, 1), 1.0)
        share = progress if self.kind == "warmup" else 1.0 - progress
        return self.floor + (1.0 - self.floor) * share
