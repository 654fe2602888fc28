"""A checkpoint of other ranks: what each rank has for itself, divided anew.

Class centres, what the optimiser keeps of them and what losses shard are joined and cut again by
``shard_of``, to the bit. What is the same on all ranks stays. Of what each rank has of its own
(random numbers, BatchNorm's running statistics) rank r keeps rank r's; a rank that there was not
has rank 0's statistics, and its random numbers begin anew.
"""

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from arcface_cakd.engine.errors import START_ANEW, CheckpointError
from arcface_cakd.losses import DistillationLoss
from arcface_cakd.partial_fc import shard_of


def sharded_names(model: nn.Module) -> list[str]:
    """The names, in the state dict, of what losses shard over the ranks."""
    return [
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, DistillationLoss)
        for name in sorted(module.sharded_buffers)
    ]


def check_global_batch(then: tuple[int, int], now: tuple[int, int], path: Path) -> None:
    """The order of images and the schedule go by the images that a step has over all ranks.

    Args:
        then: number of ranks and ``batch_size`` of the run that wrote the checkpoint ``path``.
        now: those of this run.

    Raises:
        CheckpointError: a step had another number of images.
    """
    images = then[0] * then[1]
    if now[0] * now[1] == images:
        return
    share, rest = divmod(images, now[0])
    way = f"set batch_size to {share}" if not rest else f"take a number of ranks that {images} has"
    raise CheckpointError(
        f"checkpoint {path} is of {then[0]} rank(s) with batch_size {then[1]}, {images} images a "
        f"step, and this run has {now[0]} with {now[1]}: {way}, or {START_ANEW}"
    )


def resharded(
    contents: Sequence[dict[str, Any]],
    rank: int,
    ranks: int,
    sharded: Iterable[str] = (),
    num_classes: int | None = None,
) -> dict[str, Any]:
    """The checkpoint of one rank of ``ranks``, with the keys that arcface_torch's have.

    Args:
        contents: those of all ranks of before, in order, of one step.
        rank: whose checkpoint it is to be.
        ranks: how many there are now.
        sharded: names, in ``state_dict_backbone``, of what a loss shards: the rows of a rank's
            classes, and unused ones after them (``DistillationLoss.sharded_buffers``).
        num_classes: of all ranks; needed for ``sharded`` alone.
    """
    own = dict(contents[rank] if rank < len(contents) else contents[0])
    states = [content["state_dict_softmax_fc"] for content in contents]
    if states[0]:
        weight = _share([state["weight"] for state in states], rank, ranks)
        # Copied, which keeps the versions of modules that a state dict has beside its keys.
        own["state_dict_softmax_fc"] = copy.copy(own["state_dict_softmax_fc"])
        own["state_dict_softmax_fc"]["weight"] = weight
        own["state_optimizer"] = _optimizer([c["state_optimizer"] for c in contents], rank, ranks)
    own["state_dict_backbone"] = copy.copy(own["state_dict_backbone"])
    for name in sharded:
        if name not in own["state_dict_backbone"]:
            continue  # a loss that came later: whoever loads it says so
        assert num_classes is not None  # what shards them has class centres
        counts = [shard_of(num_classes, old, len(contents))[1] for old in range(len(contents))]
        parts = [
            content["state_dict_backbone"][name][:count]
            for content, count in zip(contents, counts, strict=True)
        ]
        share = _share(parts, rank, ranks)
        rows = shard_of(num_classes, 0, ranks)[1]  # the largest shard's
        empty = share.new_zeros(rows - len(share), *share.shape[1:])
        own["state_dict_backbone"][name] = torch.cat([share, empty])
    return own


def joined_gradients(
    gradients: Sequence[Sequence[Tensor | None]], rank: int, ranks: int, has_centers: bool
) -> list[Tensor | None]:
    """The gradients of an optimiser step that is not complete, see ``pending_gradients``.

    Their mean over the ranks is what the step will take, so each rank gets that; of the class
    centres, which come last, its share.
    """
    together = list(zip(*gradients, strict=True))
    last = [together.pop()] if has_centers else []
    found = [mean_of(parts) for parts in together]
    for parts in last:
        present = [part for part in parts if part is not None]
        found.append(_share(present, rank, ranks) if len(present) == len(parts) else None)
    return found


def mean_of(parts: Sequence[Tensor | None]) -> Tensor | None:
    """The mean over the ranks of what each has, to the bit where all have the same."""
    present = [part for part in parts if part is not None]
    if not present:
        return None
    if len(present) == len(parts) and all(torch.equal(part, present[0]) for part in present[1:]):
        return present[0]
    return torch.stack(present).sum(0) / len(parts)


def _share(parts: Sequence[Tensor], rank: int, ranks: int) -> Tensor:
    """A rank's rows of what the parts make together."""
    start, count = shard_of(sum(map(len, parts)), rank, ranks)
    return torch.cat(list(parts))[start : start + count].clone()


def _optimizer(states: Sequence[dict[str, Any]], rank: int, ranks: int) -> dict[str, Any]:
    """With what it keeps of the class centres, its last parameter, divided anew."""
    own = states[0]
    number = own["param_groups"][-1]["params"][-1]
    if number not in own["state"]:  # no step yet, or centres that do not learn
        return own
    kept = [state["state"][number] for state in states]
    # A count of steps has no rows; a momentum has those of the centres.
    shares = {
        name: _share([part[name] for part in kept], rank, ranks)
        if isinstance(value, Tensor) and value.ndim > 1
        else value
        for name, value in kept[0].items()
    }
    return {**own, "state": {**own["state"], number: shares}}
