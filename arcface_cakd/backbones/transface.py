"""TransFace: ``transface_s``, ``transface_b``, ``transface_l``, ViTs with a gate on their tokens.

Dan et al., "TransFace", ICCV 2023, arXiv 2308.10133: arcface_torch's ViTs whose head first weighs
each token by a sigmoid of two linear layers over all of them, the published ``senet``. Keys, shapes
and eval outputs are those of the published code (github.com/DanJun6737/TransFace; the same file is
in modelscope/facechain). There training also gives the gate's softmax and each token's deviation,
by which it hardens samples and perturbs patches; that is not here, so nothing trains one as
published: these names are for the weights.
"""

from torch import Tensor, nn

from arcface_cakd.backbones.vit import VisionTransformer
from arcface_cakd.registry import BACKBONES


class TransFace(VisionTransformer):
    """A ViT of TransFace.

    Pixel features are the tokens after the last norm, before the gate, as those of the other ViTs
    (our choice; published code distils nothing). The gate belongs to the head, which with prompts
    in the teacher still sees patches alone. Arguments are those of ``VisionTransformer``.
    """

    def __init__(self, num_features: int, embed_dim: int, depth: int, **settings):
        super().__init__(num_features, embed_dim, depth, drop_path=0.05, **settings)
        tokens = self.grid[0] * self.grid[1]
        self.senet = nn.Sequential(
            nn.Linear(tokens * embed_dim, tokens, bias=False),
            nn.ReLU(),
            nn.Linear(tokens, tokens, bias=False),
            nn.Sigmoid(),
        )

    def head(self, final: Tensor) -> Tensor:
        """Final map (B, C, H, W) to embedding (B, E): gated, then as in ``VisionTransformer``."""
        gates = self.senet(final.flatten(2).transpose(1, 2).flatten(1))
        return super().head(final * gates.unflatten(1, (1, *final.shape[-2:])))


@BACKBONES.register("transface_s")
def transface_s(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> TransFace:
    """TransFace-S: arcface_torch's ViT-S for large data, with the gate."""
    return TransFace(num_features, 512, 12, mask_ratio=0.0, dropout=dropout, fp16=fp16)


@BACKBONES.register("transface_b")
def transface_b(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> TransFace:
    """TransFace-B: arcface_torch's ViT-B for large data, with the gate; checkpointed."""
    return TransFace(num_features, 512, 24, checkpointing=True, dropout=dropout, fp16=fp16)


@BACKBONES.register("transface_l")
def transface_l(dropout: float = 0.0, fp16: bool = False, num_features: int = 512) -> TransFace:
    """TransFace-L: arcface_torch's ViT-L for large data, with the gate; checkpointed."""
    return TransFace(num_features, 768, 24, checkpointing=True, dropout=dropout, fp16=fp16)
