"""The composition root: what a ``cakd`` entry asks for, as one module of a training loop."""

from arcface_cakd.distiller.module import Distiller

__all__ = ["Distiller"]
