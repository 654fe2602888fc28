"""Process groups and collectives, the same code for one process and for many.

Without a process group the world has one rank and every function here is a plain identity, so
callers need no second path. With a group all ranks must call them in the same order.
"""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from arcface_cakd.errors import ArcfaceCakdError

_LAUNCH_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_START = "arcface_cakd/start"

# How gloo's and nccl's errors begin or go on when a peer is gone; they have no class of their own.
_LOST_PEER = ("gloo/transport", "ncclRemoteError")


class DistributedError(ArcfaceCakdError):
    """A launch or a call that does not fit the ranks there are."""


def _has_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's rank; 0 without a process group."""
    return dist.get_rank() if _has_group() else 0


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if _has_group() else 1


def local_rank() -> int:
    """This process's rank on its own machine, as torchrun says; 0 without it."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def launched() -> bool:
    """Whether torchrun, or what sets its variables, started this process."""
    return "RANK" in os.environ or "WORLD_SIZE" in os.environ


def is_main() -> bool:
    """Whether this is rank 0: the one that writes files and speaks."""
    return rank() == 0


def init_from_env(backend: str | None = None) -> torch.device:
    """Join the process group that torchrun describes, and say which device to work on.

    Outside torchrun (neither RANK nor WORLD_SIZE is set) no group is made. Calling it again
    changes nothing.

    Args:
        backend: "nccl" (each rank on its own GPU) or "gloo" (on the CPU); None takes nccl where
            there is a GPU, else gloo.

    Raises:
        DistributedError: a half-set environment, an unknown backend, or no GPU for this rank.
    """
    if backend not in (None, "nccl", "gloo"):
        raise DistributedError(f"backend must be 'nccl' or 'gloo', got {backend!r}")
    gpus = torch.cuda.device_count()
    if backend == "nccl" and gpus == 0:
        raise DistributedError("backend nccl needs a GPU and this machine has none: use gloo")
    on_gpu = backend == "nccl" or (backend is None and gpus > 0)
    if not launched():
        return torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    ranks = _read_launch()
    if on_gpu and ranks["LOCAL_RANK"] >= gpus:
        raise DistributedError(
            f"LOCAL_RANK is {ranks['LOCAL_RANK']} and this machine has {gpus} GPU(s): start at "
            f"most {gpus} processes on it, or use gloo"
        )
    device = torch.device("cuda", ranks["LOCAL_RANK"]) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=_store_of_this_start(ranks["RANK"], ranks["WORLD_SIZE"]),
            rank=ranks["RANK"],
            world_size=ranks["WORLD_SIZE"],
            device_id=device if on_gpu else None,
        )
    return device


def _store_of_this_start(rank: int, ranks: int) -> "dist.Store | None":
    """Where the ranks that torchrun has started meet; None: where torch lets them.

    The store is one of torchrun's own and stays where it starts all ranks anew
    (``--max-restarts``), with the addresses of those that are dead: whoever comes before rank 0
    would connect to its former address (pytorch/pytorch#135712; seen with torch 2.14). So each
    start has names of its own there. How often a machine was restarted would not do: machines
    count for themselves. Rank 0 draws a name, and tells it to whoever asks with one of its own,
    until each has said that it knows.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or ranks == 1:
        return None
    store, _, _ = next(dist.rendezvous("env://", rank, ranks))
    own = uuid.uuid4().hex
    if rank > 0:
        store.set(f"{_START}/asks/{rank}", own)
        name = store.get(f"{_START}/told/{own}").decode()  # waits
        store.set(f"{_START}/knows/{name}/{rank}", "")
        return dist.PrefixStore(name, store)
    missing, told = set(range(1, ranks)), set()
    deadline = time.monotonic() + store.timeout.total_seconds()
    while missing:
        for number in sorted(missing):
            if store.check([f"{_START}/knows/{own}/{number}"]):
                missing.discard(number)
            elif store.check([f"{_START}/asks/{number}"]):
                # It may be of a former start: then nobody waits for the answer.
                asks = store.get(f"{_START}/asks/{number}").decode()
                if asks not in told:
                    store.set(f"{_START}/told/{asks}", own)
                    told.add(asks)
        if missing and time.monotonic() > deadline:
            raise DistributedError(f"rank {min(missing)} was started and did not come: see its log")
        time.sleep(0.01)
    return dist.PrefixStore(own, store)


def _read_launch() -> dict[str, int]:
    missing = [name for name in _LAUNCH_VARIABLES if not os.environ.get(name)]
    if missing:
        present = " and ".join(n for n in ("RANK", "WORLD_SIZE") if os.environ.get(n)) or "RANK"
        raise DistributedError(
            f"the environment sets {present} but not {', '.join(missing)}: start with torchrun, "
            f"or unset {present} for a single process"
        )
    values = {}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        text = os.environ[name]
        if not text.isdecimal():
            raise DistributedError(f"environment variable {name} is {text!r}, not a whole number")
        values[name] = int(text)
    if values["RANK"] >= values["WORLD_SIZE"]:
        raise DistributedError(
            f"RANK is {values['RANK']} and WORLD_SIZE {values['WORLD_SIZE']}: ranks start at 0"
        )
    return values


def is_lost_peer(error: BaseException) -> bool:
    """Whether a collective failed because another rank is gone."""
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _LOST_PEER)


@contextlib.contextmanager
def process_group(backend: str | None = None) -> Iterator[torch.device]:
    """``init_from_env`` for the length of a block; yields the device.

    A block that fails leaves the group to the end of the process: its peers may be waiting in a
    collective, and to take the group down would wait for them.

    Raises:
        DistributedError: this rank lost another one, which failed; or see ``init_from_env``.
    """
    device = init_from_env(backend)
    try:
        yield device
    except RuntimeError as error:
        if world_size() > 1 and is_lost_peer(error):
            raise DistributedError(
                f"rank {rank()} lost its connection to another rank, which failed or was killed: "
                "see what that one said"
            ) from error
        raise
    if _has_group():
        # In torch 2.6 the end of a gloo group waits for gloo's threads with the interpreter's lock
        # held, and one that is about to let go of a tensor waits for the lock: both for ever
        # (pytorch/pytorch#154976 mends it). Here such a thread gets the lock first.
        time.sleep(0.1)
        dist.destroy_process_group()


def barrier() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        dist.barrier()


def broadcast_module(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0's ``module``, in place."""
    if world_size() == 1:
        return
    with torch.no_grad():
        for tensor in chain(module.parameters(), module.buffers()):
            value = tensor.contiguous()  # nccl takes no other layout, such as channels_last
            dist.broadcast(value, src=0)
            if value is not tensor:
                tensor.copy_(value)


def all_reduce_mean(tensor: Tensor) -> Tensor:
    """The mean of a floating-point tensor over the ranks, any shape, detached."""
    total = tensor.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
        total /= world_size()
    return total


def gather_objects(item: Any) -> list[Any]:
    """Every rank's ``item`` (anything that pickles), in the order of ranks, on every rank."""
    items = [item]
    if world_size() > 1:
        items = [None] * world_size()
        dist.all_gather_object(items, item)
    return items


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """A block that fails on every rank if a user's mistake stops it on one.

    Without it the others would wait for that one, and rank 0, which alone speaks, would not know
    what to say. The block must hold no collective; its end is one.

    Raises:
        DistributedError: the block failed on other ranks only; the message is the first one's.
    """
    mistake = None
    try:
        yield
    except (ArcfaceCakdError, OSError) as error:
        mistake = error
    texts = gather_objects(None if mistake is None else str(mistake))
    if mistake is not None:
        raise mistake
    for number, text in enumerate(texts):
        if text is not None:
            raise DistributedError(f"rank {number}: {text}")


def all_gather(tensor: Tensor) -> Tensor:
    """Join the ranks' tensors (B, ...) along the first axis: (world * B, ...), without gradient.

    Shape and dtype must be the same on every rank.
    """
    ranks = world_size()
    tensor = tensor.detach()
    if ranks == 1:
        return tensor
    joined = tensor.new_empty((ranks * tensor.shape[0], *tensor.shape[1:]))
    # Its name since torch 2.14, which warns of the former one.
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(joined, tensor.contiguous())
    return joined


def all_gather_with_grad(tensor: Tensor, gradient_scale: float = 1.0) -> Tensor:
    """``all_gather`` through which gradients flow back to the rank that each slice came from.

    The backward pass sums, over the ranks, each rank's gradient with respect to this rank's
    slice: the derivative of the *sum* of the ranks' losses. What that means under
    DistributedDataParallel, which then averages the backbone's gradients:

    * each rank forms its own loss from the joined batch (relational losses, or all ranks the
      same one): the result is the gradient of the *mean* of those losses, as a loss that sees
      the local batch only would have. Leave ``gradient_scale`` at 1.
    * the ranks together form *one* loss and each differentiates only its own share (the class
      shards of Partial FC): the sum is that loss's gradient, which the averaging would divide
      by the number of ranks. Pass ``gradient_scale=world_size()``.

    The backward pass is a collective too, so every rank must back-propagate through its result.

    Args:
        tensor: (B, ...), the same shape and dtype on every rank.
        gradient_scale: factor on the gradient.
    """
    if world_size() == 1 and gradient_scale == 1.0:
        return tensor
    return _AllGather.apply(tensor, gradient_scale)


def all_reduce_with_grad(tensor: Tensor) -> Tensor:
    """The sum of the ranks' tensors (any shape, floating point), through which gradients flow.

    Every rank is taken to form the same loss from the sum, each by itself: the backward pass sums
    the ranks' gradients, the derivative of the *sum* of the ranks' losses, as the backward pass
    of ``all_gather_with_grad`` does; see there for what DistributedDataParallel makes of it. It
    is a collective too, so every rank must back-propagate through its result.
    """
    return tensor if world_size() == 1 else _AllReduce.apply(tensor)


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: Tensor, gradient_scale: float) -> Tensor:
        ctx.local_size = tensor.shape[0]
        ctx.gradient_scale = gradient_scale
        return all_gather(tensor)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        # Every rank reduces the whole: gloo has no reduce-scatter of its own on older versions
        # of torch, and the batch is small beside the class centres.
        total = gradient.clone(memory_format=torch.contiguous_format)
        if world_size() > 1:
            dist.all_reduce(total)
        local = total.narrow(0, rank() * ctx.local_size, ctx.local_size)
        return local * ctx.gradient_scale, None
