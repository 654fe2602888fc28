"""One-for-all distillation: exits of the student learn the teacher's identity probabilities."""

from typing import Annotated

from torch import Tensor, nn
from torch.nn import functional as F

from arcface_cakd.config import ConfigError, Range
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.class_scores import (
    ClassShard,
    is_label,
    join,
    joined_labels,
    log_sum_exp,
    student_head,
    sum_where_known,
    teacher_head,
)
from arcface_cakd.losses.maps import smaller_grid
from arcface_cakd.precision import at_least_float32
from arcface_cakd.registry import LOSSES


def ofa_kd_loss(
    student: Tensor, teacher: Tensor, columns: Tensor, eps: float = 1.0, temperature: float = 1.0
) -> Tensor:
    """-sum_c [(p_T + 1_y)^eps - 1_y] log p_S, mean over the rows; p = softmax(z / temperature).

    The target weighs (1 + p_T,y)^eps - 1, any other class p_T,c^eps.

    Args:
        student: (N, C) logits of an exit for the joined batch, C this rank's classes.
        teacher: (N, C) logits for the same classes.
        columns: (N, 1) int64 columns of the targets; -1: on another rank.
        eps: exponent, at least 1.
        temperature: of both sides.
    """
    student = at_least_float32(student) / temperature
    teacher = at_least_float32(teacher) / temperature
    target = is_label(student, columns).to(student.dtype)
    log_student = student - log_sum_exp(student)
    probabilities = (teacher - log_sum_exp(teacher)).exp()
    enhanced = (probabilities + target) ** eps - target
    return -sum_where_known((enhanced * log_student).sum(1, keepdim=True), columns).mean()


class ExitProjector(nn.Module):
    """A stage's map (B, C, H, W) to an embedding (B, E), for any H and W.

    A depthwise convolution of stride 2, at most 7 x 7 averages of it, a linear map of each, and
    one of their mean. No statistics of the batch, so that ranks need not agree on any.

    Args:
        channels: C.
        embedding_size: E.
    """

    def __init__(self, channels: int, embedding_size: int):
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels)
        self.expand = nn.Conv2d(channels, embedding_size, 1)
        self.norm = nn.GroupNorm(1, embedding_size)
        self.embed = nn.Linear(embedding_size, embedding_size)

    def forward(self, stage: Tensor) -> Tensor:
        x = F.gelu(self.reduce(stage))
        x = F.adaptive_avg_pool2d(x, smaller_grid(x.shape[2:], (7, 7)))
        x = F.gelu(self.norm(self.expand(x)))
        return self.embed(x.mean((2, 3)))


@LOSSES.register("ofa_kd")
class OFAKDLoss(DistillationLoss):
    """OFA-KD: -sum_c [(p_T + 1_y)^eps - 1_y] log p_S at the student's stages and embedding.

    z = scale * cosine to class centres. Hao, Guo, Han, Tang, Hu, Wang & Xu, NeurIPS 2023. Their
    exit of a stage is a branch that ends in a linear classifier of its own, which at face
    recognition's numbers of classes would be one more set of centres for each stage. Here it is
    an ``ExitProjector`` to the teacher's embedding width, classified by the teacher's frozen
    centres. The last exit is as theirs: the student's embedding, classified by its own centres,
    which learn from this loss too. The sum over exits is theirs; no T^2 is either. One eps here
    serves all exits, where theirs may differ. Where Partial FC samples classes, so does this.

    Raised to eps is, as in their code, the probability of every class: above 1 it makes the
    target weigh more, (1 + p_T,y)^eps - 1, and all other classes less, p_T,c^eps. The paper's
    formula raises 1 + p_T,y alone and leaves the others p_T,c; and it keeps the cross-entropy
    with the label, which their code subtracts and adds at the last exit only: here that is the
    margin softmax.

    Args:
        dims: the student's stages and the teacher's embedding.
        eps: exponent of the target's 1 + p_T,y and of every other class's p_T,c; the published
            ones are 1 to 1.5.
        stages: numbers of the stages with an exit, counted from 1; none given: all.
        stage_weight: weight of the sum over the stages' exits; the embedding's is 1.
        temperature: of both sides.
        scale: s of all logits.

    Raises:
        ConfigError: a stage that the student does not have, or one twice.
        LossError: no labels, or no class centres of the student or of the teacher.
    """

    needs = frozenset({"student_stages", "labels", "logits", "centers"})
    paper = "Hao et al., NeurIPS 2023"

    def __init__(
        self,
        dims: FeatureDims,
        *,
        eps: Annotated[float, Range(1.0)] = 1.0,
        stages: Annotated[tuple[int, ...], Range(1)] = (),
        stage_weight: Annotated[float, Range(0.0)] = 1.0,
        temperature: Annotated[float, Range(above=0.0)] = 1.0,
        scale: Annotated[float, Range(above=0.0)] = 64.0,
    ):
        super().__init__(dims)
        count = len(dims.student_stages)
        for number in stages:
            if number > count:
                raise ConfigError(
                    f"ofa_kd: the student has {count} stages and stages asks for number "
                    f"{number}: set it to numbers from 1 to {count}"
                )
        if len(set(stages)) < len(stages):
            raise ConfigError(f"ofa_kd: stages {list(stages)} must name each stage once")
        self.stages = tuple(stages) or tuple(range(1, count + 1))
        self.eps = eps
        self.stage_weight = stage_weight
        self.temperature = temperature
        self.scale = scale
        self.projectors = nn.ModuleList(
            ExitProjector(dims.student_stages[number - 1], dims.teacher_embedding)
            for number in self.stages
        )

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        teacher_fc, head = teacher_head(batch, "ofa_kd"), student_head(batch, "ofa_kd")
        labels = joined_labels(batch, "ofa_kd")
        shard = ClassShard.of_step(head.class_start, head.num_local, batch)
        columns = shard.columns(labels)
        target = self.scale * shard.cosines(join(teacher.embedding), teacher_fc.weight)

        def at_exit(embedding: Tensor, centers: Tensor) -> Tensor:
            logits = self.scale * shard.cosines(join(embedding), centers)
            return ofa_kd_loss(logits, target, columns, self.eps, self.temperature)

        total = at_exit(student.embedding, head.weight)
        for number, projector in zip(self.stages, self.projectors, strict=True):
            embedding = projector(student.stages[number - 1])
            total = total + self.stage_weight * at_exit(embedding, teacher_fc.weight)
        return total
