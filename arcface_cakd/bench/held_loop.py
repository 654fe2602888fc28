"""A whole training loop, whoever wrote it, that goes on by one step at a time."""

import threading
from collections.abc import Callable, Iterator
from typing import Any


class _Left(Exception):
    """Leads out of a loop that nobody waits for any more."""


class HeldLoop:
    """Runs a training loop as it is, in a thread that waits before each step to be let on.

    So loops that know nothing of each other can take turns. What the loop does once, before its
    first batch, is done when the constructor returns.

    Args:
        loop: ``loop(batches)``, which trains on what the iterator ``batches`` yields, without
            end. A step lasts until the next batch is asked for.
        batch: makes the batch of each step.

    Raises:
        Exception: what the loop raised, from whichever call it was let on by.
    """

    def __init__(self, loop: Callable[[Iterator[Any]], object], batch: Callable[[], Any]):
        self._loop, self._batch = loop, batch
        self._goes, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._ends = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._wait()

    def step(self) -> None:
        """Let the loop take one step."""
        if not self._thread.is_alive():
            raise RuntimeError("the loop has ended")
        self._goes.release()
        self._wait()

    def close(self) -> None:
        """Leave the loop where it is, in the middle of its training."""
        self._ends = True
        self._goes.release()
        self._thread.join()
        self._raise()

    def _wait(self) -> None:
        self._waits.acquire()
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _batches(self) -> Iterator[Any]:
        while True:
            self._waits.release()
            self._goes.acquire()
            if self._ends:
                raise _Left
            yield self._batch()

    def _run(self) -> None:
        try:
            self._loop(self._batches())
        except _Left:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._waits.release()
