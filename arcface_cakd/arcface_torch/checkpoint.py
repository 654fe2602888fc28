"""What the host's checkpoint lacks for a run that goes on as if it had never stopped."""

import logging
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from arcface_cakd.arcface_torch.host_distiller import distiller_of
from arcface_cakd.arcface_torch.other_ranks import divide_anew
from arcface_cakd.arcface_torch.user_errors import exiting_on_user_error
from arcface_cakd.distributed import failing_together, is_main, world_size
from arcface_cakd.distributed import rank as own_rank
from arcface_cakd.engine.checkpoint_sets import checkpoint_path, replace_newest
from arcface_cakd.engine.checkpoint_state import (
    check_shapes,
    pending_gradients,
    read_checkpoint,
    rescaling,
    restore_gradients,
)
from arcface_cakd.engine.errors import START_ANEW, CheckpointError
from arcface_cakd.engine.fingerprint import check_fingerprint, fingerprint, other_people
from arcface_cakd.engine.random_state import random_state, restore_random_state
from arcface_cakd.engine.resharding import sharded_names
from arcface_cakd.engine.run_settings import log_changes, run_settings
from arcface_cakd.files import atomic_path
from arcface_cakd.tensor_files import write_tensors


def run_state(
    backbone: nn.Module, partial_fc: nn.Module, amp: Any, cfg: Any = None
) -> dict[str, dict]:
    """What to add to the host's checkpoint: ``{"cakd": ...}``, tensors and builtins only.

    The global random generators (Partial FC's sampling draws from them), the gradient scaler,
    the gradients of an optimiser step that is not complete (``gradient_acc``), the settings of
    the run and its number of ranks, and in distillation the fingerprint of what it learns from.

    Args:
        backbone: in DistributedDataParallel.
        partial_fc: the host's ``PartialFC_V2``.
        amp: the host's gradient scaler.
        cfg: the host's config; None where a hook of an older version does not give it.
    """
    gradients = pending_gradients(_parameters(backbone, partial_fc))
    distiller = distiller_of(backbone)
    if distiller is not None:
        distiller.check()  # before what cannot go on replaces what can
    return {
        "cakd": {
            "rng": random_state(_device(partial_fc)),
            "scaler": amp.state_dict(),
            "gradients": gradients if any(g is not None for g in gradients) else None,
            "fingerprint": None if distiller is None else fingerprint(distiller),
            "settings": None if cfg is None else run_settings(cfg),
            "ranks": world_size(),
        }
    }


def check_checkpoint(
    cfg: Any, rank: int, backbone: nn.Module, partial_fc: nn.Module, optimizer: Optimizer
) -> None:
    """End the program with one line where ``cfg.resume`` asks for a checkpoint that does not fit.

    Called before the host loads it, whose own error would be a page of keys. One of another number
    of ranks is divided anew first, and in the place of a damaged one comes the set before. Nothing
    where ``cfg.resume`` is false; else a collective.

    Args:
        cfg: the host's config.
        rank: of this process, as the checkpoint's file name has it.
        backbone: in DistributedDataParallel.
        partial_fc: the host's ``PartialFC_V2``.
        optimizer: the host's, with every group.
    """
    if not cfg.resume:
        return
    distiller = distiller_of(backbone)
    learns_centers = distiller is None or distiller.config.margin_weight > 0
    fits = partial(_check_fit, rank, backbone, partial_fc, optimizer)
    with exiting_on_user_error():
        divide_anew(
            cfg.output,
            cfg.num_classes if learns_centers else None,
            check=fits,
            batch_size=cfg.batch_size,
            sharded=() if distiller is None else sharded_names(distiller),
            identities=None if distiller is None else distiller.num_classes,
        )
    with exiting_on_user_error(), failing_together():
        path = checkpoint_path(cfg.output, rank)
        content = _read(path)
        fits(content, path)
        if is_main():
            log_changes(content.get("cakd", {}).get("settings"), cfg, path)


def _check_fit(
    rank: int,
    backbone: nn.Module,
    partial_fc: nn.Module,
    optimizer: Optimizer,
    content: dict[str, Any],
    path: Path,
) -> None:
    """Hold a checkpoint of this rank against what is to take it."""
    # None: a plain run's, or of an unpatched host; an older version of ours has no entry.
    then = content.get("cakd", {"fingerprint": None}).get("fingerprint", {})
    distiller = distiller_of(backbone)
    if distiller is not None and then is not None:
        check_fingerprint(then, fingerprint(distiller), path)
    check_shapes(backbone.get_submodule("module"), content["state_dict_backbone"], path)
    former = content["state_dict_softmax_fc"].get("weight")
    present = partial_fc.state_dict().get("weight")
    if former is not None and present is not None and len(former) != len(present):
        raise other_people(path, f"{len(former)} class centres on rank {rank}", f"{len(present)}")
    check_shapes(partial_fc, content["state_dict_softmax_fc"], path)
    there, here = (
        # Whether it is Adam's, and how many parameters are in each group.
        [("betas" in group, len(group["params"])) for group in state["param_groups"]]
        for state in (content["state_optimizer"], optimizer.state_dict())
    )
    if there != here:
        raise CheckpointError(
            f"checkpoint {path} is of another optimizer, or of other groups of parameters: "
            f"set config.optimizer and the cakd entry back, or {START_ANEW}"
        )


def resume(cfg: Any, rank: int, backbone: nn.Module, partial_fc: nn.Module, amp: Any) -> None:
    """Restore what ``run_state`` kept, where ``cfg.resume`` says so.

    Called when all else is restored and built, for whatever draws a random number in between
    would be missed. A checkpoint without it, of an unpatched host, is used as it is.
    """
    if not cfg.resume:
        return
    path = checkpoint_path(cfg.output, rank)
    content = _read(path)
    logging.info("%s: goes on after step %d", path, content["global_step"])
    kept = content.get("cakd")
    if kept is None:
        logging.warning(
            "%s holds no random state and no gradient scaler: this run will differ from one that "
            "never stopped",
            path,
        )
        return
    if kept["scaler"] and amp.is_enabled():
        amp.load_state_dict(kept["scaler"])
    if kept["gradients"] is not None:
        # The host builds its scaler in float32 too, and scales nothing by it then.
        settings = kept.get("settings") or {}
        scaled = settings.get("fp16", repr(cfg.fp16)) == repr(True)
        factor = rescaling(kept["scaler"] if scaled else None, amp if cfg.fp16 else None)
        restore_gradients(_parameters(backbone, partial_fc), kept["gradients"], factor)
    if kept["rng"] is not None:  # as of a rank that there was not
        restore_random_state(kept["rng"], _device(partial_fc))


def save(content: Any, path: str | os.PathLike) -> None:
    """``torch.save``, written beside and renamed: a run that is killed keeps its former file.

    This rank's checkpoint is a collective: the set before, of all ranks, stays in
    ``checkpoints/step_<n>``, where ``check_checkpoint`` finds it if the newest is damaged. A disk
    that is full ends the program with one line.
    """
    folder = Path(path).parent
    if Path(path) == checkpoint_path(folder, own_rank()) and "global_step" in content:
        with exiting_on_user_error():
            replace_newest(
                folder, lambda beside: write_tensors(beside, content), content["global_step"]
            )
        return
    with atomic_path(path) as beside:
        write_tensors(beside, content)


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint of the host, mapped: its class centres are read by whoever takes them."""
    return read_checkpoint(
        path,
        "global_step",
        "is not a checkpoint of train_v2.py, which holds global_step",
        mapped=True,
    )


def _parameters(backbone: nn.Module, partial_fc: nn.Module) -> list[nn.Parameter]:
    return [*backbone.parameters(), *partial_fc.parameters()]


def _device(partial_fc: nn.Module) -> torch.device:
    return next(partial_fc.parameters()).device
