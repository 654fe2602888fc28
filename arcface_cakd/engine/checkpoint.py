"""Checkpoints: all that a run needs to go on as if it had never stopped.

One file per rank, ``checkpoint_gpu_<rank>.pt``, with arcface_torch's keys and more; tensors and
builtins only, so that ``torch.load`` reads it under ``weights_only=True``.
"""

import errno
import logging
import os
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
    is_main,
    rank,
    world_size,
)
from arcface_cakd.engine.builders import Run, build_model
from arcface_cakd.engine.checkpoint_reading import newest_whole, read_own, torn
from arcface_cakd.engine.checkpoint_sets import (
    best_folder,
    checkpoint_path,
    link_or_copy,
    replace_newest,
)
from arcface_cakd.engine.checkpoint_state import (
    FORMAT,
    batch_size_of,
    check_shapes,
    pending_gradients,
    rescaling,
    restore_gradients,
)
from arcface_cakd.engine.class_means import CENTERS_FILE, kept_centers
from arcface_cakd.engine.errors import (
    START_ANEW,
    CheckpointError,
    UnreadableCheckpointError,
)
from arcface_cakd.engine.fingerprint import check_fingerprint, fingerprint
from arcface_cakd.engine.random_state import random_state, restore_random_state
from arcface_cakd.engine.resharding import check_global_batch, sharded_names
from arcface_cakd.engine.run_settings import log_changes, run_settings
from arcface_cakd.files import DISK_IS_FULL, atomic_path, sync
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
    with failing_together():
        if is_main() and not config.folder.is_dir():  # or it would come back without its log
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), config.output)
    if newest:
        replace_newest(
            config.folder,
            lambda partial: _write(content, partial, path),
            position.step,
            config.keep_checkpoints,
        )
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


def load_checkpoint(run: Run, config: TrainConfig) -> tuple[Position, dict[str, Any] | None]:
    """Put ``run`` where this rank's checkpoint left it; a collective.

    Learning rate, schedule, loss weights and the like are those of ``config``, which may differ
    from the stopped run's: the log says what does. What has been learned and drawn is the
    checkpoint's.

    Returns:
        the position to go on from, and the state of the meter, if any.

    A set of which a file is missing or damaged, or whose files are of different steps, is named
    in the log, and the one before is taken, by all ranks.

    Another number of ranks goes on where the images of a step stay as many, and a checkpoint of
    arcface_torch at its epoch, see ``newest_whole``.

    Raises:
        CheckpointError: there is no whole set, or it is of another network, teacher, number of
            classes or global batch.
    """
    content, path = newest_whole(config.folder, sharded_names(run.model))
    with failing_together():
        _check(content, run, config, path)
    run.model.load_state_dict(content["state_dict_backbone"])
    if run.partial_fc is not None:
        run.partial_fc.load_state_dict(content["state_dict_softmax_fc"])
        if content["sampling"] is not None:
            run.partial_fc.set_rng_state(content["sampling"])
    # The settings of the groups (learning rate, weight decay) are the config's.
    groups = run.optimizer.state_dict()["param_groups"]
    state = content["state_optimizer"]["state"]
    run.optimizer.load_state_dict({"state": state, "param_groups": groups})
    run.schedule.load_state_dict(content["state_lr_scheduler"])
    if run.scaler is not None and content["state_scaler"] is not None:
        run.scaler.load_state_dict(content["state_scaler"])
    if content["gradients"] is not None:
        scaled = content["state_scaler"], run.scaler
        restore_gradients(_parameters(run), content["gradients"], rescaling(*scaled))
    if content["rng"] is not None:
        restore_random_state(content["rng"], run.device)
    log_changes(content.get("settings"), config, path)
    position = Position(content["epoch"], content["batch"], content["global_step"])
    return position, content["meter"]


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
    content = read_own(path)
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
    names = sharded_names(distiller)
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
            content = read_own(path)
        steps.append(content["global_step"])
        _, count = shard_of(num_classes, number, ranks)
        for name in names:
            if name in content["state_dict_backbone"]:
                shards[name].append(content["state_dict_backbone"][name][:count])
    problem = torn(steps, Path(output))
    if problem is not None:
        raise UnreadableCheckpointError(problem)
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


def _check(content: dict[str, Any], run: Run, config: TrainConfig, path: Path) -> None:
    now, then = _fingerprint(run, config), content["config"]
    if then is None:
        then = _theirs(content, run, now, path)
    elif then["ranks"] != now["ranks"]:
        former, present = ((run["ranks"], run["batch_size"]) for run in (then, now))
        check_global_batch(former, present, path)
        say = logger.warning if is_main() else logger.debug
        say(
            "%s is of %d rank(s), now %d: class centres are divided anew; BatchNorm and dropout "
            "make it another run from here",
            path,
            then["ranks"],
            now["ranks"],
        )
        then = {**then, "ranks": now["ranks"], "batch_size": now["batch_size"]}
    _check_class_centers(bool(content["state_dict_softmax_fc"]), run.partial_fc is not None, path)
    check_fingerprint(then, now, path)
    check_shapes(run.model, content["state_dict_backbone"], path)
    if run.partial_fc is not None:
        check_shapes(run.partial_fc, content["state_dict_softmax_fc"], path)


def _theirs(content: dict[str, Any], run: Run, now: dict[str, Any], path: Path) -> dict[str, Any]:
    """What to hold against ``now``: a checkpoint of arcface_torch says little of itself."""
    there, here = (
        # Whether it is Adam's, and how many parameters are in each group.
        [("betas" in group, len(group["params"])) for group in state["param_groups"]]
        for state in (content["state_optimizer"], run.optimizer.state_dict())
    )
    if there != here:
        raise CheckpointError(
            f"checkpoint {path} is of another network, optimizer, or of other groups of "
            f"parameters: set network, optimizer and the cakd entry back, or {START_ANEW}"
        )
    ranks, batch_size = (content.get("cakd") or {}).get("ranks"), batch_size_of(content)
    if ranks is not None and batch_size is not None:
        check_global_batch((ranks, batch_size), (now["ranks"], now["batch_size"]), path)
    logger.warning(
        "%s is arcface_torch's: going on at epoch %d with its weights, optimizer and schedule; "
        "random numbers begin anew, and images come in this loop's order",
        path,
        content["epoch"],
    )
    said = (content.get("cakd") or {}).get("fingerprint") or {}
    return {**now, **said}


def _check_class_centers(there: bool, here: bool, path: Path) -> None:
    """Before the number of classes, which differs with it and says less."""
    if there != here:
        wrong = "is of a run without class centres (cakd.margin_weight 0), and this one has them"
        if there:
            wrong = "has class centres, and this run none, as its cakd.margin_weight is 0"
        raise CheckpointError(
            f"checkpoint {path} {wrong}: set the cakd entry back, or {START_ANEW}"
        )
