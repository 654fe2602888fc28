"""A bank of what earlier batches left, first in, first out."""

import torch
from torch import Tensor


@torch.no_grad()
def put_in(queued: Tensor, *pairs: tuple[Tensor, Tensor]) -> None:
    """Put rows into banks that are filled together, over the oldest ones, in place.

    Args:
        queued: int64 scalar, the rows that ever went in, moved on here.
        pairs: a bank (size, ...) and what goes in (N, ...), the latest rows of it where N is
            above the size.
    """
    size, device = len(pairs[0][0]), queued.device
    count = min(len(pairs[0][1]), size)
    if count == 0:
        return
    places = (queued + torch.arange(count, device=device)) % size
    for bank, rows in pairs:
        bank[places] = rows[-count:].to(bank.dtype)
    queued += count
