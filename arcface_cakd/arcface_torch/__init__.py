"""What a patched arcface_torch calls: each function is one line of its ``train_v2.py``.

A config without ``cakd`` passes through every one of them unchanged. The host reaches them as
``utils.utils_cakd``, a file that the patch adds, which does without where this package is not
installed. The names load on first use, so that the host's data tools need no torch.
"""

import importlib

_PUBLIC = {
    "check_checkpoint": "checkpoint",
    "check_teacher": "teacher",
    "clip_grad_norm": "host_distiller",
    "comm_hook": "host_distiller",
    "distill": "networks",
    "faster_items": "fast_items",
    "get_model": "networks",
    "labels": "host_distiller",
    "log_line": "logs",
    "log_to": "logs",
    "parameter_groups": "host_distiller",
    "resume": "checkpoint",
    "run_state": "checkpoint",
    "save": "checkpoint",
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
