"""Facial positional encoding: tables of learnable entries, looked up by distance on the face."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_cakd.alignment.pif import PIFSettings


class AnchorEncoding(nn.Module):
    """The paper's position term of a query: b_i = P[ I( D(i, anchor) ) ].

    P is a randomly initialised table of vectors, one table for each anchor; the b_i of several
    anchors are summed.

    Args:
        distance: (L, A) distances from the local centres to the anchors, in units.
        dim: width d of a vector.
        pif: constants of I; None derives them from ``distance``.
    """

    index: Tensor

    def __init__(self, distance: Tensor, dim: int, pif: PIFSettings | None = None):
        super().__init__()
        self.pif = pif or PIFSettings.spread(distance)
        anchors = distance.shape[1]
        self.table = nn.Parameter(torch.empty(anchors, self.pif.rows, dim))
        nn.init.trunc_normal_(self.table, std=0.02)
        # Indices follow from settings: they are no part of what is learned and saved.
        self.register_buffer("index", self.pif(distance), persistent=False)

    def move(self, distance: Tensor) -> None:
        """Look up by other distances, (L, A), with the constants and the table as they are."""
        self.index.copy_(self.pif(distance))

    def forward(self, index: Tensor | None = None) -> Tensor:
        """b, (L, d); by the rows (B, L, A) of a batch of faces, (B, L, d)."""
        index = self.index if index is None else index
        anchor = torch.arange(self.table.shape[0], device=index.device)
        return self.table[anchor, index].sum(-2)


class PairEncoding(nn.Module):
    """A term of each logit, c_head[ I( D(place of centre i, place of patch j) ) ].

    A choice of this project: the anchor's term alone folds into the learnable query, so that
    nothing would know where a patch is. Each head starts with a receptive field of its own size
    around the centre's place, see ``receptive_fields``.

    Args:
        distance: (L, N) distances from the local centres to the patches, in units.
        num_heads: heads, each with a table of its own.
        pif: constants of I; None derives them from ``in_use``.
        in_use: (n,) all distances that the table is for, where other patches than these are
            looked up in it, too; by default ``distance``.
        own_table: whether it has a table; if not, it is called with one.
    """

    index: Tensor

    def __init__(
        self,
        distance: Tensor,
        num_heads: int,
        pif: PIFSettings | None = None,
        in_use: Tensor | None = None,
        own_table: bool = True,
    ):
        super().__init__()
        in_use = distance.flatten() if in_use is None else in_use
        self.pif = pif or PIFSettings.spread(in_use)
        self.register_buffer("index", self.pif(distance), persistent=False)
        self.table = None
        if own_table:
            fields = receptive_fields(in_use, self.pif(in_use), self.pif.rows, num_heads)
            self.table = nn.Parameter(fields.to(torch.get_default_dtype()))

    @torch.no_grad()
    def move(self, distance: Tensor, restart_from: Tensor | None) -> None:
        """Look up by other distances, (L, N), with the constants as they are.

        Args:
            restart_from: where the table starts anew, the distances (n,) whose receptive fields
                it starts with.
        """
        self.index.copy_(self.pif(distance))
        if restart_from is not None and self.table is not None:
            heads, rows = self.table.shape
            index = self.pif(restart_from)
            self.table.copy_(receptive_fields(restart_from, index, rows, heads))

    def forward(
        self, num_prompts: int = 0, index: Tensor | None = None, table: Tensor | None = None
    ) -> Tensor:
        """(heads, L, N + num_prompts); prompts have no place and get zero.

        By the rows (B, L, N) of a batch of faces, (B, heads, L, N + num_prompts). ``table``
        (heads, rows) stands in for its own.
        """
        index = self.index if index is None else index
        table = self.table if table is None else table
        assert table is not None
        # Indexing by a tensor gives the same, but takes several times as long, forward and back.
        entries = table.index_select(1, index.flatten()).view(-1, *index.shape)
        return F.pad(entries.movedim(0, -3), (0, num_prompts))


def receptive_fields(distance: Tensor, index: Tensor, rows: int, num_heads: int) -> Tensor:
    """Entries, (heads, rows), with which logits fall linearly with distance (ours).

    By 2 per unit in the first head (or the only one) and 1/4 in the last, in a geometric
    progression, as ALiBi has it (Press et al., ICLR 2022). A row's distance is the mean of those
    that fall into it. From random tables every centre would start with the mean of the face, and
    all of them alike. The farthest row is zero, as the entry of prompts is: were the nearest
    one, the prompts, which say the same of every face, would start with most of the attention.

    Args:
        distance: any shape, floating point, in units.
        index: int64 of the same shape, the row of each distance.
    """
    index, distance = index.flatten(), distance.flatten()
    # A row that no distance falls into is never looked up, and is left at zero.
    count = torch.bincount(index, minlength=rows)
    mean = distance.new_zeros(rows).index_add_(0, index, distance) / count.clamp_min(1)
    slopes = torch.logspace(1, -2, num_heads, base=2, dtype=mean.dtype, device=mean.device)
    nearness = (mean.max() - mean).masked_fill(count == 0, 0)
    return slopes[:, None] * nearness
