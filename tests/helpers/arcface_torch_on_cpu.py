#!/usr/bin/env python
"""Run a script of an arcface_torch checkout on a machine without a GPU, for tests only.

    ARCFACE_TORCH=.../recognition/arcface_torch python arcface_torch_on_cpu.py configs/<name>
    ARCFACE_TORCH=... torchrun --nproc-per-node 2 arcface_torch_on_cpu.py configs/<name>

It makes torch.cuda calls land on the CPU and nccl become gloo, then runs train_v2.py (or
SCRIPT=<other>.py, also with an absolute path) as __main__ from that folder. It mends nothing
else: mxnet, `verbose=`, interp1d and the like are the business of the patches under test.
Nothing in the checkout is written.

PORT=n        port of the single-process store (the host hard-codes 12584)
CPU_SCALER=1  use a real GradScaler on the CPU, to exercise scale and unscale
"""

import contextlib
import os
import runpy
import sys

import torch
import torch.distributed as dist

HOST = os.environ["ARCFACE_TORCH"]


class _Stream:
    def __init__(self, *args, **kwargs):
        pass

    def wait_stream(self, stream):
        pass

    def synchronize(self):
        pass


def _emulate_cuda() -> None:
    torch.cuda.Stream = _Stream
    torch.cuda.stream = lambda stream: contextlib.nullcontext()
    torch.cuda.current_stream = lambda *a, **k: _Stream()
    torch.cuda.set_device = lambda *a, **k: None
    torch.Tensor.cuda = lambda self, *a, **k: self
    torch.nn.Module.cuda = lambda self, *a, **k: self

    tensor_to, new_tensor = torch.Tensor.to, torch.tensor

    def to(self, *args, **kwargs):  # DataLoaderX: .to(device=<int>, non_blocking=True)
        if isinstance(kwargs.get("device"), int):
            kwargs["device"] = "cpu"
        if args and type(args[0]) is int:
            args = ("cpu", *args[1:])
        return tensor_to(self, *args, **kwargs)

    def tensor(*args, **kwargs):  # sync_random_seed: torch.tensor(seed, device="cuda")
        if str(kwargs.get("device", "")).startswith("cuda"):
            kwargs["device"] = "cpu"
        return new_tensor(*args, **kwargs)

    torch.Tensor.to, torch.tensor = to, tensor

    init = dist.init_process_group

    def init_process_group(backend=None, init_method=None, **kwargs):
        if init_method and os.environ.get("PORT"):
            init_method = "tcp://127.0.0.1:" + os.environ["PORT"]
        return init(backend="gloo", init_method=init_method, **kwargs)

    dist.init_process_group = init_process_group

    ddp = torch.nn.parallel.DistributedDataParallel

    class DistributedDataParallel(ddp):
        def __init__(self, module, device_ids=None, output_device=None, **kwargs):
            super().__init__(module, **kwargs)

    torch.nn.parallel.DistributedDataParallel = DistributedDataParallel

    if os.environ.get("CPU_SCALER"):
        import torch.cuda.amp.grad_scaler as grad_scaler

        class GradScaler(torch.amp.GradScaler):
            def __init__(self, device="cuda", **kwargs):
                super().__init__("cpu", **kwargs)

        torch.amp.GradScaler = torch.amp.grad_scaler.GradScaler = GradScaler
        torch.cuda.amp.GradScaler = grad_scaler.GradScaler = GradScaler


def main() -> None:
    if not torch.cuda.is_available():
        _emulate_cuda()
    os.chdir(HOST)
    sys.path.insert(0, HOST)
    script = os.path.join(HOST, os.environ.get("SCRIPT", "train_v2.py"))
    sys.argv[0] = script
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
