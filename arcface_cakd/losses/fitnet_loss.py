"""FitNets' hints: the student's map, through a learned regressor, is to be the teacher's.

L = mean of (r(F_S) - F_T)^2 over batch, channels and positions, r a 1x1 convolution.

Romero, Ballas, Kahou, Chassang, Gatta & Bengio, "FitNets: Hints for Thin Deep Nets", ICLR 2015.
There L is half of the sum over channels and positions, the regressor has larger kernels, and the
hint trains the student before the task does; here it goes on beside the task. The mean is that
of RepDistiller's and FaceX-Zoo's losses. The regressor of RepDistiller and mdistiller ends in
BatchNorm and ReLU: it cannot reach the negative half of a Transformer's tokens, so ours does not.
TFace's "fitnet" compares embeddings: here that is ``embedding_l2``.

Maps on different grids: the larger one is averaged down to the smaller one's.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.losses.maps import feature_map, map_widths, needs_of, to_common_grid
from arcface_cakd.precision import at_least_float32
from arcface_cakd.registry import LOSSES


def fitnet_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean of (student - teacher)^2 of two maps (B, C, H, W)."""
    return F.mse_loss(at_least_float32(student), at_least_float32(teacher))


@LOSSES.register("fitnet")
class FitNetLoss(DistillationLoss):
    """Mean square of r(F_S) - F_T, r a learned 1x1 convolution.

    Args:
        dims: widths of the maps.
        stage: which map: None for the final tokens, else the index of a stage in both networks,
            negative ones counted from the last.

    Raises:
        ConfigError: a network has no such stage.
    """

    needs = frozenset({"tokens", "stages"})
    paper = "Romero et al., ICLR 2015"

    def __init__(self, dims: FeatureDims, *, stage: int | None = None):
        super().__init__(dims)
        self.stage = stage
        self.needs = needs_of((stage,))
        (widths,) = map_widths("fitnet", dims, (stage,))
        self.regressor = nn.Conv2d(*widths, 1)

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        maps = to_common_grid(*(feature_map(side, self.stage) for side in (student, teacher)))
        # Averaged down before: a 1x1 convolution and an average may change places.
        return fitnet_loss(self.regressor(maps[0]), maps[1])
