"""Training code that asks for a GPU, on a machine without one.

Other projects' loops say ``.cuda()`` and ``nccl`` throughout. Here those land on the CPU and on
gloo, for the length of a block, so that such a loop can be run and timed as it is.
"""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from unittest import mock

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


@contextlib.contextmanager
def cuda_calls_on_cpu() -> Iterator[None]:
    """Make calls for a GPU land on the CPU, and any process group one of gloo with this rank alone.

    Nothing changes where there is a GPU, but for the process group.
    """
    with contextlib.ExitStack() as stack:
        if not torch.cuda.is_available():
            for target, name, replacement in _replacements():
                stack.enter_context(mock.patch.object(target, name, replacement))
        stack.enter_context(alone_in_a_group())
        yield


@contextlib.contextmanager
def alone_in_a_group() -> Iterator[None]:
    """A process group of this process alone, without a port; whoever asks for one gets this."""
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        with mock.patch.object(dist, "init_process_group", lambda *args, **kwargs: None):
            yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _replacements():
    """(where, name, what it becomes) of what asks for a GPU."""

    def itself(self, *args, **kwargs):
        return self

    def nothing(*args, **kwargs):
        return None

    def stream(*args, **kwargs):
        return SimpleNamespace(wait_stream=nothing, synchronize=nothing)

    def to_cpu(to):
        def to_device(self, *args, **kwargs):
            # A GPU's number; a dtype and a tensor stay what they are.
            args = tuple("cpu" if type(argument) is int else argument for argument in args)
            if type(kwargs.get("device")) is int:
                kwargs["device"] = "cpu"
            return to(self, *args, **kwargs)

        return to_device

    init = DistributedDataParallel.__init__

    def wrapped(self, module, device_ids=None, output_device=None, **kwargs):
        init(self, module, **kwargs)

    return [
        (torch.Tensor, "cuda", itself),
        (torch.nn.Module, "cuda", itself),
        (torch.Tensor, "to", to_cpu(torch.Tensor.to)),
        (torch.nn.Module, "to", to_cpu(torch.nn.Module.to)),
        (torch.cuda, "set_device", nothing),
        (torch.cuda, "Stream", stream),
        (torch.cuda, "current_stream", stream),
        (torch.cuda, "stream", lambda stream: contextlib.nullcontext()),
        (DistributedDataParallel, "__init__", wrapped),
    ]
