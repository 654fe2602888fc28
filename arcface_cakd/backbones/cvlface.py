"""CVLface's recognisers in its own sizes: plain ViTs, Swins v2, and IResNets.

Kim et al., "KP-RPE", CVPR 2024, arXiv 2403.14852, whose code (github.com/mk-minchul/CVLface) and
weights these names are for. ``cvlface_vit_*`` have arcface_torch's layers in other sizes.
``cvlface_ir*`` are IResNets whose first unit has no convolution in its shortcut.
``cvlface_swin_*`` are three stages of torchvision's Swin v2, whose weights are read into timm's.
What CVLface calls ``iresnet_insightface`` is arcface_torch's ``r18``, ``r50`` and ``r100``.

Its networks that take landmarks beside images (KP-RPE) are not here, nor are those with relative
positions (iRPE) or parts (Part fViT).
"""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from arcface_cakd.backbones.iresnet import IResNet
from arcface_cakd.backbones.timm_grid import TimmGrid
from arcface_cakd.backbones.vit import VisionTransformer
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.registry import BACKBONES

_LAYERS = {
    "input_layer.0": "conv1",
    "input_layer.1": "bn1",
    "input_layer.2": "prelu",
    "output_layer.0": "bn2",
    "output_layer.3": "fc",
    "output_layer.4": "features",
}
_IN_UNIT = {
    "res_layer.0": "bn1",
    "res_layer.1": "conv1",
    "res_layer.2": "bn2",
    "res_layer.3": "prelu",
    "res_layer.4": "conv2",
    "res_layer.5": "bn3",
    "shortcut_layer.0": "downsample.0",
    "shortcut_layer.1": "downsample.1",
}
_KEY = re.compile(r"(?:body\.(\d+)\.)?(\w+_layer\.\d)\.(\w+)")

_SWIN_DEPTHS, _SWIN_HEADS = (4, 6, 8), (4, 8, 16)
_SWIN_BLOCK = {".mlp.0.": ".mlp.fc1.", ".mlp.3.": ".mlp.fc2."}
_SWIN_TABLES = ("relative_position_index", "relative_coords_table")  # computed by timm's


class CvlfaceViT(VisionTransformer):
    """A ViT of CVLface: 14 x 14 patches of 8 pixels, which cover the whole crop, no masking.

    State-dict keys are CVLface's. Arguments are those of ``VisionTransformer``.
    """

    def __init__(self, num_features: int, depth: int, num_heads: int, mlp_ratio: int, **settings):
        super().__init__(
            num_features,
            512,
            depth,
            num_heads,
            patch_size=8,
            mlp_ratio=mlp_ratio,
            mask_ratio=0.0,
            **settings,
        )
        self.register_parameter("mask_token", None)

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights without the mask token of a run with masking: no embedding depends on it."""
        return {key: value for key, value in state.items() if key != "mask_token"}


class CvlfaceIR(IResNet):
    """An IResNet of CVLface, with the state-dict keys of ``IResNet``.

    Where the resolution halves and the width stays, in the first unit, the shortcut takes every
    other pixel. The last BatchNorm has neither scale nor offset.
    """

    def __init__(self, num_features: int, units: tuple[int, int, int, int], **settings):
        super().__init__(num_features, units, **settings)
        self.layer1[0].downsample = nn.MaxPool2d(1, 2)
        self.features = nn.BatchNorm1d(num_features, affine=False)

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights under the keys of ``IResNet``: CVLface counts the units through.

        Those of a network of another depth come back as they are.
        """
        layers = (self.layer1, self.layer2, self.layer3, self.layer4)
        units = [f"layer{i + 1}.{j}." for i, layer in enumerate(layers) for j in range(len(layer))]
        parts = {key: match.groups() for key in state if (match := _KEY.fullmatch(key))}
        if {int(unit) for unit, _, _ in parts.values() if unit} != set(range(len(units))):
            return dict(state)
        names = {}
        for key, (unit, layer, name) in parts.items():
            known, place = (_IN_UNIT, units[int(unit)]) if unit else (_LAYERS, "")
            names[key] = f"{place}{known[layer]}.{name}" if layer in known else key
        return {names.get(key, key): value for key, value in state.items()}


class CvlfaceSwin(TimmGrid):
    """A Swin v2 of CVLface: patches of 4, windows of 7, grids 28, 14 and 7; timm's keys.

    Args:
        embed_dim: width of the first stage; each further stage doubles it.
        settings: ``dropout``, ``fp16`` and ``num_features`` of ``TimmGrid``.
    """

    def __init__(self, embed_dim: int, **settings):
        from timm.models.swin_transformer_v2 import SwinTransformerV2

        trunk = SwinTransformerV2(
            img_size=CROP_SIZE,
            patch_size=4,
            num_classes=0,
            embed_dim=embed_dim,
            depths=_SWIN_DEPTHS,
            num_heads=_SWIN_HEADS,
            window_size=7,
            drop_path_rate=0.5,
        )
        super().__init__("swinv2", trunk, **settings)

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights under timm's keys: torchvision counts patches, blocks and mergings through.

        It has one bias for queries, keys and values, of which that of the keys counts as zero, and
        CVLface flattens the final map place by place, where the head here does channel by channel.
        """
        if "features.0.0.weight" not in state:
            return dict(state)
        width = self.trunk.num_features
        places = {"features.0.0.": "patch_embed.proj.", "features.0.2.": "patch_embed.norm."}
        for stage, depth in enumerate(_SWIN_DEPTHS):
            if stage:
                places[f"features.{len(places) - 1}."] = f"layers.{stage}.downsample."
            for block in range(depth):
                places[f"features.{len(places) - 1}."] = f"layers.{stage}.blocks.{block}."
        renamed = {}
        for key, value in state.items():
            place = next((place for place in places if key.startswith(place)), None)
            if key.endswith(_SWIN_TABLES):
                continue
            if place is not None:
                key = "trunk." + places[place] + key.removeprefix(place)
                for theirs, ours in _SWIN_BLOCK.items():
                    key = key.replace(theirs, ours)
            elif key.startswith("norm."):
                key = "trunk." + key
            if key.endswith("attn.qkv.bias"):
                renamed[key.replace("qkv.bias", "q_bias")] = value.chunk(3)[0]
                renamed[key.replace("qkv.bias", "v_bias")] = value.chunk(3)[2]
            elif key == "feature.0.weight" and value.shape[1] % width == 0:
                renamed[key] = value.unflatten(1, (-1, width)).mT.flatten(1)
            else:
                renamed[key] = value
        return renamed


@BACKBONES.register("cvlface_vit_s")
def cvlface_vit_s(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> CvlfaceViT:
    """CVLface's small ViT, patches of 8: 44 M parameters without the head."""
    return CvlfaceViT(num_features, 12, 8, mlp_ratio=5, dropout=dropout, fp16=fp16)


@BACKBONES.register("cvlface_vit_b")
def cvlface_vit_b(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> CvlfaceViT:
    """CVLface's base ViT, patches of 8: 63 M parameters without the head."""
    return CvlfaceViT(num_features, 24, 16, mlp_ratio=3, dropout=dropout, fp16=fp16)


@BACKBONES.register("cvlface_swin_s")
def cvlface_swin_s(
    dropout: float = 0.0, fp16: bool = False, num_features: int = 512
) -> CvlfaceSwin:
    """CVLface's small Swin v2: 32 M parameters without the head."""
    return CvlfaceSwin(128, dropout=dropout, fp16=fp16, num_features=num_features)


@BACKBONES.register("cvlface_swin_b")
def cvlface_swin_b(
    dropout: float = 0.0, fp16: bool = False, num_features: int = 512
) -> CvlfaceSwin:
    """CVLface's base Swin v2: 126 M parameters without the head."""
    return CvlfaceSwin(256, dropout=dropout, fp16=fp16, num_features=num_features)


@BACKBONES.register("cvlface_ir18")
def cvlface_ir18(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> CvlfaceIR:
    """IResNet-18 (Deng et al., CVPR 2019) as CVLface builds it."""
    return CvlfaceIR(num_features, (2, 2, 2, 2), dropout=dropout, fp16=fp16)


@BACKBONES.register("cvlface_ir50")
def cvlface_ir50(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> CvlfaceIR:
    """IResNet-50 (Deng et al., CVPR 2019) as CVLface builds it."""
    return CvlfaceIR(num_features, (3, 4, 14, 3), dropout=dropout, fp16=fp16)


@BACKBONES.register("cvlface_ir101")
def cvlface_ir101(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> CvlfaceIR:
    """IResNet-101 (Deng et al., CVPR 2019) as CVLface builds it."""
    return CvlfaceIR(num_features, (3, 13, 30, 3), dropout=dropout, fp16=fp16)
