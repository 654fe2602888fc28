"""Correlation congruence with the Gaussian kernel.

L = 1/B^2 sum_ij (K_S,ij - K_T,ij)^2,
K_ij = exp(-2 g) sum_{p=0..P} (2 g)^p / p! (ẑ_i . ẑ_j)^p, ẑ = z / ||z||, g = 0.4, P = 2

K is the Taylor expansion of exp(-g ||ẑ_i - ẑ_j||^2) to the order P.

Peng et al., "Correlation Congruence for Knowledge Distillation", ICCV 2019. Three losses go by
the name "CC": this one, which the paper's equations define; RepDistiller's ``Correlation``, the
mean product of |z_S - z_T| of consecutive images, after code of the authors; and a loss on
Frobenius-normalised F F^T, which RepDistiller holds as a comment. TFace's ``CC`` is this one
without its last term: its ``p=2`` sums p = 0 and 1, our ``order=1``, a scaled difference of
cosines. The paper's instance-level term is another loss (``embedding_l2``).

Published code sees the batch of one GPU; here B is that of all ranks.
"""

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_cakd.config import Range
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.relations import cosine_matrix, joined
from arcface_cakd.precision import full_precision
from arcface_cakd.registry import LOSSES


@full_precision
def cckd_loss(student: Tensor, teacher: Tensor, *, gamma: float = 0.4, order: int = 2) -> Tensor:
    """CCKD of embeddings (B, E_S) and (B, E_T) of the same images.

    Args:
        student: with ``teacher``.
        gamma: g of the kernel.
        order: P, the highest power of the cosine.
    """
    return F.mse_loss(_kernel(student, gamma, order), _kernel(teacher, gamma, order))


def _kernel(embeddings: Tensor, gamma: float, order: int) -> Tensor:
    cosines = cosine_matrix(embeddings)
    kernel = torch.zeros_like(cosines)
    for power in range(order, -1, -1):  # Horner's rule
        kernel = kernel * cosines + (2 * gamma) ** power / math.factorial(power)
    return math.exp(-2 * gamma) * kernel


@LOSSES.register("cckd")
class CCKDLoss(DistillationLoss):
    """Gaussian-kernel correlations within the batch of all ranks.

    Args:
        dims: not used; the embeddings' widths may differ.
        gamma: of the kernel exp(-gamma ||x - y||^2).
        order: of its Taylor expansion.
    """

    paper = "Peng et al., ICCV 2019"

    def __init__(
        self,
        dims: FeatureDims,
        *,
        gamma: Annotated[float, Range(above=0.0, high=10.0)] = 0.4,
        order: Annotated[int, Range(1, 50)] = 2,
    ):
        super().__init__(dims)
        self.gamma = gamma
        self.order = order

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        both = joined(student.embedding, teacher.embedding)
        return cckd_loss(*both, gamma=self.gamma, order=self.order)
