"""A look at the teacher before the host's first step, and what it lacks by then."""

from pathlib import Path
from typing import Any

from torch import nn

from arcface_cakd import engine
from arcface_cakd.arcface_torch.host_distiller import distiller_of
from arcface_cakd.arcface_torch.user_errors import exiting_on_user_error
from arcface_cakd.config import ConfigError


def check_teacher(cfg: Any, backbone: nn.Module) -> None:
    """Log the teacher's accuracy, and end the program if ``cakd.teacher.min_accuracy`` is higher.

    It is that on the first of ``cfg.val_targets`` that is in ``cfg.rec``; see
    ``engine.check_teacher``. With ``cakd.teacher.centers="from_data"`` the teacher's class means
    over the training set in ``cfg.rec`` are computed then, or read where ``cfg.resume`` says so;
    see ``engine.give_centers``. Nothing for a plain backbone; else a collective.

    Args:
        cfg: the host's config, an EasyDict.
        backbone: in DistributedDataParallel, where it computes.
    """
    distiller = distiller_of(backbone)
    if distiller is None:
        return
    with exiting_on_user_error():
        engine.check_teacher(distiller, cfg.rec, cfg.val_targets)
        if distiller.awaits_centers and not Path(cfg.rec).is_dir():
            raise ConfigError(
                f"cakd.teacher.centers='from_data' needs a training set, and config.rec is "
                f"{cfg.rec!r}: give its folder, or the teacher's checkpoint_gpu_*.pt"
            )
        engine.give_centers(
            distiller, cfg.rec, cfg.output, resume=cfg.resume, num_workers=cfg.num_workers
        )
