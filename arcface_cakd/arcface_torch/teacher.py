"""A look at the teacher before the host's first step."""

from typing import Any

from torch import nn

from arcface_cakd import engine
from arcface_cakd.arcface_torch.hosted import hosted
from arcface_cakd.arcface_torch.mistakes import one_line_for_a_mistake


def check_teacher(cfg: Any, backbone: nn.Module) -> None:
    """Log the teacher's accuracy, and end the program if ``cakd.teacher.min_accuracy`` is higher.

    It is that on the first of ``cfg.val_targets`` that is in ``cfg.rec``; see
    ``engine.check_teacher``. Nothing for a plain backbone; else a collective.

    Args:
        cfg: the host's config, an EasyDict.
        backbone: in DistributedDataParallel, where it computes.
    """
    distiller = hosted(backbone)
    if distiller is not None:
        with one_line_for_a_mistake():
            engine.check_teacher(distiller, cfg.rec, cfg.val_targets)
