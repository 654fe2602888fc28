"""One side of URFM: from the tokens of one network to local features."""

from typing import Literal

import torch
from torch import Tensor, nn

from arcface_cakd.alignment.attention import attend, multi_head_attention
from arcface_cakd.alignment.position import AnchorEncoding, PairEncoding

# The rows of one batch of faces, to the anchors and to the patches; None: those of every face.
Rows = tuple[Tensor | None, Tensor | None]
Lookup = Literal["position", "content"]
Values = Literal["tokens", "projected", "learned"]


class LocalCenterMapping(nn.Module):
    """One side of URFM: L local centres attend to the tokens of a backbone.

    By content, as Zhao et al. have it, e_ij = (f_i W_q + b_i)(f_j W_k)^T / sqrt(d_head) + c_ij,
    f_i the learnable local centres, f_j the tokens projected to width d; by position alone (ours),
    e_ij = c_ij. h_i = sum_j softmax_j(e_ij) v_j for each head, with v_j = f_j W_v, or f_j, or the
    token itself (ours); c_ij is ours, too.

    Args:
        token_dim: width C of the tokens, which come standardised.
        dim: common width d.
        num_heads: heads.
        anchors: of the query's position term, by content; None leaves query and key out: the
            lookup goes by position.
        pairs: c; None leaves it out.
        values: ``"learned"``: v = f W_v; ``"projected"``: v = f; ``"tokens"``: v is the token.
        own_centers: whether it has local centres of its own; if not, it is called with some.
    """

    def __init__(
        self,
        token_dim: int,
        dim: int,
        num_heads: int,
        anchors: AnchorEncoding | None,
        pairs: PairEncoding | None,
        values: Values = "learned",
        own_centers: bool = True,
    ):
        super().__init__()
        self.num_heads = num_heads
        by_content = anchors is not None
        self.project = None
        if by_content or values != "tokens":
            self.project = nn.Linear(token_dim, dim)
        self.values = values
        self.anchor_encoding = anchors
        self.pair_encoding = pairs
        # Of unit variance, as what they are compared with: centres that start alike would all
        # look at the same mean of the face.
        self.centers = None
        if anchors is not None and own_centers:
            self.centers = nn.Parameter(torch.randn(anchors.index.shape[0], dim))
        self.query = _linear(dim) if by_content else None
        self.key = _linear(dim) if by_content else None
        self.value = _linear(dim) if values == "learned" else None

    def move(
        self, anchor_distance: Tensor, pair_distance: Tensor, restart_from: Tensor | None
    ) -> None:
        """Measure by other distances of the same shapes, see ``PairEncoding.move``."""
        if self.anchor_encoding is not None:
            self.anchor_encoding.move(anchor_distance)
        if self.pair_encoding is not None:
            self.pair_encoding.move(pair_distance, restart_from)

    def rows(self, anchor_distance: Tensor, pair_distance: Tensor | None) -> Rows:
        """The rows that distances on a batch of faces look up, int64 of the same shapes.

        Args:
            anchor_distance: (B, L, A), and ``pair_distance`` (B, L, N) where patches have places.
        """
        anchors = pairs = None
        if self.anchor_encoding is not None:
            anchors = self.anchor_encoding.pif(anchor_distance)
        if self.pair_encoding is not None and pair_distance is not None:
            pairs = self.pair_encoding.pif(pair_distance)
        return anchors, pairs

    def forward(
        self,
        tokens: Tensor,
        num_prompts: int = 0,
        centers: Tensor | None = None,
        table: Tensor | None = None,
        rows: Rows = (None, None),
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, N + t, C), t prompts last -> h (B, L, d), lookup (B, heads, L, N + t).

        Args:
            centers: (L, d) in place of its own.
            table: (heads, rows) of c in place of its own.
            rows: what ``rows`` gives for this batch of faces, in place of those that hold for
                every face.
        """
        f = tokens if self.project is None else self.project(tokens)
        value = tokens if self.values == "tokens" else f
        if self.value is not None:
            value = self.value(f)
        to_anchors, to_patches = rows
        bias = None
        if self.pair_encoding is not None:
            bias = self.pair_encoding(num_prompts, to_patches, table)
        if self.anchor_encoding is None or self.query is None or self.key is None:
            assert bias is not None  # URFM refuses a lookup by nothing
            return attend(bias.softmax(-1).expand(len(tokens), -1, -1, -1), value)
        query = self.query(self.centers if centers is None else centers)
        query = query + self.anchor_encoding(to_anchors)
        return multi_head_attention(query, self.key(f), value, self.num_heads, bias)


def _linear(dim: int) -> nn.Linear:
    layer = nn.Linear(dim, dim, bias=False)
    nn.init.xavier_uniform_(layer.weight)
    return layer
