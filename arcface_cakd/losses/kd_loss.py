"""Knowledge distillation of the identity probabilities."""

from typing import Annotated

from torch import Tensor

from arcface_cakd.config import Range
from arcface_cakd.distributed import all_reduce_with_grad
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.class_scores import (
    SCALE,
    log_sum_exp,
    logits_of_both,
    scale_without_effect,
)
from arcface_cakd.precision import at_least_float32
from arcface_cakd.registry import LOSSES


def kd_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """T^2 KL(softmax(z_T / T) || softmax(z_S / T)), mean over the rows.

    Args:
        student: (N, C) logits of the joined batch, C this rank's classes.
        teacher: (N, C) logits for the same classes.
        temperature: T.
    """
    student, teacher = at_least_float32(student), at_least_float32(teacher)
    log_student = student / temperature
    log_student = log_student - log_sum_exp(log_student)
    log_teacher = teacher / temperature
    log_teacher = log_teacher - log_sum_exp(log_teacher)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(1)
    return temperature**2 * all_reduce_with_grad(divergence).mean()


@LOSSES.register("kd")
class KDLoss(DistillationLoss):
    """T^2 KL(softmax(z_T / T) || softmax(z_S / T)), z = scale * cos(embedding, own centres).

    Hinton, Vinyals & Dean, NeurIPS 2014 workshop (arXiv 1503.02531), as mdistiller and
    RepDistiller compute it. Their logits are those of a linear classifier; a margin softmax
    student has cosines, taken here without margin and times the scale it is trained with. The
    student's centres learn from this loss too. Classes that Partial FC left out of the step
    are left out here, on both sides.

    With ``standardise`` the logits' z-scores over the classes of the step take their place (Sun,
    Ren, Li, Wang & Cao, "Logit Standardization in Knowledge Distillation", CVPR 2024), so that the
    student need not match how far the teacher's logits spread. Published with T = 2 and a weight of
    9 on CIFAR-100; z-scores among many more identities reach farther.

    Args:
        dims: not used: each side has centres of its own width.
        temperature: T. At scale 64 even T = 4 leaves logits of up to +-16.
        scale: s of both sides' logits; of no effect with ``standardise``.
        standardise: whether z-scores take the place of the logits.

    Raises:
        LossError: no class centres of the student or of the teacher.
    """

    needs = frozenset({"logits", "centers"})
    paper = "Hinton et al., 2015"

    def __init__(
        self,
        dims: FeatureDims,
        *,
        temperature: Annotated[float, Range(above=0.0)] = 4.0,
        scale: Annotated[float, Range(above=0.0)] = SCALE,
        standardise: bool = False,
    ):
        super().__init__(dims)
        self.temperature = temperature
        self.scale, self.standardise = scale, standardise
        self.without_effect = scale_without_effect(scale, standardise)

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        ours, theirs, _ = logits_of_both(
            student.embedding, teacher.embedding, batch, "kd", self.scale, self.standardise
        )
        return kd_loss(ours, theirs, self.temperature)
