"""A look at the teacher, its cache, and what it lacks, before the host's first step."""

from pathlib import Path
from typing import Any

from torch import nn

from arcface_cakd import engine
from arcface_cakd.arcface_torch.host_distiller import distiller_of
from arcface_cakd.arcface_torch.user_errors import exiting_on_user_error
from arcface_cakd.config import ConfigError
from arcface_cakd.data.loader import open_images
from arcface_cakd.data.reading import Views
from arcface_cakd.distributed import failing_together
from arcface_cakd.teacher_cache import open_cache


def check_teacher(cfg: Any, backbone: nn.Module) -> None:
    """Log the teacher's accuracy, and end the program if ``cakd.teacher.min_accuracy`` is higher.

    It is that on the first of ``cfg.val_targets`` that is in ``cfg.rec``; see
    ``engine.check_teacher``. With ``cakd.teacher.centers="from_data"`` the teacher's class means
    over the training set in ``cfg.rec`` are computed then, or read where ``cfg.resume`` says so;
    see ``engine.give_centers``. Then the teacher's cache is opened, and what it lacks is computed,
    see ``open_cache``. Nothing for a plain backbone; else a collective.

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
        if distiller.config.teacher["cache"] is None:
            return
        with failing_together():
            images = open_images(cfg.rec, labelled=False)
        distiller.cache = open_cache(
            distiller,
            Views(images, seed=0),  # of augmentation, which there is none of
            batch_size=cfg.batch_size,
            num_workers=cfg.num_workers,
        )
        if distiller.cache is not None:
            distiller.drop_teacher()
