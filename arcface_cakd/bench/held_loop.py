"""A whole training loop, whoever wrote it, that goes on by one step at a time."""

import multiprocessing
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch

from arcface_cakd.bench.errors import BenchError


class _Left(Exception):
    """Leads out of a loop that nobody waits for any more."""


class HeldLoop:
    """Runs a training loop as it is, in a process of its own that waits before each step.

    So loops that know nothing of each other can take turns, and nothing that one of them sets for
    its process (threads, allocator, random state) is set for another. What the loop does once,
    before its first batch, is done when the constructor returns.

    Args:
        loop: ``loop(turns, *args)`` of a module, which takes a step for each ``next(turns)``, and
            does so without end. A step lasts until the next turn is asked for.
        args: what pickles.
        start_method: of ``multiprocessing``.

    Attributes:
        seconds: of CPU time that the steps took so far, of all threads of the loop's process.

    Raises:
        Exception: what the loop raised, from whichever call it was let on by.
        BenchError: its process is gone.
    """

    def __init__(
        self, loop: Callable[..., object], *args: Any, start_method: str = "spawn"
    ) -> None:
        context: Any = multiprocessing.get_context(start_method)
        self.seconds = 0.0
        self._name = loop.__name__
        self._ended = False
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_hold, args=(theirs, torch.get_num_threads(), loop, args), daemon=True
        )
        self._process.start()
        theirs.close()
        self._wait()

    def step(self) -> None:
        """Let the loop take one step."""
        if self._ended:
            raise RuntimeError("the loop has ended")
        self._pipe.send(True)
        self._wait()

    def close(self) -> None:
        """Leave the loop where it is, in the middle of its training."""
        if not self._ended:
            self._pipe.send(False)
            self._wait()
        self._process.join()

    def _wait(self) -> None:
        try:
            found = self._pipe.recv()
        except EOFError:
            self._process.join()
            found = BenchError(
                f"{self._name}: its process ended with {self._process.exitcode}: is there enough "
                "memory for every loop at once?"
            )
        if isinstance(found, float):
            self.seconds += found
            return
        self._ended = True
        if found is not None:
            raise found


def _hold(
    pipe: Connection, threads: int, loop: Callable[..., object], args: tuple[Any, ...]
) -> None:
    """The loop's process: after each step its seconds; at the end None, or what was raised."""
    torch.set_num_threads(threads)
    sys.stdout = sys.stderr  # what loops say of themselves is no figure

    def turns() -> Iterator[None]:
        took = 0.0
        while True:
            pipe.send(took)
            if not pipe.recv():
                raise _Left
            begin = time.process_time()
            yield
            took = time.process_time() - begin

    try:
        loop(turns(), *args)
    except _Left:
        pipe.send(None)
    except BaseException as error:
        pipe.send(_that_pickles(error))
    else:
        pipe.send(None)


def _that_pickles(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
