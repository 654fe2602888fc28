"""The composition root: what a ``cakd`` entry asks for, as one module of a training loop."""

from arcface_cakd.distiller.module import THE_TEACHERS, Distiller

__all__ = ["THE_TEACHERS", "Distiller"]
