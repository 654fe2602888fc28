"""A function over many jobs in several processes or threads, in order."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from multiprocessing import get_context
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Workers:
    """Context whose value maps a function over jobs, in order, in so many processes.

    A pool that breaks, since one of its processes died, raises ``BrokenProcessPool``.

    Args:
        count: processes; 1 works in this one.
        prepare: called once in every process before its first job, with ``arguments``.
        arguments: what it is called with; pickled.
    """

    def __init__(self, count: int, prepare: Callable | None = None, arguments: tuple = ()):
        self._pool = None
        if count > 1:
            # spawn, not fork: the caller may hold threads (PyTorch does).
            self._pool = ProcessPoolExecutor(
                count, get_context("spawn"), _begin, (prepare, arguments)
            )
        elif prepare is not None:
            prepare(*arguments)
        self._ahead = 8 * count

    def __enter__(self) -> Callable[[Callable, Iterable], Iterator]:
        return map if self._pool is None else self._map

    def __exit__(self, *raised) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _map(self, function: Callable, jobs: Iterable) -> Iterator:
        assert self._pool is not None
        return _map_ahead(self._pool, function, jobs, self._ahead)


def map_in_threads(
    function: Callable[[Job], Result], jobs: Iterable[Job], ahead: int = 64
) -> Iterator[Result]:
    """Map a function over jobs, in order, in a thread for each core.

    For what is done outside of Python's lock, such as decoding JPEG.

    Args:
        function: called in the threads.
        jobs: taken in this thread.
        ahead: results that each thread may have waiting.
    """
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        try:
            yield from _map_ahead(pool, function, jobs, ahead * cores)
        finally:
            pool.shutdown(cancel_futures=True)


def _map_ahead(
    pool: Executor, function: Callable[[Job], Result], jobs: Iterable[Job], ahead: int
) -> Iterator[Result]:
    jobs = iter(jobs)
    # Only so many ahead: the pace of who takes the results bounds what waits in memory.
    waiting = deque(pool.submit(function, job) for job in islice(jobs, ahead))
    while waiting:
        yield waiting.popleft().result()
        for job in islice(jobs, 1):
            waiting.append(pool.submit(function, job))


def _begin(prepare: Callable | None, arguments: tuple) -> None:
    # A terminal's Ctrl-C goes to all: this process is told to stop by the one that started it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if prepare is not None:
        prepare(*arguments)
