"""A look at the teacher before the host's first step."""

from typing import Any

from torch import nn

from arcface_cakd import engine
from arcface_cakd.arcface_torch.host_distiller import distiller_of
from arcface_cakd.arcface_torch.user_errors import exiting_on_user_error


def check_teacher(cfg: Any, backbone: nn.Module) -> None:
    """Log the teacher's accuracy, and end the program if ``cakd.teacher.min_accuracy`` is higher.

    It is that on the first of ``cfg.val_targets`` that is in ``cfg.rec``; see
    ``engine.check_teacher``. Nothing for a plain backbone; else a collective.

    Args:
        cfg: the host's config, an EasyDict.
        backbone: in DistributedDataParallel, where it computes.
    """
    distiller = distiller_of(backbone)
    if distiller is not None:
        with exiting_on_user_error():
            engine.check_teacher(distiller, cfg.rec, cfg.val_targets)
