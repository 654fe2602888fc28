"""Ends a run of several ranks when one of them is gone, stopped or stuck, and names it.

Without it the others wait in a collective for as long as its backend does, half an hour under
gloo, and say nothing of whom they waited for.
"""

import logging
import os
import threading
import time
from collections.abc import Sequence
from types import TracebackType

import torch.distributed as dist

from arcface_cakd.distributed import DistributedError, barrier, is_lost_peer, rank, world_size
from arcface_cakd.launcher import tell_launcher

logger = logging.getLogger("arcface_cakd")

_LONGEST_PAUSE = 2.0  # seconds between two signs of life


class Signs:
    """When each rank was last heard of, by this process's clock, which begins at 0.

    Args:
        ranks: how many there are.
        seconds: how long one may be silent, or behind.
    """

    def __init__(self, ranks: int, seconds: float):
        self._seconds = seconds
        self._beats, self._steps = [-1] * ranks, [-1] * ranks
        self._heard, self._moved = [0.0] * ranks, [0.0] * ranks

    def hear(self, now: float, beats: Sequence[int], steps: Sequence[int]) -> None:
        """Take each rank's count of signs of life, and the step that it has come to."""
        for number, (beat, step) in enumerate(zip(beats, steps, strict=True)):
            if beat != self._beats[number]:
                self._beats[number], self._heard[number] = beat, now
            if step != self._steps[number]:
                self._steps[number], self._moved[number] = step, now

    def silent(self, now: float, seconds: float | None = None) -> list[int]:
        """The ranks that gave no sign for so long: killed, stopped, or their machine is gone."""
        limit = self._seconds if seconds is None else seconds
        return [number for number, heard in enumerate(self._heard) if now - heard > limit]

    def behind(self, now: float, pause: float) -> list[int]:
        """The ranks that live, as they gave a sign within ``pause`` seconds, and for so long have
        not come to the step where others wait."""
        latest, silent = max(self._steps), self.silent(now, pause)
        return [
            number
            for number, moved in enumerate(self._moved)
            if self._steps[number] < latest and now - moved > self._seconds and number not in silent
        ]


class Watchdog:
    """Gives signs of life while it is entered, and watches for those of the others.

    With one rank it does nothing. To enter it with several is a collective.

    Args:
        seconds: how long a rank may give no sign, or not come to a step that others wait in. Time
            in which this process itself was stopped, as batch systems stop a whole job, does not
            count.
    """

    def __init__(self, seconds: float):
        self._pause = min(seconds / 4, _LONGEST_PAUSE)
        self._seconds = seconds
        self._beat = self._step = 0
        self._clock = self._answered = 0.0
        self._store_gone = False
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Watchdog":
        if world_size() > 1:
            self._signs = Signs(world_size(), self._seconds)
            # There is no public way to a group's store, which outlives any of its ranks under
            # torchrun. A connection of its own: another thread may wait in the group's.
            store = dist.distributed_c10d._get_default_store()
            self._store = store.clone() if hasattr(store, "clone") else store
            self._give_sign()
            barrier()
            # Two, for the one that asks the store waits with it where it gives no answer.
            for work in (self._talk, self._watch):
                self._threads.append(threading.Thread(target=work, daemon=True))
                self._threads[-1].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        silent = []
        if self._threads and error is not None and is_lost_peer(error):
            # Those that still live go on giving signs for as long as this.
            time.sleep(4 * self._pause)
            if self._hears(3 * self._pause):
                silent = self._signs.silent(self._clock, 3 * self._pause)
        self._ended.set()
        for thread in self._threads:
            thread.join(self._pause)
        if silent:
            text = f"{_named(silent)} was killed or lost; the others ended"
            if rank() == _speaker(silent) != 0:
                logger.error("rank %d: %s", rank(), text)
            raise DistributedError(text) from error

    def tick(self) -> None:
        """This rank has come to its next step."""
        self._step += 1

    def _talk(self) -> None:
        while not self._ended.wait(self._pause):
            try:
                self._give_sign()
                self._listen()
            except (RuntimeError, OSError):
                # Who holds the store (rank 0, or torchrun) is gone: its group says so.
                self._store_gone = True
                return

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(self._pause):
            now = time.monotonic()
            self._clock += min(now - before, 2 * self._pause)
            before = now
            if self._store_gone:
                return
            found = self._found()
            if found is not None:
                speaker, text = found
                self._end(speaker, f"{text} for {self._seconds:g} s (rank_timeout)")

    def _found(self) -> tuple[int, str] | None:
        """Who is to say what is wrong, and what."""
        if not self._hears(self._seconds):
            holder = "rank 0, unless it is torchrun"
            return rank(), f"who holds the store of the launch ({holder}) has given no answer"
        silent = self._signs.silent(self._clock)
        behind = self._signs.behind(self._clock, 3 * self._pause)
        if silent:
            return _speaker(silent), f"{_named(silent)} has given no sign of life"
        if behind:
            return _speaker(behind), f"{_named(behind)} has not come to the next step"
        return None

    def _hears(self, seconds: float) -> bool:
        """Whether anything was heard of this rank itself in so many seconds."""
        return not self._store_gone and self._clock - self._answered <= seconds

    def _give_sign(self) -> None:
        self._beat += 1
        self._store.set(_key(rank()), f"{self._beat} {self._step}")

    def _listen(self) -> None:
        said = [self._store.get(_key(number)).split() for number in range(world_size())]
        self._answered = self._clock
        self._signs.hear(self._clock, [int(b) for b, _ in said], [int(s) for _, s in said])

    def _end(self, speaker: int, text: str) -> None:
        """End this process: its main thread waits in a collective, where nothing reaches it."""
        if rank() == speaker:
            logger.error(
                "rank %d: %s: the run ends; resume goes on from its checkpoint", rank(), text
            )
            for handler in logging.getLogger().handlers:
                handler.flush()
        tell_launcher(f"arcface-cakd: error: {text}")
        os._exit(1)


def _speaker(found: list[int]) -> int:
    """The first rank that is not one of those; nobody where all are."""
    return next((number for number in range(world_size()) if number not in found), -1)


def _named(found: list[int]) -> str:
    return "rank " + ", ".join(map(str, found))


def _key(number: int) -> str:
    return f"arcface_cakd/watchdog/{number}"
