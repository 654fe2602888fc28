"""Probabilistic knowledge transfer.

L = 1/B^2 sum_ij p_T,ij log(p_T,ij / p_S,ij), p_ij = k_ij / sum_j k_ij,
k_ij = (cos(z_i, z_j) + 1) / 2

Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV
2018, with its cosine kernel. The paper sums the divergences of the B rows and leaves i = j out;
as in the authors' code and its copies (RepDistiller, mdistiller, FaceX-Zoo) the value is a mean
over all B^2 entries, with 1e-7 added to both probabilities (FaceX-Zoo: 1e-6), and i = j counts.
It is small for that reason: published weights are in the tens of thousands.

Published code sees the batch of one GPU; here B is that of all ranks.
"""

from torch import Tensor

from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, LossBatch
from arcface_cakd.losses.relations import cosine_matrix, joined
from arcface_cakd.precision import full_precision
from arcface_cakd.registry import LOSSES


@full_precision
def pkt_loss(student: Tensor, teacher: Tensor, *, epsilon: float = 1e-7) -> Tensor:
    """PKT of embeddings (B, E_S) and (B, E_T) of the same images; epsilon is added to
    probabilities."""
    student, teacher = _probabilities(student), _probabilities(teacher)
    ratio = (teacher + epsilon).log() - (student + epsilon).log()
    return (teacher * ratio).mean()


def _probabilities(embeddings: Tensor) -> Tensor:
    kernel = ((cosine_matrix(embeddings) + 1) / 2).clamp_min(0)
    return kernel / kernel.sum(-1, keepdim=True)


@LOSSES.register("pkt")
class PKTLoss(DistillationLoss):
    """Divergence of the similarities within the batch of all ranks, taken as probabilities.

    Args:
        dims: not used; the embeddings' widths may differ.
    """

    paper = "Passalis & Tefas, ECCV 2018"

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        return pkt_loss(*joined(student.embedding, teacher.embedding))
