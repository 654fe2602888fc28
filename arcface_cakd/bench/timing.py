"""Seconds of several sides of a comparison, taken in turn, and the ratios between them.

A machine is not the same from one minute to the next: other jobs come and go, and clocks change.
So no figure here is a time. Each is a ratio of sides that took turns, round by round, the order
within a round turning too, and it comes with its spread over the rounds.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Ratio:
    """A ratio over the rounds.

    Attributes:
        median: of the rounds.
        low, high: its first and last quartile.
        rounds: the ratio of each round.
    """

    median: float
    low: float
    high: float
    rounds: tuple[float, ...]

    @classmethod
    def of(cls, rounds: list[float]) -> "Ratio":
        """The ratio of these rounds, at least one."""
        low, _, high = (
            statistics.quantiles(rounds, n=4, method="inclusive")
            if len(rounds) > 1
            else [rounds[0]] * 3
        )
        return cls(statistics.median(rounds), low, high, tuple(rounds))


@dataclass(frozen=True)
class Times:
    """Seconds by side, one for each round.

    Attributes:
        seconds: by the name of the side; of all sides as many.
    """

    seconds: dict[str, list[float]]

    def median(self, side: str) -> float:
        """Seconds of a side in the median of the rounds."""
        return statistics.median(self.seconds[side])

    def ratio(self, above: str, *below: str) -> Ratio:
        """A side's seconds over those of another, or over the sum of several."""
        sums = [sum(parts) for parts in zip(*(self.seconds[name] for name in below), strict=True)]
        return Ratio.of([one / sum_ for one, sum_ in zip(self.seconds[above], sums, strict=True)])


def take_turns(
    sides: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = 1,
    clock: Callable[[], float] = time.process_time,
) -> Times:
    """Call every side once in each round, in order and in reverse order by turns.

    Args:
        sides: what is timed, by name.
        rounds: how many are counted.
        warm_up: rounds before them that are not.
        clock: seconds; see ``clock_of``.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(warm_up + rounds):
        order = list(sides)[:: 1 if number % 2 == 0 else -1]
        for name in order:
            begin = clock()
            sides[name]()
            took = clock() - begin
            if number >= warm_up:
                seconds[name].append(took)
    return Times(seconds)


def clock_of(device: torch.device) -> Callable[[], float]:
    """The clock for work on a device, in seconds.

    On a CPU the time that this process had of it, of all its threads together: what else runs
    there does not count, though it still shares caches. On a GPU the time of the wall, once all
    work that was handed over is done.
    """
    if device.type != "cuda":
        return time.process_time

    def done() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return done
