"""Averages and speed between two log lines."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from arcface_cakd.distributed import all_reduce_mean


class Meter:
    """Mean of each term since the last reading, summed on the device without waiting for it.

    Attributes:
        left_out: steps of the run so far that were not finite and not learned from.
    """

    def __init__(self, state: dict[str, Any] | None = None):
        self._names: tuple[str, ...] = tuple(state["names"]) if state else ()
        self._sum: Tensor | None = state["sum"] if state else None
        self._count: int = state["count"] if state else 0
        # Checkpoints of before there was such a count have none.
        self.left_out: int = state.get("left_out", 0) if state else 0

    def update(self, names: tuple[str, ...], values: Tensor) -> None:
        """Add one step's terms; starts over where a resumed run has other terms."""
        values = values.detach().double()
        if names != self._names:
            self._names, self._sum, self._count = names, None, 0
        self._sum = values if self._sum is None else self._sum.to(values.device) + values
        self._count += 1

    def leave_out(self) -> None:
        """Count a step that was left out; its terms join no mean."""
        self.left_out += 1

    @property
    def empty(self) -> bool:
        """Whether there was no ``update`` since the last reading."""
        return self._sum is None

    def read(self) -> list[float]:
        """The means over the steps and the ranks; starts over. A collective."""
        if self._sum is None:
            raise RuntimeError("read() needs an update() since the last reading")
        mean = all_reduce_mean(self._sum / self._count)
        self._sum, self._count = None, 0
        return mean.tolist()

    def state_dict(self) -> dict[str, Any]:
        return {
            "names": list(self._names),
            "sum": self._sum,
            "count": self._count,
            "left_out": self.left_out,
        }


class Clock:
    """Speed and time left, over the steps of this process; what is ``paused`` does not count."""

    def __init__(self, images_per_step: int):
        self._images_per_step = images_per_step
        self._since = time.perf_counter()
        self._window = self._steps = 0
        self._seconds = 0.0

    def tick(self) -> None:
        """A step is done."""
        self._window += 1

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """For what is no training: a validation, a checkpoint."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def read(self, steps_left: int) -> dict[str, float]:
        """Of the steps since the last reading: ``images_per_second`` of all ranks together, and
        ``seconds``; and ``seconds_left`` for ``steps_left`` more, at this process's mean pace."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        speed = self._window * self._images_per_step / seconds
        self._steps += self._window
        self._seconds += seconds
        self._window, self._since = 0, time.perf_counter()
        left = steps_left * self._seconds / self._steps
        return {"images_per_second": speed, "seconds": seconds, "seconds_left": left}
