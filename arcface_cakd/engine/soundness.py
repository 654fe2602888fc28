"""Whether a run's state is worth keeping: one that cannot go on must not replace one that can."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from arcface_cakd.alignment import URFM
from arcface_cakd.distiller import Distiller
from arcface_cakd.distributed import gather_objects
from arcface_cakd.engine.builders import Run
from arcface_cakd.engine.random_state import random_state, restore_random_state
from arcface_cakd.losses.base import DistillationLoss, total

LEAP = 10.0
"""How many times the loss of a batch may be what it was before the step that learned from it."""

_NAMED = 3  # tensors that a message names


def unsoundness(run: Run, batch: tuple[Any, ...] | None, loss: float) -> str | None:
    """What is wrong with the state after a step, the same on every rank; a collective.

    Finite weights do not suffice: those of a learning rate of 1e6 may be finite, and what they
    make of the next batch no more. So the batch goes through once again. Nothing of the run
    moves by that: no statistic, no random number.

    Args:
        run: after an optimiser step; what its latest forward pass left for its losses is replaced.
        batch: what ``Run.terms`` takes, of that step; None where it was left out, as what is
            not finite in it would be again: then the tensors alone are looked at.
        loss: this rank's, before the step.

    Returns:
        a text that names tensors or terms that are not finite, or a loss that is more than
        ``LEAP`` times what it was (and more than ``LEAP``); None where all is well.
    """
    found = _not_finite(_tensors(run))
    problem = f"not finite after it: {found}" if found else None
    # The forward pass is a collective: all ranks take it, or none does.
    problem = _first(problem)
    if problem is not None or batch is None:
        return problem
    return _first(_next_problem(run, batch, loss))


def _next_problem(run: Run, batch: tuple[Any, ...], loss: float) -> str | None:
    with _left_as_it_was(run):
        if isinstance(run.model, Distiller):  # by the weights of then, which a warm-up raises
            run.model.losses.steps_done -= 1
        terms = {name: term.detach() for name, term in run.terms(*batch).items()}
        # Statistics overflow before what is computed with them does.
        found = _not_finite([*terms.items(), *_buffers(run)])
    if found:
        return f"not finite in the next forward pass: {found}"
    after = total(terms.values()).item()
    if after > LEAP * max(loss, 1.0):
        return f"the loss of its batch went from {loss:.3g} to {after:.3g}"
    return None


@contextlib.contextmanager
def _left_as_it_was(run: Run) -> Iterator[None]:
    """Undo what a forward pass in training mode moves: all of it is in a checkpoint."""
    modules = [module for root in _modules(run) for module in root.modules()]
    buffers = KeptBuffers(run)
    counting = [m for m in modules if type(m).get_extra_state is not nn.Module.get_extra_state]
    counted = [module.get_extra_state() for module in counting]
    drawn = random_state(run.device)
    sampled = None if run.partial_fc is None else run.partial_fc.rng_state()
    try:
        yield
    finally:
        buffers.give_back()
        for module, state in zip(counting, counted, strict=True):
            module.set_extra_state(state)
        restore_random_state(drawn, run.device)
        if run.partial_fc is not None and sampled is not None:
            run.partial_fc.set_rng_state(sampled)


class KeptBuffers:
    """The buffers of a run as they are now: a forward pass in training mode may move them.

    Args:
        run: what is trained.
    """

    def __init__(self, run: Run):
        self._modules = [module for root in _modules(run) for module in root.modules()]
        self._buffers = [
            (module, name, buffer, buffer.clone())
            for module in self._modules
            for name, buffer in module.named_buffers(recurse=False)
        ]

    @torch.no_grad()
    def give_back(self) -> None:
        """Let the run have them again, as the same tensors."""
        for module, name, buffer, value in self._buffers:
            setattr(module, name, buffer.copy_(value))
        for module in self._modules:
            if isinstance(module, URFM | DistillationLoss):
                module.buffers_replaced()


def not_finite_buffers(run: Run) -> str:
    """The names of buffers of a run that hold a value that is not finite; empty where none does."""
    return _not_finite(_buffers(run))


def _buffers(run: Run) -> Iterator[tuple[str, Tensor]]:
    for module in _modules(run):
        yield from module.named_buffers()


def _modules(run: Run) -> list[nn.Module]:
    return [run.model] if run.partial_fc is None else [run.model, run.partial_fc]


def _tensors(run: Run) -> Iterator[tuple[str, Tensor]]:
    """All floating-point tensors that a checkpoint would hold, by name."""
    for module in _modules(run):
        yield from module.state_dict().items()
    for state in run.optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, Tensor):
                yield f"the optimizer's {name}", value


def _not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """The names of those that hold a value that is not finite; each device is waited for once."""
    # AdamW, for one, counts its steps on the CPU whatever device its moments are on.
    names: dict[torch.device, list[str]] = {}
    verdicts: dict[torch.device, list[Tensor]] = {}
    for name, tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():
            # The largest and the smallest value are finite where all are, and so is their sum of
            # halves; nothing of the tensor's size is made.
            low, high = tensor.aminmax()
            names.setdefault(tensor.device, []).append(name)
            verdict = torch.isfinite(low.double() + high.double())
            verdicts.setdefault(tensor.device, []).append(verdict)
    fine = {device: torch.stack(found).tolist() for device, found in verdicts.items()}
    checked = [pair for device in fine for pair in zip(names[device], fine[device], strict=True)]
    bad = list(dict.fromkeys(name for name, ok in checked if not ok))
    return ", ".join(bad[:_NAMED]) + ", ..." * (len(bad) > _NAMED)


def _first(problem: str | None) -> str | None:
    """The first rank's problem, on every rank."""
    reports = gather_objects(problem)
    return next((report for report in reports if report is not None), None)
