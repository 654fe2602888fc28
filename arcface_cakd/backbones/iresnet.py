"""IResNet: ``r18``, ``r34``, ``r50``, ``r100``, as arcface_torch has them, and two narrow ones.

The networks of Deng et al., "ArcFace", CVPR 2019, arXiv 1801.07698. State-dict keys, parameter
order, initial distributions and outputs are arcface_torch's.
"""

import torch
from torch import Tensor, nn

from arcface_cakd.backbones.base import FaceBackbone
from arcface_cakd.backbones.prelu import PReLU
from arcface_cakd.registry import BACKBONES


class ResidualUnit(nn.Module):
    """BN, conv, BN, PReLU, strided conv, BN, added to a shortcut.

    Args:
        in_channels: channels of the input.
        channels: channels of the output.
        stride: 2 halves the resolution; the shortcut is then a strided 1x1 convolution.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(x)) + shortcut


def _stage(in_channels: int, channels: int, units: int, stride: int) -> nn.Sequential:
    """``units`` residual units, the first of which has the stride."""
    first = ResidualUnit(in_channels, channels, stride)
    return nn.Sequential(first, *(ResidualUnit(channels, channels) for _ in range(units - 1)))


class IResNet(FaceBackbone):
    """IResNet of arcface_torch.

    Pixel features are what is flattened for the last linear layer, after its BatchNorm:
    (B, 8 * width, 7, 7). The stages' maps are 56, 28, 14 and 7 pixels wide, at arcface_torch's
    strides.

    Args:
        num_features: width E of the embedding.
        units: residual units in each of the four stages.
        width: channels of the stem and of the first stage; each further stage doubles them.
        strides: of the stem and of each stage; their product is 16.
        dropout: share of the flattened pixel features dropped before the linear layer.
        fp16: whether all but the head runs in float16 under autocast.
    """

    grid = (7, 7)

    def __init__(
        self,
        num_features: int,
        units: tuple[int, int, int, int],
        width: int = 64,
        strides: tuple[int, int, int, int, int] = (1, 2, 2, 2, 2),
        dropout: float = 0.0,
        fp16: bool = False,
    ):
        super().__init__()
        self.embedding_size = num_features
        self.stage_dims = (width, 2 * width, 4 * width, 8 * width)
        self.token_dim = self.stage_dims[-1]
        self.amp_dtype = torch.float16 if fp16 else None

        stem, *of_stages = strides
        self.conv1 = nn.Conv2d(3, width, 3, stem, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.prelu = PReLU(width)
        self.layer1 = _stage(width, self.stage_dims[0], units[0], of_stages[0])
        self.layer2 = _stage(self.stage_dims[0], self.stage_dims[1], units[1], of_stages[1])
        self.layer3 = _stage(self.stage_dims[1], self.stage_dims[2], units[2], of_stages[2])
        self.layer4 = _stage(self.stage_dims[2], self.stage_dims[3], units[3], of_stages[3])
        self.bn2 = nn.BatchNorm2d(self.token_dim)
        # Not in place: what it would overwrite are the tokens.
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.token_dim * self.grid[0] * self.grid[1], num_features)
        self.features = nn.BatchNorm1d(num_features)
        self.features.weight.requires_grad = False  # stays 1, as in arcface_torch

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.1)

    def body(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Images to pixel features (B, 8 * width, 7, 7) and the four stages' maps."""
        x = self.prelu(self.bn1(self.conv1(images)))
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return self.bn2(x), tuple(maps)

    def head(self, final: Tensor) -> Tensor:
        """Flatten, dropout, linear layer, BatchNorm of fixed scale."""
        return self.features(self.fc(self.dropout(final.flatten(1))))


@BACKBONES.register("r18")
def r18(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> IResNet:
    """IResNet-18 (Deng et al., CVPR 2019), arcface_torch's: 24.0 M parameters at E = 512."""
    return IResNet(num_features, units=(2, 2, 2, 2), dropout=dropout, fp16=fp16)


@BACKBONES.register("r34")
def r34(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> IResNet:
    """IResNet-34 (Deng et al., CVPR 2019), arcface_torch's: 34.1 M parameters at E = 512."""
    return IResNet(num_features, units=(3, 4, 6, 3), dropout=dropout, fp16=fp16)


@BACKBONES.register("r50")
def r50(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> IResNet:
    """IResNet-50 (Deng et al., CVPR 2019), arcface_torch's: 43.6 M parameters at E = 512."""
    return IResNet(num_features, units=(3, 4, 14, 3), dropout=dropout, fp16=fp16)


@BACKBONES.register("r100")
def r100(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> IResNet:
    """IResNet-100 (Deng et al., CVPR 2019), arcface_torch's: 65.2 M parameters at E = 512."""
    return IResNet(num_features, units=(3, 13, 30, 3), dropout=dropout, fp16=fp16)


@BACKBONES.register("r10_narrow")
def r10_narrow(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> IResNet:
    """One unit a stage and a quarter of IResNet's width, for runs on a CPU; ours."""
    return IResNet(num_features, units=(1, 1, 1, 1), width=16, dropout=dropout, fp16=fp16)


@BACKBONES.register("r10_mini")
def r10_mini(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> IResNet:
    """``r10_narrow`` with a strided stem, for studies on a CPU; ours.

    Its maps are 28, 14, 7 and 7 pixels wide: the last stage keeps the resolution, so that the
    pixel features are a grid of 7 x 7 as in every IResNet. It trains five times as fast.
    """
    strides = (2, 2, 2, 2, 1)
    return IResNet(
        num_features, units=(1, 1, 1, 1), width=16, strides=strides, dropout=dropout, fp16=fp16
    )
