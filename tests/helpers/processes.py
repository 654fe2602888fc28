"""Several ranks on one machine, for tests."""

import datetime
import os
import tempfile
import time
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.multiprocessing.spawn import ProcessException


class RankFailed(AssertionError):
    """A rank raised; the text is its traceback."""


def run_ranks(function, world_size, tmp_path, *args, timeout=120, start_method="forkserver"):
    """Run ``function(*args)`` on every rank of a gloo group; what each rank returned, in order.

    Args:
        function: a module-level function of the test module, as new processes import it.
        world_size: number of processes.
        tmp_path: folder for the file:// store and the results.
        args: what pickles.
        timeout: seconds after which the ranks are killed and the test fails.
        start_method: "fork" where many runs share what this process has imported.

    Raises:
        RankFailed: with the traceback of the rank that failed first.
        TimeoutError: the ranks did not finish in time.
    """
    context, folder = _started(function, world_size, tmp_path, args, timeout, start_method)
    deadline = time.monotonic() + timeout
    try:
        while not context.join(timeout=max(0.0, deadline - time.monotonic())):
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{function.__name__}: {world_size} ranks took over {timeout} s")
    except ProcessException as error:
        # The cause comes first; its peers fail after it, when their connections break.
        causes = sorted(folder.glob("*.error"), key=lambda path: path.stat().st_mtime_ns)
        message = causes[0].read_text(encoding="utf-8") if causes else str(error)
        raise RankFailed(message) from None
    finally:
        _kill_all(context)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world_size)]


def exit_codes(function, world_size, tmp_path, *args, timeout=120):
    """``run_ranks`` where ranks may die and the others are left alone; each one's exit code.

    None for one that has not ended after ``timeout`` seconds.
    """
    context, _ = _started(function, world_size, tmp_path, args, timeout)
    deadline = time.monotonic() + timeout
    try:
        for process in context.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        return [process.exitcode for process in context.processes]
    finally:
        _kill_all(context)


def _started(function, world_size, tmp_path, args, timeout, start_method="forkserver"):
    """The processes of the ranks, and the folder that they write to."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path, prefix="ranks_"))
    given = (function, world_size, folder, timeout, args)
    return started(_run_rank, world_size, *given, start_method=start_method), folder


def started(function, number, *args, start_method="forkserver"):
    """Processes that run ``function(rank, *args)``, and no group yet."""
    # The server imports torch once and its children start from there; and torch._dynamo, which
    # the first optimiser or DistributedDataParallel of a process would spend seconds on. Not with
    # older torch: under 2.6 the children of a server that has imported it hang.
    preloaded = ["torch", "torch._dynamo"] if torch.__version__ >= "2.14" else ["torch"]
    mp.get_context("forkserver").set_forkserver_preload(preloaded)
    return mp.start_processes(function, args, nprocs=number, join=False, start_method=start_method)


def _kill_all(context):
    for process in context.processes:
        if process.is_alive():
            process.kill()


def as_torchrun():
    """The rest of what torchrun sets, for a group that has met already."""
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT="1")


def _run_rank(rank, function, world_size, folder, timeout, args):
    torch.set_num_threads(1)
    # What torchrun would set, less the address: the group meets at a file.
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank))
    dist.init_process_group(
        "gloo",
        init_method=(folder / "store").as_uri(),
        rank=rank,
        world_size=world_size,
        timeout=datetime.timedelta(seconds=timeout),
    )
    try:
        result = function(*args)
    except BaseException:
        cause = f"rank {rank} of {world_size}:\n{traceback.format_exc()}"
        (folder / f"{rank}.error").write_text(cause, encoding="utf-8")
        raise
    # The group ends with the process: in torch 2.6 its own end may hang, see process_group.
    torch.save(result, folder / f"{rank}.pt")
