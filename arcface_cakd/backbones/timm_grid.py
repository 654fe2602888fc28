"""Any timm model that yields a grid of tokens, as a face backbone."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from arcface_cakd.backbones.base import BackboneError, FaceBackbone
from arcface_cakd.backbones.heads import FlattenHead
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.registry import UnknownNameError, nearest

STAGES = 4  # maps taken from a model that has blocks of one shape and no stages: a plain ViT


class TimmGrid(FaceBackbone):
    """A timm model with a face head.

    Its pixel features are the model's last map: a feature map in either memory layout, or the
    patch tokens of a Transformer, without class and register tokens. Its stages are what timm
    calls intermediates; of a plain Transformer's blocks, four at equal steps. A model for which
    timm gives none has its last map as its only stage.

    State-dict keys are ``trunk.`` + timm's own, and ``feature.`` + the head's.

    Args:
        name: what messages call the model.
        trunk: a timm model, without classifier.
        dropout: probability of dropping an entry of the flattened final map.
        fp16: whether the body runs in float16.
        num_features: E, the width of the embedding.
        build_classifier: makes the same timm model with a classifier; its keys tell which of
            timm's weights are no part of the trunk. None where timm cannot make it by name.

    Raises:
        BackboneError: the model does not take 112 x 112 images, or yields no grid from them.
    """

    token_dim: int
    grid: tuple[int, int]
    trunk: Any  # timm's models have no class in common that declares what they offer

    def __init__(
        self,
        name: str,
        trunk: nn.Module,
        dropout: float = 0.0,
        fp16: bool = False,
        num_features: int = 512,
        build_classifier: Callable[[], nn.Module] | None = None,
    ):
        super().__init__()
        self.trunk = trunk
        self.build_classifier = build_classifier
        self.amp_dtype = torch.float16 if fp16 else None
        self.embedding_size = num_features
        self._taps: list[int] | None = None
        final, maps = self._first_look(name)
        if len(maps) > STAGES and len({m.shape for m in maps}) == 1:
            self._taps = [len(maps) * (i + 1) // STAGES - 1 for i in range(STAGES)]
            maps = tuple(maps[tap] for tap in self._taps)
        _, self.token_dim, height, width = final.shape
        self.grid = (height, width)
        self.extent = self.extent_of([m.shape[-1] for m in (*maps[:-1], final)])
        self.stage_dims = tuple(m.shape[1] for m in maps)
        self.feature = FlattenHead(self.token_dim, self.grid, num_features, dropout=dropout)

    def body(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Images to the final map (B, C, H, W) and the maps of the stages."""
        if not hasattr(self.trunk, "forward_intermediates"):
            final = self._as_map(self.trunk.forward_features(images))
            return final, (final,)
        final, maps = self.trunk.forward_intermediates(images, indices=self._taps)
        return self._as_map(final), tuple(maps)

    def head(self, final: Tensor) -> Tensor:
        """Final map (B, C, H, W) to embedding (B, E)."""
        return self.feature(final)

    def extent_of(self, sides: Sequence[int]) -> float:
        """Pixels that a stage's map covers, by timm's word on its patches or its stride."""
        embed = getattr(self.trunk, "patch_embed", None)
        if embed is not None and (sides[-1], sides[-1]) == getattr(embed, "grid_size", None):
            # Of a hybrid, whose patches are of its convolutions' map, the two together.
            return float(sides[-1] * embed.feat_ratio())
        info = getattr(self.trunk, "feature_info", None)
        stage = len(sides) - 1 if self._taps is None else self._taps[len(sides) - 1]
        if isinstance(info, list) and stage < len(info) and "reduction" in info[stage]:
            return float(min(sides[-1] * info[stage]["reduction"], CROP_SIZE))
        return super().extent_of(sides)

    def _first_look(self, name: str) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What ``body`` gives for one blank face; called before there is a head."""
        try:
            return self._probe()
        except BackboneError as error:
            raise BackboneError(
                f"network 'timm:{name}' {error}: choose a model with a feature map or patch tokens"
            ) from None
        except Exception as error:  # timm's models fail on a size in ways of their own
            raise _unfit(name, error) from error

    def _as_map(self, features: Any) -> Tensor:
        """What timm's ``forward_features`` gives, as (B, C, H, W)."""
        if isinstance(features, Tensor) and features.dim() == 4:
            if getattr(self.trunk, "output_fmt", "NCHW") == "NHWC":
                features = features.permute(0, 3, 1, 2)
        elif isinstance(features, Tensor) and features.dim() == 3:
            tokens = features[:, getattr(self.trunk, "num_prefix_tokens", 0) :]
            side = math.isqrt(tokens.shape[1])
            if side * side != tokens.shape[1]:
                raise BackboneError(f"gives {tokens.shape[1]} tokens, which fill no square grid")
            features = tokens.transpose(1, 2).unflatten(2, (side, side))
        else:
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features)
            raise BackboneError(f"gives no grid of tokens, but {shape}")
        if features.shape[-2:] == (1, 1):
            raise BackboneError(
                f"gives a single token for {CROP_SIZE} x {CROP_SIZE} pixels, not a grid"
            )
        return features


def build(
    name: str,
    dropout: float = 0.0,
    fp16: bool = False,
    num_features: int = 512,
    **kwargs: Any,
) -> TimmGrid:
    """A timm model, with random weights, as a face backbone for 112 x 112 crops.

    Args:
        name: timm's name of the model, as ``timm.list_models()`` has it.
        dropout: probability of dropping an entry of the flattened final map.
        fp16: whether the body runs in float16.
        num_features: E, the width of the embedding.
        kwargs: for timm's ``create_model``, such as ``patch_size=8``.

    Raises:
        UnknownNameError: timm has no such model.
        BackboneError: the model cannot be built so, does not take 112 x 112 images, or yields no
            grid from them.
    """
    import timm

    if not timm.is_model(name):
        near = nearest(name, timm.list_models())
        hint = f"did you mean 'timm:{near}'?" if near else "see timm.list_models()"
        raise UnknownNameError(f"unknown network 'timm:{name}'; {hint}")
    # With its pooling left out, a ViT that pools has its final norm before its tokens come out.
    trunk = _create(name, kwargs, num_classes=0, global_pool="")
    classifier = partial(_create, name, kwargs, num_classes=1)
    return TimmGrid(name, trunk, dropout, fp16, num_features, classifier)


def _create(name: str, kwargs: dict[str, Any], num_classes: int, **optional: Any) -> nn.Module:
    import timm

    # Convolutional networks take no image size, and some models cannot leave pooling out.
    optional["img_size"] = CROP_SIZE
    while True:
        try:
            return timm.create_model(
                name, pretrained=False, num_classes=num_classes, **{**optional, **kwargs}
            )
        except Exception as error:  # timm's models refuse arguments in ways of their own
            refused = [option for option in optional if f"'{option}'" in str(error)]
            if not refused and isinstance(error, AssertionError) and "global_pool" in optional:
                refused = ["global_pool"]
            if not refused or refused[0] in kwargs:
                if torch.empty(0).is_meta and isinstance(error, RuntimeError):
                    raise  # timm 1.0.9 computes with numbers while it builds: not a misfit
                raise _unfit(name, error) from error
            del optional[refused[0]]


def _unfit(name: str, error: Exception) -> BackboneError:
    reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":. ")
    return BackboneError(
        f"network 'timm:{name}' cannot serve 112 x 112 faces ({reason}): choose a model "
        "whose patches and windows tile them, such as 'timm:vit_small_patch16_224'"
    )
