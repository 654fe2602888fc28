"""The losses of a run, by name, each with its weight."""

import inspect
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from arcface_cakd.config import ConfigError, LossEntry
from arcface_cakd.features import FaceFeatures, times_changed
from arcface_cakd.losses.base import (
    PIXEL_FEATURES,
    DistillationLoss,
    FeatureDims,
    LossBatch,
    LossError,
)
from arcface_cakd.losses.schedule import WeightSchedule
from arcface_cakd.registry import LOSSES

_OTHER_TERMS = ("margin", "anchoring", "preservation")  # of a step, beside the losses


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
        ConfigError: a registered loss is no ``DistillationLoss``, has the name of another term or
            one that no module may have, or a loss cannot be had with these widths or settings.
    """

    def __init__(
        self, entries: Iterable[LossEntry], dims: FeatureDims, run_steps: int | None = None
    ):
        super().__init__()
        self.steps_done = 0
        self._run_steps = run_steps
        self._weights: dict[str, tuple[float, WeightSchedule]] = {}
        for entry in entries:
            if entry.name not in self:
                self._check_name(entry.name)
            loss = _built(entry, dims)
            name, number = entry.name, 2
            while name in self:
                name, number = f"{entry.name}_{number}", number + 1
            self[name] = loss
            try:
                schedule = WeightSchedule(**(entry.schedule or {}))
            except ConfigError as error:
                raise ConfigError(f"loss {name!r}: {error}") from error
            self._weights[name] = entry.weight, schedule

    def _check_name(self, name: str) -> None:
        """Refuse names that would hide another term, or that a module cannot have."""
        if name in _OTHER_TERMS or not name or "." in name or hasattr(self, name):
            raise ConfigError(
                f"no loss can have the name {name!r}, which is another term's, an attribute of the "
                "losses, empty, or has a dot: register it in LOSSES under another one"
            )

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
    def without_effect(self) -> list[str]:
        """Settings of the losses and of their schedules that change nothing, a line each."""
        lines = []
        for name, loss in self.items():
            if isinstance(loss, DistillationLoss):
                lines += [f"loss {name!r}: {line}" for line in loss.without_effect]
            _, schedule = self._weights[name]
            if schedule.kind != "constant" and schedule.floor == 1:
                lines.append(
                    f"loss {name!r}: its schedule has no effect, as the weight times a floor of 1 "
                    "is the weight: lower schedule.floor, or drop the schedule"
                )
            elif schedule.kind == "warmup" and (schedule.steps or 0) > (
                self._run_steps or math.inf
            ):
                lines.append(
                    f"loss {name!r} never gets its whole weight: its warm-up takes "
                    f"{schedule.steps} steps, and the run has {self._run_steps}: lower "
                    "schedule.steps"
                )
        return lines

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

        Raises:
            LossError: a loss gives no floating-point scalar or, in training, one that is not 0 and
                that nothing learns from.
        """
        terms = {}
        at_output = self.at_output
        for name, loss in self.items():
            weight, schedule = self._weights[name]
            # A weight of 0 multiplies and does not skip: every step has the same graph.
            target = output if output is not None and name in at_output else teacher
            factor = weight * schedule.factor(self.steps_done, self._run_steps)
            before = _changes(student, target)
            value = loss(student, target, batch)
            if _changes(student, target) != before:
                raise LossError(
                    f"loss {name!r} changes features in place, which other terms look at too: let "
                    "it compute new tensors, without operations such as mul_ and relu_"
                )
            _check_value(name, value, learns=self.training and _has_gradient(student))
            terms[name] = factor * value
        self.steps_done += 1
        return terms


def _built(entry: LossEntry, dims: FeatureDims) -> DistillationLoss:
    component: Callable = LOSSES.get(entry.name)
    derive = "derive a class from arcface_cakd.losses.DistillationLoss, and register that"
    try:
        inspect.signature(component).bind(dims, **entry.settings)
    except TypeError as error:
        raise ConfigError(
            f"loss {entry.name!r} cannot be built of the networks' widths and its settings alone "
            f"({error}): {derive}"
        ) from error
    loss = component(dims, **entry.settings)
    if not isinstance(loss, DistillationLoss):
        raise ConfigError(
            f"loss {entry.name!r} is a {type(loss).__name__}, not a DistillationLoss: {derive}"
        )
    return loss


def _has_gradient(student: FaceFeatures) -> bool:
    """Whether gradients reach all that a loss may look at, so that none of it is frozen."""
    return torch.is_grad_enabled() and all(part.requires_grad for part in student.parts)


def _changes(*sides: FaceFeatures) -> list[int | None]:
    """How often what losses look at was changed in place."""
    return [times_changed(part) for side in sides for part in side.parts]


def _check_value(name: str, value: object, learns: bool) -> None:
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.dim():
        found = type(value).__name__
        if isinstance(value, Tensor):
            found = f"{value.dtype} tensor of shape {tuple(value.shape)}"
        raise LossError(
            f"loss {name!r} gave a {found}, not a floating-point scalar tensor: let its forward "
            "return one, such as a mean over the batch"
        )
    # A constant 0 is fair: a queue may not be full, a batch hold no pair.
    if learns and not value.requires_grad and bool(value.isfinite() & (value != 0)):
        raise LossError(
            f"loss {name!r} has no gradient, so that nothing learns from it: compute it of the "
            "student's features as they are, without detach, no_grad or numbers of Python"
        )
