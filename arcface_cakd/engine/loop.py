"""The training loop: plain margin softmax, or distillation where there is a ``cakd`` entry."""

import contextlib
import functools
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arcface_cakd.backbones import save_model
from arcface_cakd.config import TrainConfig
from arcface_cakd.data import FaceLoader
from arcface_cakd.data.folder import FaceFolder
from arcface_cakd.distiller import Distiller
from arcface_cakd.distributed import (
    broadcast_module,
    failing_together,
    gather_objects,
    init_from_env,
    is_main,
    rank,
    world_size,
)
from arcface_cakd.engine.allocator import keep_freed_memory
from arcface_cakd.engine.builders import Run, build_run
from arcface_cakd.engine.checkpoint import Position, load_checkpoint, save_checkpoint
from arcface_cakd.engine.checkpoint_sets import set_aside_sets
from arcface_cakd.engine.class_means import give_centers
from arcface_cakd.engine.divergence import DivergenceGuard, advice
from arcface_cakd.engine.due import due as what_is_due
from arcface_cakd.engine.errors import RunStoppedError
from arcface_cakd.engine.faults import said_in_one_line
from arcface_cakd.engine.interrupts import Asked, Interrupts
from arcface_cakd.engine.journal import Journal
from arcface_cakd.engine.meters import Clock, Meter
from arcface_cakd.engine.non_finite import NonFinitePolicy
from arcface_cakd.engine.preflight import check_apart, check_output, held_output
from arcface_cakd.engine.resuming import set_aside_model, with_resume_decided
from arcface_cakd.engine.run_record import write_run_record
from arcface_cakd.engine.soundness import unsoundness
from arcface_cakd.engine.stepping import Stepper
from arcface_cakd.engine.threads import settle_threads
from arcface_cakd.engine.validation import check_teacher, validate, validation_sets
from arcface_cakd.engine.watchdog import Watchdog
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.losses.base import total
from arcface_cakd.teacher_cache import open_cache

logger = logging.getLogger("arcface_cakd")

LOOK_EVERY = 10
"""Micro-steps between two looks on a GPU, where to look at a value is to wait for it."""
_LOOKS_ALWAYS = ("cpu",)  # kinds of devices


@dataclass(frozen=True)
class TrainResult:
    """What a run ended with.

    Attributes:
        metrics: accuracy in [0, 1] by validation set, of the last validation (rank 0; empty on
            the others, and where there are no sets).
        output: folder of ``model.pt``, checkpoints, ``metrics.jsonl`` and ``tensorboard``.
        global_step: micro-steps done since the run first started.
        history: the lines of ``metrics.jsonl`` (rank 0; empty on the others).
    """

    metrics: dict[str, float]
    output: Path
    global_step: int
    history: list[dict[str, Any]]


def train(config: TrainConfig, *, stop_after_step: int | None = None) -> TrainResult:
    """Run a training, in this process or on every rank that torchrun started.

    Writes to ``config.output``: ``model.pt`` (the plain student, at the end of every epoch) and
    ``model.json`` (what it is of), ``metrics.jsonl`` and ``tensorboard``, and with
    ``save_all_states`` or ``checkpoint_every`` a checkpoint per rank at the end of every epoch and
    every ``checkpoint_every`` micro-steps. A resumed run equals one that never stopped, on the CPU
    to the bit; one that had finished returns at once. In distillation the teacher's accuracy is
    logged first, see ``check_teacher``.

    As in arcface_torch, ``gradient_acc`` micro-steps sum their gradients, the schedule moves by
    micro-steps, and each rank keeps its own BatchNorm statistics (rank 0's are saved).

    Args:
        config: see ``TrainConfig``.
        stop_after_step: leave after that micro-step, with a checkpoint if the run keeps any.

    SIGTERM, SIGINT (Ctrl-C), SIGUSR1 and SIGHUP end the run after the micro-step that is under
    way, on a GPU after at most ``LOOK_EVERY`` more, with a checkpoint, whether or not the run
    keeps any.

    Raises:
        RunStoppedError: a signal ended the run, and a checkpoint has been written.
        DivergenceError: a loss or gradient was not finite (see ``NonFinitePolicy``), or the state
            was found unsound (see ``unsoundness``) when it was to be kept; nothing was saved after
            it.
        ArcfaceCakdError: the config does not fit the data, the device, the weights or the
            checkpoint, or ``config.output`` holds another run, or is another's that runs now.
            Nothing has been written then.
    """
    device = init_from_env()
    automatic = config.resume == "auto"
    config = with_resume_decided(config)
    with contextlib.ExitStack() as holding:
        return _train(config, device, stop_after_step, holding, automatic)


def _train(
    config: TrainConfig,
    device: torch.device,
    stop_after_step: int | None,
    holding: contextlib.ExitStack,
    automatic: bool,
) -> TrainResult:
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    else:
        settle_threads()
        keep_freed_memory()
    with failing_together():
        if is_main():
            check_output(config.folder, resume=bool(config.resume), force=config.force)
        run = build_run(config, device)
        if isinstance(run.loader.views.images, FaceFolder):
            cache = None if config.cakd is None else config.cakd.teacher["cache"]
            check_apart(config.rec, {"output": config.folder, "cakd.teacher.cache": cache})
        sets = validation_sets(config.rec, config.val_targets) if is_main() else {}
    holding.enter_context(held_output(config.folder))  # nothing has been written so far
    if is_main() and isinstance(run.model, Distiller):
        run.model.announce(logger)
    # The seed makes initial weights equal on ranks that run the same software; this makes sure.
    broadcast_module(run.model)
    start, meter = Position(), Meter()
    if config.resume:
        start, averages = load_checkpoint(run, config)
        meter = Meter(averages)
    batches_left = (config.num_epoch - start.epoch) * len(run.loader) - start.batch
    if isinstance(run.model, Distiller) and batches_left > 0:
        check_teacher(run.model, config.rec, config.val_targets, sets)
        cache = open_cache(
            run.model,
            run.loader.views,
            batch_size=config.batch_size,
            num_workers=config.num_workers,
        )
        if cache is not None:
            run.loader.attach(cache)
        give_centers(
            run.model,
            config.rec,
            config.folder,
            resume=bool(config.resume),
            num_workers=config.num_workers,
        )
        if cache is not None:
            run.model.drop_teacher()
    if not config.resume:
        set_aside_sets(config.folder)
        if automatic and is_main():
            set_aside_model(config.folder)
    output = config.folder
    last_step = total_steps = start.step + max(batches_left, 0)
    if is_main():
        about = {"steps": total_steps} | _about(run)
        write_run_record(config, device, about, start.step)

    if start.step and is_main():
        logger.info("%s: goes on after step %d of %d", output, start.step, total_steps)
    if stop_after_step is not None:
        last_step = min(max(stop_after_step, start.step), total_steps)
    shares = config.cakd is not None and config.cakd.clipping == "shared"
    stepper = Stepper(run.optimizer, config.clip_grad_norm, run.scaler, shares)
    guard = DivergenceGuard(device, functools.partial(advice, config))
    policy = NonFinitePolicy(run, config, guard, meter)
    position = start
    asked = Asked()
    with (
        said_in_one_line(config),
        Journal(output, total_steps, start.step, active=is_main()) as journal,
        Interrupts(device, config.checkpoint_minutes) as interrupts,
        Watchdog(config.rank_timeout) as watchdog,
    ):
        clock = Clock(config.batch_size * world_size())
        batches = _batches(run.loader, start, config.num_epoch)
        for position, (images, *others) in itertools.islice(batches, last_step - start.step):
            step = position.step
            watchdog.tick()
            due = what_is_due(config, position, len(run.loader), last_step, total_steps)
            # Where we wait anyway, and so often that a signal is not left waiting.
            looks = device.type in _LOOKS_ALWAYS or due.anything or step % LOOK_EVERY == 0

            # Forward: the terms of the loss.
            images = images.to(device, non_blocking=True, memory_format=run.memory_format)
            others = [_on(device, item) for item in others]
            policy.before_forward()
            terms = run.terms(images, *others)
            values = torch.stack([term.detach() for term in terms.values()])
            learns = policy.takes(step, tuple(terms), values, looks)
            insight = _insight(run, terms) if due.log and learns else {}

            # Backward, and where the micro-steps of an optimiser step are complete, that step.
            if learns:
                stepper.backward(total(terms.values()))
            if step % config.gradient_acc == 0:
                norms = stepper.prepare(all_norms=policy.skips)
                # A scaler skips steps that overflow.
                if run.scaler is not None or policy.takes_gradient(step, norms, looks):
                    stepper.apply()
                else:
                    stepper.drop()
            learning_rate = run.optimizer.param_groups[0]["lr"]
            run.schedule.step()

            # What the run says of itself.
            if learns:
                meter.update(tuple(terms), values)
            clock.tick()
            journal.tick()
            if due.log and not meter.empty:
                line: dict[str, Any] = {"step": step, "epoch": position.epoch}
                line |= _averages(meter, tuple(terms)) | {"lr": learning_rate}
                line |= clock.read(steps_left=total_steps - step)
                if run.scaler is not None:
                    line["grad_scale"] = run.scaler.get_scale()
                if policy.skips:
                    line["left_out"] = meter.left_out
                journal.log(line | insight)

            # Validation, then what is kept, if it is worth it. The checkpoint comes last: what it
            # says is done has been written.
            asked = interrupts.agreed() if looks else Asked()
            newest, best = due.checkpoint or asked.checkpoint, False
            with clock.paused():
                if due.validate or due.model or newest:
                    batch = (images, *others) if learns else None
                    problem = unsoundness(run, batch, float(values.sum()))
                    if problem is not None:
                        guard.stop(step, problem)
                if due.validate:
                    if is_main():
                        accuracies = validate(run.student, sets)
                        best = journal.log_validation(step, position.epoch, accuracies)
                    best = gather_objects(best)[0] and config.keep_best and config.keeps_checkpoints
                if due.model and is_main():
                    save_model(run.student, output / "model.pt", run.description)
                if newest or best:
                    state = meter.state_dict()
                    save_checkpoint(run, config, position, state, newest=newest, best=best)
                    interrupts.saved()
            if asked.leave is not None:
                break
    if asked.leave is not None and position.step < total_steps:
        raise RunStoppedError(asked.leave, position.step, output)
    return TrainResult(journal.last_validation(), output, position.step, journal.history)


def _batches(
    loader: FaceLoader, start: Position, num_epoch: int
) -> Iterator[tuple[Position, tuple[Any, ...]]]:
    """The batches from ``start`` to the end of the run, each with the position after it."""
    step = start.step
    for epoch in range(start.epoch, num_epoch):
        done = start.batch if epoch == start.epoch else 0
        loader.set_epoch(epoch, start_batch=done)
        batches = iter(loader)
        for batch in range(done + 1, len(loader) + 1):
            # Starting its workers draws from torch's global random state, which would make a
            # run that starts mid-epoch differ from one that passes by.
            random_state = torch.get_rng_state()
            try:
                tensors = next(batches)
            except ArcfaceCakdError as error:
                if not is_main():  # only this rank knows, and rank 0 alone speaks
                    logger.error("rank %d: %s", rank(), error)
                raise
            torch.set_rng_state(random_state)
            step += 1
            yield Position(epoch, batch, step), tensors


def _on(device: torch.device, item: Any) -> Any:
    """A part of a batch on the device of the run: a tensor, several by name, or nothing."""
    if isinstance(item, dict):
        return {name: _on(device, tensor) for name, tensor in item.items()}
    return item if item is None else item.to(device, non_blocking=True)


def _about(run: Run) -> dict[str, Any]:
    """What ``run.json`` says beside config and environment."""
    return {
        "images": run.loader.num_images,
        "classes": run.num_classes,
        "parameters": sum(p.numel() for p in run.student.parameters()),
    }


def _averages(meter: Meter, names: tuple[str, ...]) -> dict[str, Any]:
    """The loss and its terms since the last log line, ``margin`` apart from the others."""
    terms = dict(zip(names, meter.read(), strict=True))
    averages: dict[str, Any] = {"loss": sum(terms.values())}
    if "margin" in terms:
        averages["margin"] = terms.pop("margin")
    return averages | ({"terms": terms} if terms else {})


def _insight(run: Run, terms: dict[str, Tensor]) -> dict[str, Any]:
    """What distillation shows of itself, on rank 0's batch; before the backward pass."""
    if not isinstance(run.model, Distiller):
        return {}
    # Scaled as in the backward pass, or small gradients would vanish in float16.
    scale = 1.0 if run.scaler is None else run.scaler.get_scale()
    return {
        "gradient_norms": run.model.gradient_norms(terms, scale),
        "diagnostics": run.model.diagnostics(),
    }
