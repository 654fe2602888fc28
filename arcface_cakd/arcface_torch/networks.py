"""The networks of a patched arcface_torch: its own, ours by name, and the distilling one."""

import logging
from typing import Any

import torch
from torch import nn

from arcface_cakd import backbones
from arcface_cakd.arcface_torch.config_check import check_precision
from arcface_cakd.arcface_torch.host_distiller import HostDistiller, distiller_of
from arcface_cakd.arcface_torch.user_errors import exiting_on_user_error
from arcface_cakd.backbones import (
    FaceBackbone,
    WeightsError,
    build_teacher,
    copy_weights,
    start_from,
)
from arcface_cakd.backbones.weights import check_network
from arcface_cakd.config import CakdConfig, ConfigError
from arcface_cakd.distributed import failing_together, world_size
from arcface_cakd.precision import amp_dtype
from arcface_cakd.registry import BACKBONES, did_you_mean


def get_model(name: str, **kwargs: Any) -> FaceBackbone:
    """A network that the host does not know itself, such as a Swin teacher.

    A name that we do not know either ends the program with one line.

    Args:
        name: a name in ``BACKBONES``, or ``timm:<model>``.
        kwargs: the host's ``dropout``, ``fp16`` and ``num_features``.
    """
    with exiting_on_user_error():
        return backbones.get_model(name, **kwargs)


def distill(backbone: nn.Module, cfg: Any) -> nn.Module:
    """The network that the host trains: ``backbone``, or the distiller around its student.

    The global random state is left as it was, so that Partial FC starts from the same class
    centres with ``cakd`` and without. A mistake in the ``cakd`` entry ends the program with one
    line; a collective, where anything of ours is asked for.

    Args:
        backbone: what the host's ``get_model`` built for ``cfg.network``.
        cfg: the host's config, an EasyDict. Beyond its own keys, ``cakd``, ``bf16`` and, for a
            plain network, ``init_weights`` (as in our ``TrainConfig``) are read.

    Returns:
        ``backbone`` itself where ``cfg`` has no ``cakd``.
    """
    plain = cfg.get("cakd") is None
    start, bf16 = cfg.get("init_weights"), cfg.get("bf16") or False
    if plain and not bf16 and start is None:
        return backbone
    with exiting_on_user_error(), failing_together(), torch.random.fork_rng(devices=[]):
        check_precision(cfg)
        if plain:
            if start is not None and not cfg.resume:
                check_network(start, str(cfg.network))
                start_from(backbone, start)
            if bf16:
                if not isinstance(backbone, FaceBackbone):
                    raise ConfigError(
                        f"config.bf16: this arcface_torch's {cfg.network!r} knows float16 alone: "
                        "set fp16, or add a cakd entry"
                    )
                backbone.amp_dtype = torch.bfloat16
            return backbone
        config = CakdConfig.from_entry(cfg.cakd)
        if cfg.resume:
            config = config.resumed()
        network = _student(backbone, cfg)
        teacher = build_teacher(cfg.embedding_size, **config.teacher)
        # As train_v2.py counts them, later on.
        run_steps = cfg.num_image // (cfg.batch_size * world_size()) * cfg.num_epoch
        distiller = HostDistiller(
            network, teacher, config, cfg.num_classes, run_steps, frequent=cfg.frequent
        )
        distiller.amp_dtype = amp_dtype(cfg.fp16, bf16)
        if config.margin_weight == 0:
            _shrink_partial_fc(cfg)
        logging.info(
            "cakd: %s learns from %s, and beside it %d parameters of prompts and heads",
            cfg.network,
            config.teacher["network"],
            sum(p.numel() for g in distiller.parameter_groups(0, 0)[1:] for p in g["params"]),
        )
        distiller.announce(logging.getLogger())
        return distiller


def student(backbone: nn.Module) -> nn.Module:
    """What becomes ``model.pt``: the student, or the plain backbone.

    Args:
        backbone: in DistributedDataParallel.
    """
    distiller = distiller_of(backbone)
    return backbone.get_submodule("module") if distiller is None else distiller.student


def _shrink_partial_fc(cfg: Any) -> None:
    """Where there is no margin softmax: next to nothing for the Partial FC that the host builds.

    ``cfg`` is what it builds that from, next. With one class on each rank it holds a row, and its
    loss, which nobody adds or differentiates, is one column; labels beyond are none of its own to
    it. All of them are sampled, for a share of one row would be none.
    """
    logging.info(
        "cakd: margin_weight is 0: the Partial FC that train_v2.py builds itself gets one class a "
        "rank instead of config.num_classes %s, runs forward only and learns nothing; sample_rate, "
        "margin_list, adaface, init_centers and freeze_centers have no effect",
        cfg.num_classes,
    )
    cfg.num_classes, cfg.sample_rate = world_size(), 1.0
    cfg.adaface = cfg.init_centers = None
    cfg.freeze_centers = False


def _student(backbone: nn.Module, cfg: Any) -> FaceBackbone:
    """Ours of the same name, with the weights that the host gave its own."""
    if isinstance(backbone, FaceBackbone):
        return backbone
    if cfg.network not in BACKBONES:
        hint = did_you_mean(str(cfg.network), BACKBONES.names())
        raise ConfigError(
            f"config.network {cfg.network!r} of this arcface_torch cannot be distilled into, as "
            f"its pixel features are out of reach ({hint}): register it in BACKBONES"
        )
    own = backbones.get_model(
        cfg.network, dropout=0.0, fp16=cfg.fp16, num_features=cfg.embedding_size
    )
    source = f"the weights of this arcface_torch's {cfg.network!r}"
    try:
        copy_weights(own, backbone.state_dict(), source)
    except WeightsError as error:
        raise WeightsError(f"{error}; or register your network by a new name") from error
    return own
