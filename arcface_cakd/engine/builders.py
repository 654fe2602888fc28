"""Builds what a training run is made of, from its config."""

import logging
import random
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from arcface_cakd.backbones import (
    FaceBackbone,
    ModelDescription,
    TrainingSet,
    build_teacher,
    get_model,
    start_from,
)
from arcface_cakd.config import ConfigError, TrainConfig
from arcface_cakd.data import Augmentation, FaceLoader, get_dataloader
from arcface_cakd.distiller import Distiller
from arcface_cakd.distributed import rank, world_size
from arcface_cakd.engine.preflight import (
    check_gradient_acc,
    check_num_classes,
    check_num_image,
    check_warmup,
)
from arcface_cakd.engine.schedule import Schedule
from arcface_cakd.partial_fc import AdaFace, CombinedMarginLoss, PartialFC, start_centers
from arcface_cakd.precision import amp_dtype
from arcface_cakd.teacher_cache import as_features

logger = logging.getLogger("arcface_cakd")


@dataclass
class Run:
    """What a training run is made of.

    Attributes:
        device: where this rank computes.
        memory_format: of images and convolutions; channels last on the CPU, where it makes an
            IResNet's step 1.5 times as fast.
        loader: batches of this rank.
        num_classes: identities of the margin softmax; None where labels are not read.
        model: the student, or the Distiller around it.
        student: what becomes ``model.pt``.
        description: what becomes ``model.json``.
        partial_fc: this rank's class centres and the margin softmax loss; None, and no tensor of
            class centres anywhere, where ``cakd.margin_weight`` is 0.
        optimizer: groups ``student`` (``prompts``, ``urfm``) and, last, ``partial_fc`` if any.
        schedule: of the learning rates.
        scaler: for float16, else None.
    """

    device: torch.device
    memory_format: torch.memory_format
    loader: FaceLoader
    num_classes: int | None
    model: FaceBackbone | Distiller
    student: FaceBackbone
    description: ModelDescription
    partial_fc: PartialFC | None
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler | None

    def terms(
        self,
        images: Tensor,
        labels: Tensor,
        landmarks: Tensor | None = None,
        known: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The weighted scalar terms whose sum is the loss of this rank, by name.

        ``margin`` is the margin softmax loss of the global batch, the same on every rank, and
        there where ``partial_fc`` is; the others are means over the local batch.

        Args:
            images: (B, 3, 112, 112) float32 in [-1, 1].
            labels: (B,) int64; not looked at where ``num_classes`` is None.
            landmarks: (B, 5, 2) in pixels, where distillation needs them.
            known: what a teacher's cache says of the images, see ``TeacherCache.read``.
        """
        if not isinstance(self.model, Distiller):
            assert self.partial_fc is not None  # it is what a plain model learns from
            return {"margin": self.partial_fc(self.model(images), labels)}
        inputs: list[Any] = [images, landmarks]
        if known is not None:
            inputs.append(as_features(known, self.model.teacher.grid, images.device))
        embeddings = self.model(*inputs)
        margin = None if self.partial_fc is None else self.partial_fc(embeddings, labels)
        told = None if self.num_classes is None else labels
        return self.model.all_terms(margin, told, self.partial_fc)


def build_run(config: TrainConfig, device: torch.device) -> Run:
    """Build data, networks, loss, optimiser and schedule; nothing is written, no collective.

    Initial weights depend on the seed alone: a plain student and a distilled one start from the
    same weights and the same class centres, on any rank.

    Raises:
        ConfigError: settings that do not go together, with each other, the data or the device.
        DataError: the data cannot be read.
        WeightsError: the teacher's or the student's weights are missing or do not fit.
        UnknownNameError: an unknown network or loss.
    """
    if config.fp16 and device.type != "cuda":
        raise ConfigError("fp16=True needs a CUDA device: set bf16=True instead, or fp16=False")
    _check_views(config)
    for line in _without_effect(config):
        logger.warning("%s", line)
    loader = _build_loader(config)
    check_gradient_acc(config.gradient_acc, len(loader) * config.num_epoch)
    check_warmup(config.warmup_epoch, config.num_epoch)
    num_classes = loader.num_classes
    global_batch = config.batch_size * world_size()
    steps_per_epoch = (config.num_image or loader.num_images) // global_batch
    run_steps = steps_per_epoch * config.num_epoch
    memory_format = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    model = build_model(config, num_classes, run_steps).train()
    model.to(device).to(memory_format=memory_format)
    _seed_everything(config.seed + 1 + rank())  # from here on for dropout, each rank its own

    partial_fc = None
    if config.has_class_centers:
        assert num_classes is not None  # class centres need labels, which are read then
        partial_fc = build_partial_fc(config, num_classes).to(device).train()
    else:
        logger.info("cakd.margin_weight is 0: no Partial FC, no class centres%s", _idle(config))

    optimizer = build_optimizer(config, model, partial_fc)
    check_num_image(config.num_image, loader.num_images, global_batch, config.rec)
    return Run(
        device=device,
        memory_format=memory_format,
        loader=loader,
        num_classes=num_classes,
        model=model,
        student=model.student if isinstance(model, Distiller) else model,
        description=ModelDescription(
            config.network,
            config.embedding_size,
            TrainingSet.at(config.rec, loader.num_images, num_classes),
        ),
        partial_fc=partial_fc,
        optimizer=optimizer,
        schedule=Schedule(
            optimizer,
            warmup_steps=int(steps_per_epoch * config.warmup_epoch),
            total_steps=run_steps,
        ),
        scaler=_scaler() if config.fp16 else None,
    )


def build_model(
    config: TrainConfig, num_classes: int | None, run_steps: int | None = None
) -> FaceBackbone | Distiller:
    """The student of ``config``, or the Distiller around it; initial weights by the seed.

    Args:
        num_classes: identities of the training set, and ``run_steps`` micro-steps of the whole
            run, where they are known: see ``Distiller``.
    """
    torch.manual_seed(config.seed)
    student = get_model(
        config.network, dropout=0.0, fp16=config.fp16, num_features=config.embedding_size
    )
    if config.init_weights is not None and not config.resume:
        start_from(student, config.init_weights)
    model: FaceBackbone | Distiller = student
    if config.cakd is not None:
        cakd = config.cakd.resumed() if config.resume else config.cakd
        teacher = build_teacher(config.embedding_size, **cakd.teacher)
        model = Distiller(student, teacher, cakd, num_classes, run_steps)
    if config.fp16 or config.bf16:
        model.amp_dtype = amp_dtype(config.fp16, config.bf16)
    return model


def build_partial_fc(config: TrainConfig, num_classes: int) -> PartialFC:
    """The margin softmax of ``config``, with class centres by the seed or ``init_centers``.

    Raises:
        PartialFCError: the centres of ``init_centers`` cannot be read, or do not fit.
    """
    threshold = config.interclass_filtering_threshold
    margin: CombinedMarginLoss
    if config.adaface is None:
        margin = CombinedMarginLoss(
            config.margin_scale, *config.margin_list, threshold, gradient=config.margin_gradient
        )
        if config.margin_gradient == "exact" and config.margin_list[2] > 0:
            logger.warning(
                'margin_gradient="exact" has no effect: the gradient of CosFace, which margin_list '
                "%s is, is exact",
                list(config.margin_list),
            )
        if threshold >= 1:
            logger.warning(
                "interclass_filtering_threshold %g has no effect: no cosine is above it", threshold
            )
    else:
        margin = AdaFace(config.margin_scale, threshold, **config.adaface)
        logger.info("%r in place of margin_list and margin_gradient", margin)
    partial_fc = PartialFC(
        margin, config.embedding_size, num_classes, config.sample_rate, seed=config.seed
    )
    if config.init_centers is not None and not config.resume:
        start_centers(partial_fc, num_classes, config.init_centers)
    partial_fc.weight.requires_grad_(not config.freeze_centers)
    return partial_fc


def build_optimizer(
    config: TrainConfig, model: FaceBackbone | Distiller, partial_fc: nn.Module | None
) -> torch.optim.Optimizer:
    """SGD or AdamW over named groups, the class centres' last, as arcface_torch has it.

    On a CPU SGD steps the class centres in one pass over them, torch's ``fused``: the numbers are
    those of its loop, and the matrix of their size that the loop makes in between is not made.
    The other groups are small, and torch's pass misreads tensors whose strides are not those of
    their gradients, as those of convolutions may be.
    """
    if isinstance(model, Distiller):
        groups = model.parameter_groups(config.lr, config.weight_decay)
    else:
        groups = [{"name": "student", "params": [p for p in model.parameters() if p.requires_grad]}]
    if partial_fc is not None:
        groups.append({"name": "partial_fc", "params": list(partial_fc.parameters())})
        if config.optimizer != "adamw" and groups[-1]["params"][0].device.type == "cpu":
            groups[-1]["fused"] = True
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )


def _without_effect(config: TrainConfig) -> list[str]:
    """Settings of the run that are not the defaults and change nothing, a line each."""
    pointless = [
        ("momentum", config.optimizer == "adamw", 'it is of optimizer="sgd"'),
        ("non_finite_limit", config.non_finite == "stop", 'it is of non_finite="skip"'),
    ]
    lines = [
        f"{name}={getattr(config, name)!r} has no effect: {reason}, or drop it"
        for name, idle, reason in pointless
        if idle and getattr(config, name) != _default(name)
    ]
    if config.cakd is not None and config.cakd.clipping == "shared" and not config.clip_grad_norm:
        lines.append(
            'cakd.clipping="shared" has no effect: clip_grad_norm is None; set that, or drop it'
        )
    return lines


def _default(name: str) -> Any:
    """The default of a top-level key."""
    return next(field.default for field in fields(TrainConfig) if field.name == name)


def _idle(config: TrainConfig) -> str:
    """Which settings of a config have no effect where there is no Partial FC, for the log."""
    names = [
        "margin_list",
        "margin_scale",
        "margin_gradient",
        "interclass_filtering_threshold",
        "sample_rate",
        "adaface",
        "init_centers",
        "freeze_centers",
    ]
    if not config.needs_labels:
        names.append("num_classes")
    idle = [name for name in names if getattr(config, name) != _default(name)]
    return f"; without effect: {', '.join(idle)}" if idle else ""


def _seed_everything(seed: int) -> None:
    """Also the generators that only a user's own component may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def _check_views(config: TrainConfig) -> None:
    """Views of an image that a teacher's cache holds must be counted, and those alone."""
    if config.cakd is None:
        return
    teacher, augments = config.cakd.teacher, config.augment is not None
    if teacher["cached_views"] is not None and not augments:
        raise ConfigError(
            "cakd.teacher.cached_views counts views that augmentation makes, and there is none: "
            "set augment, or drop it"
        )
    if teacher["cache"] is not None and teacher["cached_views"] is None and augments:
        raise ConfigError(
            "augment gives each epoch views of its own, which no cache can hold: set "
            "cakd.teacher.cached_views to how many there shall be of an image, or drop "
            "cakd.teacher.cache"
        )


def _build_loader(config: TrainConfig) -> FaceLoader:
    """The batches of this rank; its ``num_classes`` is that of the margin softmax, if any."""
    augmentation = None if config.augment is None else Augmentation(**config.augment)

    def loader(num_classes: int | None) -> FaceLoader:
        return get_dataloader(
            config.rec,
            config.batch_size,
            seed=config.seed,
            num_workers=config.num_workers,
            rank=rank(),
            world_size=world_size(),
            num_classes=num_classes,
            landmarks=config.cakd is not None and config.cakd.needs_landmarks,
            augmentation=augmentation,
            num_views=None if config.cakd is None else config.cakd.teacher["cached_views"],
            labelled=config.needs_labels,
            checked=config.check_records,
        )

    # Opened without the config's number, so that it is held against the data set's own before
    # the run begins, and not by the first label that is too large.
    opened = loader(None)
    if opened.num_classes is None:
        return opened
    people = "" if opened.num_people is None else f" of {opened.num_people} people"
    classes = config.num_classes or opened.num_classes
    logger.info("%s: %d images%s, %d classes", config.rec, opened.num_images, people, classes)
    check_num_classes(config.num_classes, opened.num_classes, config.rec)
    if classes == opened.num_classes:
        return opened
    return loader(classes)


def _scaler() -> torch.amp.GradScaler:
    if world_size() == 1:
        return torch.amp.GradScaler("cuda", growth_interval=100)
    # Ranks hold different class centres: when those of one overflow, all must skip the step.
    from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

    return ShardedGradScaler("cuda", growth_interval=100)
