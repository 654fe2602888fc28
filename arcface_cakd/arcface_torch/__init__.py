"""What a patched arcface_torch calls: each function is one line of its ``train_v2.py``.

A config without ``cakd`` passes through every one of them unchanged, but for what cannot be
meant, which ends the program. The host reaches them as
``utils.utils_cakd``, a file that the patch adds, which does without where this package is not
installed. The names load on first use, so that the host's data tools need no torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arcface_cakd.arcface_torch.checkpoint import check_checkpoint as check_checkpoint
    from arcface_cakd.arcface_torch.checkpoint import resume as resume
    from arcface_cakd.arcface_torch.checkpoint import run_state as run_state
    from arcface_cakd.arcface_torch.checkpoint import save as save
    from arcface_cakd.arcface_torch.config_check import check_config as check_config
    from arcface_cakd.arcface_torch.fast_items import faster_items as faster_items
    from arcface_cakd.arcface_torch.host_distiller import clip_grad_norm as clip_grad_norm
    from arcface_cakd.arcface_torch.host_distiller import comm_hook as comm_hook
    from arcface_cakd.arcface_torch.host_distiller import labels as labels
    from arcface_cakd.arcface_torch.host_distiller import parameter_groups as parameter_groups
    from arcface_cakd.arcface_torch.host_distiller import total_loss as total_loss
    from arcface_cakd.arcface_torch.logs import log_line as log_line
    from arcface_cakd.arcface_torch.logs import log_to as log_to
    from arcface_cakd.arcface_torch.margin_softmax import margin as margin
    from arcface_cakd.arcface_torch.margin_softmax import observe as observe
    from arcface_cakd.arcface_torch.margin_softmax import start_centers as start_centers
    from arcface_cakd.arcface_torch.model_file import save_model as save_model
    from arcface_cakd.arcface_torch.networks import distill as distill
    from arcface_cakd.arcface_torch.networks import get_model as get_model
    from arcface_cakd.arcface_torch.networks import student as student
    from arcface_cakd.arcface_torch.teacher import check_teacher as check_teacher

_PUBLIC = {
    "check_checkpoint": "checkpoint",
    "check_config": "config_check",
    "check_teacher": "teacher",
    "clip_grad_norm": "host_distiller",
    "comm_hook": "host_distiller",
    "distill": "networks",
    "faster_items": "fast_items",
    "get_model": "networks",
    "labels": "host_distiller",
    "log_line": "logs",
    "log_to": "logs",
    "margin": "margin_softmax",
    "observe": "margin_softmax",
    "parameter_groups": "host_distiller",
    "resume": "checkpoint",
    "run_state": "checkpoint",
    "save": "checkpoint",
    "save_model": "model_file",
    "start_centers": "margin_softmax",
    "student": "networks",
    "total_loss": "host_distiller",
}
__all__ = [*_PUBLIC]


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
