"""Cross Architecture Distillation (CAKD) for insightface's arcface_torch.

A Transformer teacher's knowledge in a CNN student, inside the Partial-FC training loop
(Zhao et al., ACM MM 2023, arXiv 2306.14662). The names below load on first use, so that
``import arcface_cakd`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arcface_cakd.config import CakdConfig as CakdConfig
    from arcface_cakd.distiller import Distiller as Distiller
    from arcface_cakd.features import FaceFeatures as FaceFeatures
    from arcface_cakd.registry import BACKBONES as BACKBONES
    from arcface_cakd.registry import LOSSES as LOSSES

__version__ = "0.1.0"

_PUBLIC = {
    "BACKBONES": "registry",
    "LOSSES": "registry",
    "CakdConfig": "config",
    "Distiller": "distiller",
    "FaceFeatures": "features",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"arcface_cakd.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'arcface_cakd' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
