"""Flow of the solution procedure: how features change from one stage to the next.

G = F_1 F_2^T / (H W) for the maps of two consecutive stages, (B, C_1, C_2), the larger grid
averaged down to the smaller one's; L = sum over the pairs of the mean of (G_S - G_T)^2.

Yim, Joo, Bae & Kim, "A Gift from Knowledge Distillation", CVPR 2017. In the paper L has the sum
over the entries of G, grids are matched by max pooling, F_1 and F_2 are the first and the last
map of a section of the network, and a first stage of training has this loss alone. The mean and
the averaging are those of RepDistiller and FaceX-Zoo.

G's shape is that of the widths, so the published loss demands networks of equal widths. With
``projection`` learned 1x1 convolutions bring the student's stages to the teacher's widths, which
is ours. Grids of student and teacher need not match.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from arcface_cakd.config import ConfigError
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch, total
from arcface_cakd.losses.maps import feature_map, map_widths, shared_stages, to_common_grid
from arcface_cakd.precision import at_least_float32, autocast
from arcface_cakd.registry import LOSSES


def fsp_matrix(first: Tensor, second: Tensor) -> Tensor:
    """G (B, C_1, C_2) of maps (B, C_1, H, W) and (B, C_2, H', W')."""
    first, second = to_common_grid(at_least_float32(first), at_least_float32(second))
    positions = first.shape[-2] * first.shape[-1]
    with autocast(first.device.type, None):
        return first.flatten(2) @ second.flatten(2).transpose(1, 2) / positions


def fsp_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Sum over consecutive maps of the mean square difference of G.

    Args:
        student: two or more maps (B, C_i, H_i, W_i).
        teacher: as many, of the same C_i.
    """
    sides = ([fsp_matrix(*pair) for pair in pairwise(maps)] for maps in (student, teacher))
    return total(F.mse_loss(*pair) for pair in zip(*sides, strict=True))


@LOSSES.register("fsp")
class FSPLoss(DistillationLoss):
    """Mean square difference of the FSP matrices of consecutive stages.

    Args:
        dims: widths of the stages.
        stages: two or more indices of stages in both networks, negative ones counted from the
            last; None: all that both have, counted from the last.
        projection: bring the student's stages to the teacher's widths by learned 1x1
            convolutions, which networks of different widths need.

    Raises:
        ConfigError: too few stages, one that a network lacks, or widths that differ.
    """

    needs = frozenset({"stages"})
    paper = "Yim et al., CVPR 2017"

    def __init__(
        self,
        dims: FeatureDims,
        *,
        stages: tuple[int, ...] | None = None,
        projection: bool = False,
    ):
        super().__init__(dims)
        self.stages = shared_stages("fsp", dims, stages, least=2)
        widths = map_widths("fsp", dims, self.stages)
        if not projection and any(ours != theirs for ours, theirs in widths):
            ours, theirs = (list(side) for side in zip(*widths, strict=True))
            raise ConfigError(
                f"fsp: the student's stages have widths {ours}, the teacher's {theirs}: set "
                "projection=True on this loss, or take networks of equal widths"
            )
        self.projections = nn.ModuleList(
            nn.Conv2d(*pair, 1, bias=False) if projection else nn.Identity() for pair in widths
        )

    def forward(self, student: FaceFeatures, teacher: FaceFeatures, batch: LossBatch) -> Tensor:
        ours = [
            project(feature_map(student, stage))
            for project, stage in zip(self.projections, self.stages, strict=True)
        ]
        return fsp_loss(ours, [feature_map(teacher, stage) for stage in self.stages])
