"""How much memory something takes, at the most, in a process of its own."""

import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arcface_cakd.bench.errors import BenchError

MIB = 2**20


def peak_of(function: Callable[..., Any], *args: Any) -> float:
    """MiB that a fresh process has at most while it computes ``function(*args)``, above what it
    had before.

    Args:
        function: of a module, that a new process can import; its modules are imported before.
        args: what pickles.

    Raises:
        BenchError: the process ended without a figure, such as for lack of memory.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, function, args))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        raise BenchError(
            f"{function.__name__}: its process ended with {process.exitcode} and no figure: "
            "is there enough memory?"
        ) from None
    finally:
        process.join()


def forget_peak() -> bool:
    """Let what this process has had at most begin anew, from what it has now.

    Returns:
        whether it does: Linux alone can.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return False
    return True


def _measure(sender: Any, function: Callable[..., Any], args: tuple) -> None:
    import torch

    torch.set_num_threads(1)
    forget_peak()
    before = _peak()
    function(*args)
    sender.send((_peak() - before) / MIB)


def _peak() -> int:
    """Bytes of memory that this process has had at most."""
    # Not getrusage where there is a choice: on Linux its figure begins with the parent's.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
