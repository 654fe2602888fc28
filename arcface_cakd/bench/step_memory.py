"""The memory of a distilling step, beside that of the parts that it is made of."""

import tempfile
from pathlib import Path

import timm  # noqa: F401, loaded before anything is measured: backbones do it when one is built
import torch

from arcface_cakd.backbones import build_teacher
from arcface_cakd.bench.faces import (
    distilling_config,
    images_and_labels,
    make_faces,
    random_weights,
    train_config,
)
from arcface_cakd.bench.memory import forget_peak, peak_of
from arcface_cakd.bench.report import Report
from arcface_cakd.bench.step import FLOORS, METHODS, Steps, teacher_parts
from arcface_cakd.bench.timing import Ratio
from arcface_cakd.config import TrainConfig
from arcface_cakd.distiller import Distiller
from arcface_cakd.engine.allocator import keep_freed_memory
from arcface_cakd.prompting import AdaptablePrompts

_CPU = torch.device("cpu")
_STEPS = 2  # momentum is there from the second on
PARTS = ("teacher's forward", "prompted forward and backward")


def measure_memory(
    report: Report, student: str, teacher: str, *, batch_size: int = 4, rounds: int = 1
) -> None:
    """What a process has at most for the steps of each method, with the teacher's cache and
    without, above what it had with the program loaded; on the CPU.

    A process of its own for each side and round. It reads one batch, builds what a run is made
    of, and takes two steps; what reading a teacher's file takes for a moment, three times the
    weights, does not count where Linux lets it be left out. The parts are two steps of the plain
    student, and of the teacher alone its forward, and its prompted forward with the backward as
    far as the prompts.
    The parts of a step have their peaks one after the other, so a ratio to their sum may be
    below 1; weights that are kept all the time are in every one of them.

    Args:
        report: where the figures go, in MiB.
        student: name of a backbone.
        teacher: of one that prompts go into.
        batch_size: images of a step.
        rounds: processes for each side.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        faces = make_faces(folder, batch_size)
        weights = random_weights(folder, teacher)
        plain = train_config(faces, student, batch_size)
        configs = {
            name: distilling_config(faces, student, batch_size, teacher, weights, **entry)
            for name, entry in METHODS.items()
        }
        for config in configs.values():
            peak_of(fill_cache, config)
        sides: dict[str, tuple] = {"plain step": (take_steps, plain, False)}
        for name, config in configs.items():
            sides[name] = (take_steps, config, False)
            sides[f"{name}, from cache"] = (take_steps, config, True)
        for name in PARTS:
            sides[name] = (take_part, name, teacher, weights, batch_size)
        peaks = {name: [peak_of(*told) for _ in range(rounds)] for name, told in sides.items()}
    for name, of_rounds in peaks.items():
        report.amounts[f"{name}, MiB at most"] = Ratio.of(of_rounds).median
    for name in sides:
        if name in FLOORS:
            _add_ratio(report, peaks, name, "plain step")
            if len(FLOORS[name]) > 1:
                _add_ratio(report, peaks, name, *FLOORS[name])


def _add_ratio(report: Report, peaks: dict[str, list[float]], above: str, *below: str) -> None:
    floor = below[0] if len(below) == 1 else f"({' + '.join(below)})"
    sums = [sum(parts) for parts in zip(*(peaks[name] for name in below), strict=True)]
    report.ratios[f"{above} / {floor}"] = Ratio.of(
        [one / sum_ for one, sum_ in zip(peaks[above], sums, strict=True)]
    )


def fill_cache(config: TrainConfig) -> None:
    """Compute the teacher's cache of a run, so that nobody who is measured has to."""
    Steps(config, _CPU)


def take_steps(config: TrainConfig, from_cache: bool) -> None:
    """Steps as ``train`` takes them."""
    steps = Steps(config, _CPU)
    if from_cache:
        assert isinstance(steps.run.model, Distiller)
        steps.run.model.drop_teacher()
    keep_freed_memory()
    forget_peak()
    for _ in range(_STEPS):
        steps.with_cache() if from_cache else steps.without()


def take_part(name: str, network: str, weights: Path, batch_size: int) -> None:
    """What the teacher does in a step, by itself."""
    images = images_and_labels(batch_size)[0].to(memory_format=torch.channels_last)
    teacher = build_teacher(512, network=network, weights=str(weights))
    teacher = teacher.to(memory_format=torch.channels_last)
    part = teacher_parts(teacher, AdaptablePrompts(teacher), images)[name]
    keep_freed_memory()
    forget_peak()
    for _ in range(_STEPS):
        part()
