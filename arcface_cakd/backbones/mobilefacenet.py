"""MobileFaceNet: ``mbf`` and ``mbf_large``, as arcface_torch has them.

Chen et al., "MobileFaceNets", CCBR 2018, arXiv 1804.07573, with arcface_torch's widths. State-dict
keys, parameter order, initial distributions and outputs are arcface_torch's.
"""

import torch
from torch import Tensor, nn

from arcface_cakd.backbones.base import BackboneError, FaceBackbone
from arcface_cakd.backbones.prelu import PReLU
from arcface_cakd.precision import at_least_float32, autocast
from arcface_cakd.registry import BACKBONES


class Chain(nn.Module):
    """Layers applied one after the other, under the name ``layers`` that arcface_torch gave them.

    Args:
        layers: the layers; their output has the input's shape where ``residual`` is set.
        residual: whether to add the input to the output.
    """

    def __init__(self, *layers: nn.Module, residual: bool = False):
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    activation: bool = True,
) -> Chain:
    """Convolution without bias, BatchNorm and, unless the block is linear, PReLU."""
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False
    )
    layers = [convolution, nn.BatchNorm2d(out_channels)]
    if activation:
        layers.append(PReLU(out_channels))
    return Chain(*layers)


def bottleneck(
    in_channels: int, hidden: int, out_channels: int, stride: int = 1, residual: bool = False
) -> Chain:
    """Pointwise expansion to ``hidden``, 3x3 depthwise, linear pointwise projection."""
    return Chain(
        conv_norm(in_channels, hidden, 1),
        conv_norm(hidden, hidden, 3, stride, padding=1, groups=hidden),
        conv_norm(hidden, out_channels, 1, activation=False),
        residual=residual,
    )


def bottlenecks(channels: int, hidden: int, count: int) -> Chain:
    """``count`` residual bottlenecks that keep width and resolution."""
    return Chain(*(bottleneck(channels, hidden, channels, residual=True) for _ in range(count)))


class MobileFaceNet(FaceBackbone):
    """MobileFaceNet of arcface_torch.

    Pixel features are what the global depthwise convolution pools: (B, 512, 7, 7). The stages'
    maps are 56, 28, 14 and 7 pixels wide.

    Args:
        num_features: width E of the embedding.
        blocks: bottlenecks in each stage; a first entry of 1 means one plain convolution.
        scale: width multiplier of all but the last 512 channels.
        fp16: whether the four stages run in float16 under autocast.
    """

    token_dim = 512
    grid = (7, 7)

    def __init__(
        self, num_features: int, blocks: tuple[int, int, int, int], scale: int, fp16: bool = False
    ):
        super().__init__()
        narrow, wide = 64 * scale, 128 * scale
        self.embedding_size = num_features
        self.stage_dims = (narrow, narrow, wide, wide)
        self.amp_dtype = torch.float16 if fp16 else None
        if blocks[0] == 1:
            # 64 groups at any scale: arcface_torch doubled the width of the paper's depthwise
            # convolution and left its groups.
            first = conv_norm(narrow, narrow, 3, padding=1, groups=64)
        else:
            first = bottlenecks(narrow, 128, blocks[0])
        # Pairs: a layer that halves the resolution, then the layers that work at it. The hidden
        # widths do not follow the scale.
        self.layers = nn.ModuleList(
            [
                conv_norm(3, narrow, 3, stride=2, padding=1),
                first,
                bottleneck(narrow, 128, narrow, stride=2),
                bottlenecks(narrow, 128, blocks[1]),
                bottleneck(narrow, 256, wide, stride=2),
                bottlenecks(wide, 256, blocks[2]),
                bottleneck(wide, 512, wide, stride=2),
                bottlenecks(wide, 256, blocks[3]),
            ]
        )
        self.conv_sep = conv_norm(wide, self.token_dim, 1)
        self.features = Chain(
            conv_norm(self.token_dim, self.token_dim, 7, groups=self.token_dim, activation=False),
            nn.Flatten(),
            nn.Linear(self.token_dim, num_features, bias=False),
            nn.BatchNorm1d(num_features),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def body(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Images to pixel features (B, 512, 7, 7) and the four stages' maps."""
        x, maps = images, []
        layers = iter(self.layers)
        for halve, refine in zip(layers, layers, strict=True):
            x = refine(halve(x))
            maps.append(x)
        # From here on in full precision whatever the stages ran in, as in arcface_torch.
        with autocast(images.device.type, None):
            return self.conv_sep(at_least_float32(x)), tuple(maps)

    def head(self, final: Tensor) -> Tensor:
        """Global depthwise convolution, linear layer, BatchNorm."""
        return self.features(final)


def _no_dropout(name: str, dropout: float) -> None:
    if dropout:
        raise BackboneError(f"network {name!r} has no dropout: leave dropout at 0, not {dropout:g}")


@BACKBONES.register("mbf")
def mbf(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> MobileFaceNet:
    """MobileFaceNet (Chen et al., CCBR 2018), arcface_torch's: 2.06 M parameters at E = 512."""
    _no_dropout("mbf", dropout)
    return MobileFaceNet(num_features, blocks=(1, 4, 6, 2), scale=2, fp16=fp16)


@BACKBONES.register("mbf_large")
def mbf_large(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> MobileFaceNet:
    """MobileFaceNet, arcface_torch's, deeper and twice as wide: 6.31 M parameters at E = 512."""
    _no_dropout("mbf_large", dropout)
    return MobileFaceNet(num_features, blocks=(2, 8, 12, 4), scale=4, fp16=fp16)
