"""The ``model.pt`` of a patched arcface_torch, and what it is of."""

import os
from typing import Any

from torch import nn

from arcface_cakd.arcface_torch.host_distiller import distiller_of
from arcface_cakd.arcface_torch.networks import student
from arcface_cakd.arcface_torch.user_errors import exiting_on_user_error
from arcface_cakd.backbones import ModelDescription, TrainingSet
from arcface_cakd.backbones import save_model as save_with_description


def save_model(backbone: nn.Module, cfg: Any, train_loader: Any, path: str | os.PathLike) -> None:
    """Write ``model.pt``, the student or the plain backbone, and ``model.json`` beside it.

    Called on rank 0. A disk that is full ends the program with one line.

    Args:
        backbone: in DistributedDataParallel.
        cfg: the host's config.
        train_loader: the host's; DALI's has no dataset whose images could be counted.
        path: of ``model.pt``.
    """
    distiller = distiller_of(backbone)
    classes = cfg.num_classes
    if distiller is not None:
        distiller.check(together=False)
        # cfg's may stand for a Partial FC that nobody needs.
        classes = distiller.num_classes if distiller.config.needs_labels else None
    dataset = getattr(train_loader, "dataset", None)
    images = None if dataset is None else len(dataset)
    trained_on = TrainingSet.at(str(cfg.rec), images, classes)
    with exiting_on_user_error():
        save_with_description(
            student(backbone), path, ModelDescription(cfg.network, cfg.embedding_size, trained_on)
        )
