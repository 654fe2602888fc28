"""One side of URFM: from the tokens of one network to local features."""

import torch
from torch import Tensor, nn

from arcface_cakd.alignment.attention import multi_head_attention
from arcface_cakd.alignment.pif import PIFSettings
from arcface_cakd.alignment.position import AnchorEncoding, PairEncoding
from arcface_cakd.features import FaceFeatures
from arcface_cakd.precision import at_least_float32

# The rows of one batch of faces, to the anchors and to the patches; None: those of every face.
Rows = tuple[Tensor | None, Tensor | None]


class TokenStandardization(nn.Module):
    """Standardises each channel of a backbone's features over batch and tokens (ours).

    A Transformer's tokens are nearly all alike: of those of the demo's Swin, 98 % of the power is
    in their common mean, 1 % tells one image from another (``eval/token_statistics.py``). Two
    sides mapped from that agree on the mean and have nothing left to align. LayerNorm, which
    looks at one token, keeps the mean; a BatchNorm without scale and shift takes it out.

    In training mode mean and (biased) variance are those of the rank's batch, prompts included;
    in evaluation mode they are running ones, which the state dict holds.

    Args:
        token_dim: width C of the tokens.
    """

    def __init__(self, token_dim: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(token_dim, affine=False)

    def forward(self, features: FaceFeatures) -> Tensor:
        """Tokens (B, N, C), then prompts (B, t, C) if any, as (B, N + t, C), at least float32."""
        tokens, _ = features.pixel_features
        if features.prompts is not None:
            tokens = torch.cat([tokens, features.prompts], dim=1)
        return self.norm(at_least_float32(tokens).flatten(0, 1)).view_as(tokens)


class LocalCenterMapping(nn.Module):
    """One side of URFM: L learnable local centres attend to the tokens of a backbone.

    e_ij = (f_i W_q + b_i)(f_j W_k)^T / sqrt(d_head) + c_ij, f_i the local centres, f_j the
    tokens projected to width d, h_i = sum_j softmax_j(e_ij) f_j W_v, for each head (Zhao et al.;
    c_ij is ours).

    Args:
        token_dim: width C of the tokens, which come standardised.
        dim: common width d.
        num_heads: heads.
        anchor_distance: (L, A), see ``AnchorEncoding``.
        pair_distance: (L, N), see ``PairEncoding``; None leaves c out.
        pif: constants of the index function; None derives them.
        own_centers: whether it has local centres of its own; if not, it is called with some.
    """

    def __init__(
        self,
        token_dim: int,
        dim: int,
        num_heads: int,
        anchor_distance: Tensor,
        pair_distance: Tensor | None = None,
        pif: PIFSettings | None = None,
        own_centers: bool = True,
    ):
        super().__init__()
        self.num_heads = num_heads
        self.project = nn.Linear(token_dim, dim)
        # Of unit variance, as what they are compared with: centres that start alike would all
        # look at the same mean of the face.
        self.centers = None
        if own_centers:
            self.centers = nn.Parameter(torch.randn(anchor_distance.shape[0], dim))
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight)
        self.anchor_encoding = AnchorEncoding(anchor_distance, dim, pif)
        self.pair_encoding = (
            None if pair_distance is None else PairEncoding(pair_distance, num_heads, pif)
        )

    def move(self, anchor_distance: Tensor, pair_distance: Tensor, restart: bool) -> None:
        """Measure by other distances of the same shapes, see ``PairEncoding.move``."""
        self.anchor_encoding.move(anchor_distance)
        if self.pair_encoding is not None:
            self.pair_encoding.move(pair_distance, restart)

    def rows(self, anchor_distance: Tensor, pair_distance: Tensor | None) -> Rows:
        """The rows that distances on a batch of faces look up, int64 of the same shapes.

        Args:
            anchor_distance: (B, L, A), and ``pair_distance`` (B, L, N) where patches have places.
        """
        anchors = self.anchor_encoding.pif(anchor_distance)
        if self.pair_encoding is None or pair_distance is None:
            return anchors, None
        return anchors, self.pair_encoding.pif(pair_distance)

    def forward(
        self,
        tokens: Tensor,
        num_prompts: int = 0,
        centers: Tensor | None = None,
        rows: Rows = (None, None),
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, N + t, C), t prompts last -> h (B, L, d), lookup (B, heads, L, N + t).

        Args:
            centers: (L, d) in place of its own.
            rows: what ``rows`` gives for this batch of faces, in place of those that hold for
                every face.
        """
        f = self.project(tokens)
        to_anchors, to_patches = rows
        query = self.query(self.centers if centers is None else centers)
        query = query + self.anchor_encoding(to_anchors)
        bias = None
        if self.pair_encoding is not None:
            bias = self.pair_encoding(num_prompts, to_patches)
        return multi_head_attention(query, self.key(f), self.value(f), self.num_heads, bias)
