"""timm-face's ViTs: ``timmface_vit_s8`` and ``timmface_vit_ti8``.

github.com/gau-nernst/timm-face trains timm's models with their own classifier, a bare linear layer
of 512 outputs, as the embedding: here its two ViTs with patches of 8 pixels, which give 14 x 14
tokens. State-dict keys are ``trunk.`` + timm's own.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from arcface_cakd.backbones.base import FaceBackbone
from arcface_cakd.backbones.vit import STAGES
from arcface_cakd.features import FaceFeatures
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.precision import at_least_float32, autocast
from arcface_cakd.registry import BACKBONES

_TRUNK, _PATCH = "trunk.", 8
# In a checkpoint of its training: the network, and beside it class centres and the loss's state.
_BACKBONE, _BESIDE = "backbone.", ("weight", "loss.")


class TimmFaceViT(FaceBackbone):
    """A ViT of timm whose embedding is a linear layer of the normed mean of its patches.

    That norm comes after the mean, so the pixel features are what the last block gives, without a
    norm. The stages are what four blocks at equal steps leave.

    Args:
        name: timm's name of the model.
        num_features: E, the width of the embedding.
        dropout: probability of dropping an entry of what the linear layer reads.
        fp16: whether all but the head runs in float16 under autocast.
        settings: for timm's ``create_model``.
    """

    trunk: Any  # timm's ViT

    def __init__(self, name: str, num_features: int, dropout: float, fp16: bool, **settings: Any):
        super().__init__()
        import timm

        self.trunk = timm.create_model(
            name,
            pretrained=False,
            num_classes=num_features,
            img_size=CROP_SIZE,
            patch_size=_PATCH,
            drop_rate=dropout,
            **settings,
        )
        depth = len(self.trunk.blocks)
        self.taps = [depth * (i + 1) // STAGES - 1 for i in range(STAGES)]
        self.embedding_size = num_features
        self.token_dim = self.trunk.embed_dim
        self.grid = (CROP_SIZE // _PATCH, CROP_SIZE // _PATCH)
        self.stage_dims = (self.token_dim,) * STAGES
        self.amp_dtype = torch.float16 if fp16 else None

    def tokens(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Images to timm's last tokens (B, P + N, C), a class token first, and the stages' maps."""
        tokens, maps = self.trunk.forward_intermediates(images, indices=self.taps)
        return tokens, tuple(maps)

    def body(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Images to the map of the last patches (B, C, 14, 14) and the stages' maps."""
        tokens, maps = self.tokens(images)
        return self._as_map(tokens), maps

    def head(self, final: Tensor) -> Tensor:
        """Mean over the map, LayerNorm, linear layer."""
        return self.trunk.forward_head(final.flatten(2).transpose(1, 2))

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a plain timm model, or of timm-face's checkpoint, under our keys."""
        if any(key.startswith(_TRUNK) for key in state):
            return dict(state)
        if any(key.startswith(_BACKBONE) for key in state):
            state = {
                key.removeprefix(_BACKBONE): value
                for key, value in state.items()
                if not key.startswith(_BESIDE)
            }
        return {_TRUNK + key: value for key, value in state.items()}

    def _as_map(self, tokens: Tensor) -> Tensor:
        patches = tokens[:, self.trunk.num_prefix_tokens :]
        return patches.transpose(1, 2).unflatten(2, (CROP_SIZE // _PATCH, CROP_SIZE // _PATCH))


class ClassTokenViT(TimmFaceViT):
    """A ViT of timm whose embedding is a linear layer of its class token.

    Pixel features are the patches, after the last norm.
    """

    reads_class_token = True

    def forward_features(self, images: Tensor, stages: bool = False) -> FaceFeatures:
        with self.autocast(images.device.type):
            tokens, maps = self.tokens(images)
        tokens = at_least_float32(tokens)
        with autocast(images.device.type, None):
            embedding = self.head(tokens[:, 0])
        return self._features(embedding, self._as_map(tokens), maps, stages)

    def head(self, final: Tensor) -> Tensor:
        """Class token (B, C), after the last norm, to embedding (B, E)."""
        return self.trunk.forward_head(final.unsqueeze(1))


@BACKBONES.register("timmface_vit_s8")
def timmface_vit_s8(
    dropout: float = 0.0, fp16: bool = False, num_features: int = 512
) -> TimmFaceViT:
    """timm-face's ViT/S-8 (GAP), without class token: 21.6 M parameters at E = 512."""
    settings = {"class_token": False, "global_pool": "avg"}
    return TimmFaceViT("vit_small_patch16_224", num_features, dropout, fp16, **settings)


@BACKBONES.register("timmface_vit_ti8")
def timmface_vit_ti8(
    dropout: float = 0.0, fp16: bool = False, num_features: int = 512
) -> ClassTokenViT:
    """timm-face's ViT/Ti-8, whose embedding is of the class token: 5.5 M parameters at E = 512."""
    return ClassTokenViT("vit_tiny_patch16_224", num_features, dropout, fp16)
