"""The margin softmax over many classes: ours and arcface_torch's ``PartialFC_V2``."""

import contextlib
import importlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from arcface_cakd.bench.checkouts import importable
from arcface_cakd.bench.memory import peak_of
from arcface_cakd.bench.on_cpu import cuda_calls_on_cpu
from arcface_cakd.bench.report import Report
from arcface_cakd.bench.timing import take_turns
from arcface_cakd.partial_fc import ArcFace, PartialFC

OURS, HOSTS = "PartialFC", "PartialFC_V2"


def measure_classes(
    report: Report,
    num_classes: int,
    *,
    embedding_size: int = 512,
    batch_size: int = 128,
    rounds: int = 7,
    arcface_torch: Path | None = None,
) -> None:
    """Time and memory of the loss and its gradients, without the optimiser's step.

    Args:
        report: where the figures go.
        num_classes: class centres, on one rank.
        embedding_size: E.
        batch_size: images.
        rounds: that are counted.
        arcface_torch: a checkout to compare with, if any.
    """
    sizes = (num_classes, embedding_size, batch_size)
    sides = [OURS] if arcface_torch is None else [OURS, HOSTS]
    with contextlib.ExitStack() as stack:
        steps = {
            name: stack.enter_context(_steps(name, *sizes, folder=arcface_torch)) for name in sides
        }
        times = take_turns(steps, rounds)
    report.add_times(times)
    peaks = {name: peak_of(one_step, name, *sizes, arcface_torch) for name in sides}
    for name, peak in peaks.items():
        report.amounts[f"{name}, MiB at most"] = peak
    report.amounts[f"{OURS}, seconds"] = times.median(OURS)
    if arcface_torch is not None:
        report.ratios[f"{HOSTS} / {OURS}, time"] = times.ratio(HOSTS, OURS)
        report.amounts[f"{OURS} / {HOSTS}, memory"] = peaks[OURS] / peaks[HOSTS]


def one_step(
    name: str, num_classes: int, embedding_size: int, batch_size: int, folder: Path | None
) -> None:
    """Make the class centres and take one step, for ``peak_of``."""
    with _steps(name, num_classes, embedding_size, batch_size, folder=folder) as step:
        step()


@contextlib.contextmanager
def _steps(
    name: str, num_classes: int, embedding_size: int, batch_size: int, *, folder: Path | None
):
    """Loss and gradients of a batch, for as long as the block lasts."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(batch_size, embedding_size, generator=generator)
    labels = torch.randint(num_classes, (batch_size,), generator=generator)
    if name == OURS:
        yield _step_of(PartialFC(ArcFace(), embedding_size, num_classes), embeddings, labels)
        return
    assert folder is not None
    with importable(folder), cuda_calls_on_cpu():
        losses, partial_fc = map(importlib.import_module, ("losses", "partial_fc_v2"))
        margin = losses.CombinedMarginLoss(64, 1.0, 0.5, 0.0, 0)
        theirs = partial_fc.PartialFC_V2(margin, embedding_size, num_classes)
        yield _step_of(theirs, embeddings, labels)


def _step_of(head: nn.Module, embeddings: Tensor, labels: Tensor) -> Callable[[], None]:
    def step() -> None:
        head.zero_grad()
        # PartialFC_V2 writes to the labels.
        head(embeddings.clone().requires_grad_(), labels.clone()).backward()

    return step
