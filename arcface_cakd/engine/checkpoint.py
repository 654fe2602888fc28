"""Checkpoints: all that a run needs to go on as if it had never stopped.

One file per rank, ``checkpoint_gpu_<rank>.pt``, with arcface_torch's keys and more; tensors and
builtins only, so that ``torch.load`` reads it under ``weights_only=True``.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from arcface_cakd.backbones import save_model
from arcface_cakd.config import ConfigError, TrainConfig
from arcface_cakd.distiller import Distiller
from arcface_cakd.distributed import (
    barrier,
    failing_together,
    gather_objects,
    is_main,
    rank,
    world_size,
)
from arcface_cakd.engine.builders import Run, build_model
from arcface_cakd.engine.checkpoint_sets import (
    best_folder,
    checkpoint_path,
    drop_former,
    former_folder,
    former_steps,
    keep_former,
    link_or_copy,
)
from arcface_cakd.engine.checkpoint_state import (
    FORMAT,
    check_shapes,
    pending_gradients,
    read_checkpoint,
    restore_gradients,
    step_of,
)
from arcface_cakd.engine.class_means import CENTERS_FILE, kept_centers
from arcface_cakd.engine.errors import (
    START_ANEW,
    CheckpointError,
    UnreadableCheckpointError,
)
from arcface_cakd.engine.fingerprint import check_fingerprint, fingerprint
from arcface_cakd.engine.random_state import random_state, restore_random_state
from arcface_cakd.engine.run_settings import log_changes, run_settings
from arcface_cakd.files import DISK_IS_FULL, atomic_path, sync
from arcface_cakd.losses import DistillationLoss
from arcface_cakd.partial_fc import shard_of
from arcface_cakd.tensor_files import write_tensors

logger = logging.getLogger("arcface_cakd")


@dataclass(frozen=True)
class Position:
    """Where a run is: ``batch`` batches of ``epoch`` are done, ``step`` micro-steps in all."""

    epoch: int = 0
    batch: int = 0
    step: int = 0


def save_checkpoint(
    run: Run,
    config: TrainConfig,
    position: Position,
    meter: dict[str, Any],
    *,
    newest: bool = True,
    best: bool = False,
) -> None:
    """Write this rank's checkpoint; a collective.

    No rank's file appears before all are written and the set before is kept under its own name,
    so that a kill between two ranks' files, which leaves them at different steps, loses nothing.

    Args:
        run: what is trained.
        config: its config.
        position: the last micro-step that is in ``run``.
        meter: state of the averages that the next log line reports.
        newest: it is what a resumed run goes on from.
        best: it is the best so far; ``model.pt`` of its student goes with it.

    Raises:
        CheckpointError: the file cannot be written, as on a full disk; the former one stays.
    """
    if position.batch == len(run.loader):
        position = Position(position.epoch + 1, 0, position.step)
    content = _content(run, config, position, meter)
    path = checkpoint_path(config.folder, rank())
    best_path = checkpoint_path(best_folder(config.folder), rank())
    if newest:
        with atomic_path(path) as partial, failing_together():
            _write(content, partial, path)
            keep_former(config.folder, step_of(path) if path.is_file() else None)
        barrier()
        drop_former(config.folder, position.step, config.keep_checkpoints - 1)
    if best:
        with failing_together():
            if newest:
                link_or_copy(path, best_path)
            else:
                with atomic_path(best_path) as partial:
                    _write(content, partial, best_path)
            if is_main():
                save_model(run.student, best_path.with_name("model.pt"), run.description)
    barrier()


def _content(
    run: Run, config: TrainConfig, position: Position, meter: dict[str, Any]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "epoch": position.epoch,
        "batch": position.batch,
        "global_step": position.step,
        "state_dict_backbone": run.model.state_dict(),
        "state_dict_softmax_fc": {} if run.partial_fc is None else run.partial_fc.state_dict(),
        "state_optimizer": run.optimizer.state_dict(),
        "state_lr_scheduler": run.schedule.state_dict(),
        "state_scaler": None if run.scaler is None else run.scaler.state_dict(),
        "gradients": pending_gradients(_parameters(run)),
        "rng": random_state(run.device),
        "sampling": None if run.partial_fc is None else run.partial_fc.rng_state(),
        "meter": meter,
        "config": _fingerprint(run, config),
        "settings": run_settings(config),
    }


def _write(content: dict[str, Any], partial: Path, path: Path) -> None:
    """Write what is to become the file ``path``, a checkpoint."""
    try:
        write_tensors(partial, content)
        sync(partial)
    except OSError as error:
        way = "free space on its disk" if error.errno in DISK_IS_FULL else "make that possible"
        if path.is_file():
            way += ", then set resume=True to go on from the one before"
        raise CheckpointError(
            f"checkpoint {path} cannot be written ({error.strerror}): {way}"
        ) from error


def load_checkpoint(run: Run, config: TrainConfig) -> tuple[Position, dict]:
    """Put ``run`` where this rank's checkpoint left it; a collective.

    Learning rate, schedule, loss weights and the like are those of ``config``, which may differ
    from the stopped run's: the log says what does. What has been learned and drawn is the
    checkpoint's.

    Returns:
        the position to go on from, and the state of the meter.

    A set of which a file is missing or damaged, or whose files are of different steps, is named
    in the log, and the one before is taken, by all ranks.

    Raises:
        CheckpointError: there is no whole set, or it is of another network, teacher, number of
            classes or ranks.
    """
    content, path = _newest_whole(config.folder)
    with failing_together():
        _check(content, run, config, path)
    run.model.load_state_dict(content["state_dict_backbone"])
    if run.partial_fc is not None:
        run.partial_fc.load_state_dict(content["state_dict_softmax_fc"])
        run.partial_fc.set_rng_state(content["sampling"])
    # The settings of the groups (learning rate, weight decay) are the config's.
    groups = run.optimizer.state_dict()["param_groups"]
    state = content["state_optimizer"]["state"]
    run.optimizer.load_state_dict({"state": state, "param_groups": groups})
    run.schedule.load_state_dict(content["state_lr_scheduler"])
    if run.scaler is not None and content["state_scaler"] is not None:
        run.scaler.load_state_dict(content["state_scaler"])
    restore_gradients(_parameters(run), content["gradients"])
    restore_random_state(content["rng"], run.device)
    log_changes(content.get("settings"), config, path)
    position = Position(content["epoch"], content["batch"], content["global_step"])
    return position, content["meter"]


def _newest_whole(output: Path) -> tuple[dict[str, Any], Path]:
    """This rank's share of the last set that every rank can read, and its path; a collective."""
    steps = {step for listed in gather_objects(former_steps(output)) for step in listed}
    formers = [former_folder(output, step) for step in sorted(steps, reverse=True)]
    first: UnreadableCheckpointError | None = None
    for folder in [output, *formers]:
        path = checkpoint_path(folder, rank())
        problem, content = None, {}
        try:
            content = _read(path)
        except UnreadableCheckpointError as error:
            problem = error.problem
        reports = gather_objects((problem, content.get("global_step")))
        problem = next((problem for problem, _ in reports if problem is not None), None)
        if problem is None:
            problem = _torn([step for _, step in reports], folder)
        if problem is None:
            if first is not None:
                logger.warning(
                    "%s; going on from step %d, the former checkpoint in %s",
                    first.problem,
                    content["global_step"],
                    folder,
                )
            return content, path
        first = first or UnreadableCheckpointError(problem)
    assert first is not None  # the output itself is always looked at
    raise first


def load_distiller(config: TrainConfig) -> Distiller:
    """The Distiller of a run that was trained with checkpoints, on the CPU and in eval mode.

    For looking at what was learned beside the student, which ``model.pt`` leaves out. What each
    rank keeps for itself, such as BatchNorm's statistics, is rank 0's; what a loss shards over
    the ranks (``DistillationLoss.sharded_buffers``) is put together from the files of all.

    Args:
        config: the run's, with its ``cakd`` entry. Weights that the student started from
            (``cakd.student_weights``) are not read.

    Raises:
        CheckpointError: ``config.output`` holds no checkpoint that fits it, or lacks that of a
            rank which is needed.
        ConfigError: ``config`` has no ``cakd`` entry.
    """
    if config.cakd is None:
        raise ConfigError("the config has no cakd entry, without which there is no Distiller")
    path = checkpoint_path(config.folder)
    content = _read(path)
    distiller = build_model(replace(config, resume=True), content["config"]["num_classes"])
    assert isinstance(distiller, Distiller)  # as the config has a cakd entry
    # The network first: where the teacher is random, it is another one for another student.
    now = {"cakd": True, "network": config.network, **fingerprint(distiller)}
    check_fingerprint(content["config"], now, path)
    state = content["state_dict_backbone"]
    state.update(_joined_shards(distiller, content, config.folder))
    check_shapes(distiller, state, path)
    distiller.load_state_dict(state)
    if distiller.awaits_centers:
        centers = kept_centers(config.folder / CENTERS_FILE, {})
        if centers is not None:
            distiller.take_centers(centers)
    return distiller.eval()


def _joined_shards(
    distiller: Distiller, content: dict[str, Any], output: str | Path
) -> dict[str, Tensor]:
    """What the losses shard over the ranks, whole, by its name in the state dict.

    Args:
        distiller: whose losses these are.
        content: rank 0's checkpoint.
        output: where those of the other ranks are.
    """
    names = [
        f"{prefix}.{name}"
        for prefix, module in distiller.named_modules()
        if isinstance(module, DistillationLoss)
        for name in sorted(module.sharded_buffers)
    ]
    if not names:
        return {}
    ranks, num_classes = content["config"]["ranks"], content["config"]["num_classes"]
    steps = []
    shards: dict[str, list[Tensor]] = {name: [] for name in names}
    for number in range(ranks):
        if number > 0:
            path = checkpoint_path(output, number)
            if not path.is_file():
                raise CheckpointError(
                    f"there is no checkpoint {path}: the run had {ranks} ranks, each of which "
                    f"keeps a share of {names[0]}: put their files together"
                )
            content = _read(path)
        steps.append(content["global_step"])
        _, count = shard_of(num_classes, number, ranks)
        for name in names:
            if name in content["state_dict_backbone"]:
                shards[name].append(content["state_dict_backbone"][name][:count])
    torn = _torn(steps, Path(output))
    if torn is not None:
        raise UnreadableCheckpointError(torn)
    return {name: torch.cat(parts) for name, parts in shards.items() if parts}


def _parameters(run: Run) -> list[nn.Parameter]:
    return [p for group in run.optimizer.param_groups for p in group["params"]]


def _fingerprint(run: Run, config: TrainConfig) -> dict[str, Any]:
    """What must be the same for a checkpoint to mean anything, by the config's names."""
    return {
        "ranks": world_size(),
        "network": config.network,
        "embedding_size": config.embedding_size,
        "num_classes": run.num_classes,
        "num_image": run.loader.num_images,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "optimizer": config.optimizer,
        "cakd": config.cakd is not None,
        **(fingerprint(run.model) if isinstance(run.model, Distiller) else {}),
    }


def _read(path: Path) -> dict[str, Any]:
    return read_checkpoint(
        path,
        "config",
        "was not written by this loop (arcface_torch's own hold too little to go on from)",
    )


def _check(content: dict[str, Any], run: Run, config: TrainConfig, path: Path) -> None:
    now, then = _fingerprint(run, config), content["config"]
    if then["ranks"] != now["ranks"]:
        raise CheckpointError(
            f"checkpoint {path} is of a run on {then['ranks']} rank(s), this one has "
            f"{now['ranks']}: resuming on another number is not supported yet"
        )
    _check_class_centers(bool(content["state_dict_softmax_fc"]), run.partial_fc is not None, path)
    check_fingerprint(then, now, path)
    check_shapes(run.model, content["state_dict_backbone"], path)
    if run.partial_fc is not None:
        check_shapes(run.partial_fc, content["state_dict_softmax_fc"], path)


def _check_class_centers(there: bool, here: bool, path: Path) -> None:
    """Before the number of classes, which differs with it and says less."""
    if there != here:
        wrong = "is of a run without class centres (cakd.margin_weight 0), and this one has them"
        if there:
            wrong = "has class centres, and this run none, as its cakd.margin_weight is 0"
        raise CheckpointError(
            f"checkpoint {path} {wrong}: set the cakd entry back, or {START_ANEW}"
        )


def _torn(steps: list[int], folder: Path) -> str | None:
    """What is wrong where a set's files, by rank, are not of one step."""
    if len(set(steps)) == 1:
        return None
    return (
        f"the checkpoints in {folder} are of different steps (by rank: "
        f"{', '.join(map(str, steps))}): they are not of one moment of one run"
    )
