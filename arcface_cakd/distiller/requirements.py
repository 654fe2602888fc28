"""What a distillation needs of its teacher, its student and the training set."""

import torch

from arcface_cakd.backbones import FaceBackbone
from arcface_cakd.config import CakdConfig, ConfigError
from arcface_cakd.losses import FeatureDims
from arcface_cakd.losses.base import PIXEL_FEATURES
from arcface_cakd.partial_fc import FROM_DATA, ArcFace, PartialFC, load_centers
from arcface_cakd.prompting import AdaptablePrompts


def check_feedback(prompts: AdaptablePrompts, dims: FeatureDims) -> None:
    """Refuse a feedback of embeddings that do not compare."""
    widths = dims.student_embedding, dims.teacher_embedding
    if prompts.feedback is not None and widths[0] != widths[1]:
        raise ConfigError(
            f"cakd.prompts.feedback compares embeddings, and the student's has width {widths[0]}, "
            f"the teacher's {widths[1]}: give both one width, or set feedback=False"
        )


def check_embeddings_suffice(config: CakdConfig, *losses: str) -> None:
    """Refuse what asks more than embeddings of the teacher.

    Args:
        config: the entry.
        losses: those known to do so; by default those whose class says it.
    """
    off = [f"cakd.{part}=None" for part in ("prompts", "urfm") if getattr(config, part) is not None]
    losses = losses or tuple(config.losses_needing(PIXEL_FEATURES))
    advice = [f"set {' and '.join(off)}"] if off else []
    if losses:
        advice.append(f"leave out of cakd.losses {', '.join(map(repr, losses))}")
    if advice:
        raise ConfigError(
            f"the teacher {config.teacher['network']!r} gives embeddings only, no pixel features: "
            f"{', '.join(advice)}, or take a teacher that has them, such as 'swin_s'"
        )


def teacher_partial_fc(
    config: CakdConfig, teacher: FaceBackbone, num_classes: int | None, wants: str
) -> PartialFC:
    """The teacher's frozen class centres under ArcFace, for what ``wants`` them."""
    pattern = config.teacher["centers"]
    if pattern is None:
        raise ConfigError(
            f"{wants} needs the teacher's class centres: set cakd.teacher.centers to its "
            f"checkpoint_gpu_*.pt, or to {FROM_DATA!r} for means of its embeddings"
        )
    if pattern == FROM_DATA:
        if num_classes is None:
            raise ConfigError(
                f"{wants} needs class centres from the data, whose number of classes the distiller "
                "was not told: give it num_classes"
            )
        unset = torch.full((num_classes, teacher.embedding_size), torch.nan)
        return PartialFC.from_centers(ArcFace(), unset)
    centers = load_centers(pattern)
    expected = (num_classes or len(centers), teacher.embedding_size)
    if tuple(centers.shape) != expected:
        raise ConfigError(
            f"cakd.teacher.centers {pattern}: {tuple(centers.shape)} class centres, but the "
            f"training set and the teacher's embedding need {expected}: give the centres that "
            "the teacher learned on this training set"
        )
    return PartialFC.from_centers(ArcFace(), centers)
