"""EdgeFace: ``edgeface_xxs``, ``_xs``, ``_s``, ``_base``, and two with low-rank linear layers.

George et al., "EdgeFace", IEEE T-BIOM 2024, arXiv 2307.01838: timm's EdgeNeXt (Maaz et al., ECCVW
2022), whose classifier gives the embedding. In ``edgeface_xs_gamma_06`` and ``edgeface_s_gamma_05``
each linear layer, the last one too, is a product of two, of rank gamma times its smaller side.
The names are those of the published code (github.com/otroshi/edgeface, BSD-3-Clause); ``_s`` and
``_xs`` without low rank are ours, the latter the float form of its quantised ``edgeface_xs_q``.

Its attention is over channels, not over places, so prompts have nothing to attend to here.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from arcface_cakd.backbones.base import BackboneError, FaceBackbone
from arcface_cakd.registry import BACKBONES

_TRUNK = "trunk."
_TOKEN_STAGE = 2  # the last one whose map covers the whole crop


class LowRankLinear(nn.Sequential):
    """A linear layer as the product of two, ``linear1`` without bias; keys as published."""

    def __init__(self, linear: nn.Linear, gamma: float):
        super().__init__()
        sides = linear.in_features, linear.out_features
        rank = max(2, int(min(sides) * gamma))
        bias = linear.bias is not None
        self.add_module("linear1", nn.Linear(sides[0], rank, bias=False))
        self.add_module("linear2", nn.Linear(rank, sides[1], bias=bias))


class EdgeFace(FaceBackbone):
    """An EdgeNeXt of timm for faces.

    At 112 pixels its four stages' maps are 28, 14, 7 and 3 wide; the last one covers 96 pixels
    of the crop only. So the pixel features are the third one's, 7 x 7, which is our choice;
    ``take_tokens_from(3)`` makes them the last one's. State-dict keys are ``trunk.`` + timm's own.

    Args:
        name: timm's name of the EdgeNeXt.
        num_features: E, the width of the embedding.
        gamma: share of its smaller side that is each linear layer's rank; None for full rank.
        fp16: whether all but the pooling and what follows it runs in float16 under autocast.
    """

    trunk: Any  # timm's model, whose parts mypy knows as modules of any kind

    def __init__(
        self, name: str, num_features: int, gamma: float | None = None, fp16: bool = False
    ):
        super().__init__()
        import timm

        self.trunk = timm.create_model(name, pretrained=False, num_classes=num_features)
        if gamma is not None:
            linears = [n for n, m in self.trunk.named_modules() if isinstance(m, nn.Linear)]
            for place in linears:
                parent, _, own = place.rpartition(".")
                low_rank = LowRankLinear(self.trunk.get_submodule(place), gamma)
                setattr(self.trunk.get_submodule(parent), own, low_rank)
        self.embedding_size = num_features
        self.stage_dims = tuple(info["num_chs"] for info in self.trunk.feature_info)
        self.token_stage = _TOKEN_STAGE
        self.token_dim = self.stage_dims[_TOKEN_STAGE]
        self.grid = (7, 7)
        self.amp_dtype = torch.float16 if fp16 else None

    def body(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Images to the last map (B, C, 3, 3) and the four stages' maps."""
        x = self.trunk.stem(images)
        maps = []
        for stage in self.trunk.stages:
            x = stage(x)
            maps.append(x)
        return self.trunk.norm_pre(x), tuple(maps)

    def head(self, final: Tensor) -> Tensor:
        """Mean over the map, LayerNorm, linear layer."""
        return self.trunk.forward_head(final)

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a plain timm EdgeNeXt, as EdgeFace's files hold them, under our keys."""
        if any(key.startswith(_TRUNK) for key in state):
            return dict(state)
        return {_TRUNK + key: value for key, value in state.items()}


def _register(name: str, timm_name: str, gamma: float | None, summary: str) -> None:
    @BACKBONES.register(name)
    def factory(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> EdgeFace:
        if dropout:
            raise BackboneError(
                f"network {name!r} has no dropout: leave dropout at 0, not {dropout:g}"
            )
        return EdgeFace(timm_name, num_features, gamma, fp16)

    factory.__name__, factory.__doc__ = name, summary


for _name, _timm, _gamma, _summary in (
    ("edgeface_xxs", "edgenext_xx_small", None, "EdgeFace-XXS: 1.24 M parameters at E = 512."),
    ("edgeface_xs", "edgenext_x_small", None, "EdgeFace-XS at full rank: 2.24 M parameters."),
    ("edgeface_s", "edgenext_small", None, "EdgeFace-S at full rank: 5.44 M parameters."),
    ("edgeface_base", "edgenext_base", None, "EdgeFace-Base: 18.23 M parameters at E = 512."),
    ("edgeface_xs_gamma_06", "edgenext_x_small", 0.6, "EdgeFace-XS, gamma 0.6: 1.77 M parameters."),
    ("edgeface_s_gamma_05", "edgenext_small", 0.5, "EdgeFace-S, gamma 0.5: 3.65 M parameters."),
):
    _register(_name, _timm, _gamma, _summary)
