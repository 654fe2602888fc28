"""A step of the built-in loop, against the parts that it cannot do without."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arcface_cakd.backbones import FaceBackbone
from arcface_cakd.bench.faces import (
    EMBEDDING_ONLY,
    distilling_config,
    make_faces,
    random_weights,
    train_config,
)
from arcface_cakd.bench.report import Report
from arcface_cakd.bench.timing import clock_of, take_turns
from arcface_cakd.config import ConfigError, TrainConfig
from arcface_cakd.data.draws import epoch_order
from arcface_cakd.distiller import Distiller
from arcface_cakd.engine.builders import Run, build_run
from arcface_cakd.engine.stepping import Stepper
from arcface_cakd.losses.base import total
from arcface_cakd.prompting import AdaptablePrompts
from arcface_cakd.teacher_cache import open_cache

# What of the cakd entry each method says.
METHODS: dict[str, dict[str, Any]] = {
    "embedding": EMBEDDING_ONLY,
    "URFM": {"urfm": {}, "prompts": None},
    "URFM and prompts": {"urfm": {}, "prompts": {}, "preservation": {}},
}

IN_BF16 = "teacher in bf16"

# step: the parts of its floor.
FLOORS = {
    "embedding": ("plain step", "teacher's forward"),
    "URFM": ("plain step", "teacher's forward"),
    "URFM and prompts": ("plain step", "prompted forward and backward"),
    "embedding, from cache": ("plain step",),
    "URFM, from cache": ("plain step",),
    "URFM and prompts, from cache": ("plain step", "prompted forward and backward"),
}


def measure_step(
    report: Report,
    student: str,
    teacher: str,
    *,
    batch_size: int = 4,
    rounds: int = 7,
    device: torch.device | None = None,
    precision: str = "fp32",
    teacher_bf16: bool = False,
) -> None:
    """Each method's step, with the teacher's cache and without, and the parts by themselves.

    A step is what the loop does of one batch that has been read: forward, backward, clipping,
    the optimiser. Of the cache, reading it is counted, which is next to nothing. The parts are a
    step of the plain student; the teacher's forward, without a graph; and the prompted teacher's
    forward with its backward as far as the prompts, beside which stands that of the teacher
    without prompts as far as the images, which is what any such pass costs.

    Args:
        report: where the figures go.
        student: name of a backbone.
        teacher: of one that prompts go into.
        batch_size: images of a step.
        rounds: that are counted.
        device: where; None: the CPU.
        precision: "fp32", "bf16", or "fp16", which needs a GPU: what the loop trains in.
        teacher_bf16: each method also with a teacher in bfloat16 (``cakd.teacher.bf16``), against
            the same parts, whose teacher is in the precision of the loop.

    Raises:
        ConfigError: float16 on a CPU, or a teacher in the precision that the loop has anyway.
    """
    if teacher_bf16 and precision == "bf16":
        raise ConfigError(
            "--teacher-bf16 beside --precision bf16 would measure the same twice: drop one"
        )
    device = device or torch.device("cpu")
    half: dict[str, Any] = {} if precision == "fp32" else {precision: True}
    with tempfile.TemporaryDirectory() as folder:
        faces = make_faces(Path(folder), batch_size)
        weights = random_weights(Path(folder), teacher)
        sides = {
            "plain step": Steps(train_config(faces, student, batch_size, **half), device).without
        }
        distilling = {}
        for method, entry in METHODS.items():
            config = replace(
                distilling_config(faces, student, batch_size, teacher, weights, **entry), **half
            )
            distilling[method] = Steps(config, device)
            sides[method] = distilling[method].without
            sides[f"{method}, from cache"] = distilling[method].with_cache
            if teacher_bf16:
                sides[f"{method}, {IN_BF16}"] = Steps(_with_bf16(config), device).without
        times = take_turns(
            sides | _parts_of(distilling["URFM and prompts"]), rounds, clock=clock_of(device)
        )
    report.add_times(times)
    for name in sides:
        report.amounts[f"{name}, images/s"] = batch_size / times.median(name)
    floors = FLOORS
    if teacher_bf16:
        floors = FLOORS | {f"{method}, {IN_BF16}": FLOORS[method] for method in METHODS}
    for name, parts in floors.items():
        floor = parts[0] if len(parts) == 1 else f"({' + '.join(parts)})"
        report.ratios[f"{name} / {floor}"] = times.ratio(name, *parts)
    for name in METHODS if teacher_bf16 else ():
        of_both = f"{name}, {IN_BF16} / {name}"
        report.ratios[of_both] = times.ratio(f"{name}, {IN_BF16}", name)
    for name in ("embedding", "URFM", "URFM and prompts"):
        report.ratios[f"{name} / from cache"] = times.ratio(name, f"{name}, from cache")
    report.ratios["URFM / embedding"] = times.ratio("URFM", "embedding")
    report.ratios["prompted / unprompted, forward and backward"] = times.ratio(
        "prompted forward and backward", "teacher's forward and backward"
    )


def _with_bf16(config: TrainConfig) -> TrainConfig:
    """The config with its teacher in bfloat16, and a cache of its own."""
    assert config.cakd is not None
    teacher = config.cakd.teacher
    own = {**teacher, "bf16": True, "cache": f"{teacher['cache']}_bf16"}
    return replace(config, cakd=replace(config.cakd, teacher=own))


class Steps:
    """Steps of a run from one batch.

    Args:
        config: of the run; with a teacher, also of its cache, which is made here.
        device: where.
    """

    def __init__(self, config: TrainConfig, device: torch.device):
        self.run: Run = build_run(config, device)
        self._stepper = Stepper(self.run.optimizer, config.clip_grad_norm, self.run.scaler)
        images, labels = next(iter(self.run.loader))
        self.images = images.to(device, memory_format=self.run.memory_format)
        self.labels = labels.to(device)
        self._device = device
        if isinstance(self.run.model, Distiller):
            views = self.run.loader.views
            cache = open_cache(self.run.model, views, batch_size=config.batch_size, num_workers=0)
            assert cache is not None
            positions = epoch_order(views.images.keys, views.seed, epoch=0)[: len(labels)]
            flips = views.flips(positions, epoch=0)
            self._read = lambda: cache.read(positions, flips, 0)

    def without(self) -> None:
        """A step that reads no cache."""
        self._step(None)

    def with_cache(self) -> None:
        """A step that reads of the cache what it holds of the batch."""
        rows = self._read()
        self._step({name: torch.from_numpy(row).to(self._device) for name, row in rows.items()})

    def _step(self, known: dict[str, Tensor] | None) -> None:
        terms = self.run.terms(self.images, self.labels, None, known)
        self._stepper.backward(total(terms.values()))
        self._stepper.prepare()
        self._stepper.apply()


def _parts_of(steps: Steps) -> dict[str, Callable[[], None]]:
    model = steps.run.model
    assert isinstance(model, Distiller) and model.prompts is not None
    return teacher_parts(model.teacher, model.prompts, steps.images)


def teacher_parts(
    teacher: FaceBackbone, prompts: AdaptablePrompts, images: Tensor
) -> dict[str, Callable[[], None]]:
    """What a teacher of images (B, 3, 112, 112), and prompts in it, cost by themselves."""

    @torch.no_grad()
    def forward() -> None:
        teacher.forward_features(images)

    def forward_and_backward() -> None:
        features = teacher.forward_features(images.detach().requires_grad_())
        (features.embedding.sum() + features.pixel_features[0].sum()).backward()

    def prompted() -> None:
        features = prompts(teacher, images)
        assert features.prompts is not None
        tokens, _ = features.pixel_features
        (features.embedding.sum() + tokens.sum() + features.prompts.sum()).backward()
        prompts.zero_grad()

    return {
        "teacher's forward": forward,
        "teacher's forward and backward": forward_and_backward,
        "prompted forward and backward": prompted,
    }
