"""What a cache is of: everything that its numbers hang on."""

import inspect
from typing import Any

import torch

from arcface_cakd.backbones import (
    FaceBackbone,
    OnnxTeacher,
    build_teacher,
    source_digest,
    weights_digest,
)
from arcface_cakd.data.digest import data_digest
from arcface_cakd.data.reading import Views
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.registry import BACKBONES

FORMAT_VERSION = 1
"""Raised by whatever changes the files, or how an image becomes what a network sees."""

# Of the teacher's settings those that say nothing about its features, or that other parts tell.
_APART = ("weights", "centers", "min_accuracy", "cache", "cached_views", "bf16")
# What is left alone does not count, so that a setting which is new makes no cache stale.
_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(build_teacher).parameters.items()
    if parameter.default is not parameter.empty
}


def identity(teacher: FaceBackbone, settings: dict[str, Any], views: Views) -> dict[str, Any]:
    """What must be the same for a cache to be used, by the names that messages call it.

    Args:
        teacher: in the precision that it runs in.
        settings: of the teacher, those of ``cakd.teacher``.
        views: the training set, and how an epoch sees it.

    Raises:
        RecordIOError, DataError, OSError: the training set cannot be read.
    """
    own = {n: v for n, v in settings.items() if n not in _APART and v != _DEFAULTS.get(n)}
    if isinstance(teacher, OnnxTeacher):
        own["network"] = "onnx"  # wherever the file lies
    name = settings["network"]
    factory = BACKBONES.get(name) if name in BACKBONES else None
    augmentation = views.augmentation
    return {
        "format version": FORMAT_VERSION,
        "teacher": ", ".join(f"{name} {value}" for name, value in sorted(own.items())),
        "teacher's weights": weights_digest(teacher),
        "backbone's source": source_digest(teacher, factory),
        "precision": str(teacher.amp_dtype or torch.float32).removeprefix("torch."),
        "training set": data_digest(views.images),
        "crop size": CROP_SIZE,
        "augment": None if augmentation is None else augmentation.settings,
        "number of views": 1 if augmentation is None else views.count,
        # Of augmentation alone: both flips of each image are kept.
        "seed": None if augmentation is None else views.seed,
    }


def difference(there: dict[str, Any], here: dict[str, Any]) -> str | None:
    """The first thing in which two identities differ, in words; None where there is none."""
    there = {**there, "teacher": _without_unset(str(there.get("teacher")))}
    here = {**here, "teacher": _without_unset(str(here.get("teacher")))}
    for name, value in here.items():
        if there.get(name) != value:
            return f"another {name} ({_short(there.get(name))}, here {_short(value)})"
    return None


def _without_unset(teacher: str) -> str:
    """The settings of a teacher as caches of version 0.1.0 name them, whose unset ones count."""
    return ", ".join(part for part in teacher.split(", ") if not part.endswith(" None"))


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:  # a SHA-256
        return f"{value[:12]}..."
    return str(value)
