"""The losses of a run, by name, each with its weight."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from arcface_cakd.config import ConfigError, LossEntry
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import PIXEL_FEATURES, DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.schedule import WeightSchedule
from arcface_cakd.registry import LOSSES


class WeightedLosses(nn.ModuleDict):
    """The losses of ``cakd.losses``. One that is listed twice is named ``<name>_2`` there.

    Its state dict holds what the losses learn and keep, and ``steps_done``.

    Args:
        entries: the validated entries.
        dims: the widths of what the losses will see.
        run_steps: micro-steps of the whole run, for schedules that take all of it.

    Attributes:
        steps_done: micro-steps since the run first started, which the schedules go by.

    Raises:
        ConfigError: a registered loss is no ``DistillationLoss``, or a loss cannot be had with
            these widths or settings.
    """

    def __init__(
        self, entries: Iterable[LossEntry], dims: FeatureDims, run_steps: int | None = None
    ):
        super().__init__()
        self.steps_done = 0
        self._run_steps = run_steps
        self._weights: dict[str, tuple[float, WeightSchedule]] = {}
        for entry in entries:
            loss = LOSSES.get(entry.name)(dims, **entry.settings)
            if not isinstance(loss, DistillationLoss):
                raise ConfigError(
                    f"loss {entry.name!r} is a {type(loss).__name__}, not a DistillationLoss: "
                    "derive it from arcface_cakd.losses.DistillationLoss"
                )
            name, number = entry.name, 2
            while name in self:
                name, number = f"{entry.name}_{number}", number + 1
            self[name] = loss
            try:
                schedule = WeightSchedule(**(entry.schedule or {}))
            except ConfigError as error:
                raise ConfigError(f"loss {name!r}: {error}") from error
            self._weights[name] = entry.weight, schedule

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each loss, by name, whatever its schedule makes of it."""
        return {name: weight for name, (weight, _) in self._weights.items()}

    @property
    def described(self) -> list[str]:
        """Each loss with its weight and what becomes of that, for a line of the log."""
        return [
            f"{name} x {weight:g}{schedule.describe(self._run_steps)}"
            for name, (weight, schedule) in self._weights.items()
        ]

    @property
    def unscheduled(self) -> list[str]:
        """The names of the losses whose schedule takes the whole run, where that is not known."""
        return [
            name
            for name, (_, schedule) in self._weights.items()
            if schedule.kind != "constant" and schedule.steps is None and self._run_steps is None
        ]

    @property
    def at_output(self) -> list[str]:
        """The names of the losses that look at the teacher's output alone, no pixel features."""
        return [name for name in self if name not in self.needing(*PIXEL_FEATURES)]

    def needing(self, *needs: str) -> list[str]:
        """The names of the losses that need any of these."""
        return [
            name
            for name, loss in self.items()
            if isinstance(loss, DistillationLoss) and loss.needs.intersection(needs)
        ]

    def get_extra_state(self) -> Tensor:
        """``steps_done``, int64 (), for the state dict."""
        return torch.tensor(self.steps_done)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on from a ``get_extra_state``."""
        self.steps_done = int(state)

    def forward(
        self,
        student: FaceFeatures,
        teacher: FaceFeatures,
        batch: LossBatch,
        output: FaceFeatures | None = None,
    ) -> dict[str, Tensor]:
        """The weighted losses of a micro-step, scalars by name; moves the schedules on by one.

        Args:
            output: the teacher's features for the losses ``at_output``; None: ``teacher``.
        """
        terms = {}
        at_output = self.at_output
        for name, loss in self.items():
            weight, schedule = self._weights[name]
            # A weight of 0 multiplies and does not skip: every step has the same graph.
            target = output if output is not None and name in at_output else teacher
            factor = weight * schedule.factor(self.steps_done, self._run_steps)
            terms[name] = factor * loss(student, target, batch)
        self.steps_done += 1
        return terms
