"""What may be asked of a run between two steps: to leave, by a signal; a checkpoint, by the clock.

A rank alone cannot act on either, as the others would wait for it in the next collective: all
ranks hear of it after the same step.
"""

import os
import signal
import threading
import time
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from arcface_cakd.distributed import launched, world_size

# SIGUSR1 is what batch systems send ahead of the end of a job's time, where they are told to.
_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
SIGNALS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


@dataclass(frozen=True)
class Asked:
    """What was asked of the run, the same on every rank.

    Attributes:
        leave: the signal that asked it to leave, after a checkpoint; or None.
        checkpoint: a checkpoint, to leave with or because it is time.
    """

    leave: signal.Signals | None = None
    checkpoint: bool = False


class Interrupts:
    """Takes the signals of ``SIGNALS`` while it is entered, and looks at the clock.

    Outside of the main thread, where Python lets nobody take signals, it looks at the clock alone.
    Processes that are forked meanwhile (a loader's workers) ignore the signals: a batch system
    sends them to every process of a job, and the step cannot be finished without the workers.

    Args:
        device: where ranks agree.
        minutes: between checkpoints; None: the clock asks for none.
    """

    def __init__(self, device: torch.device, minutes: float | None = None):
        self._device = device
        self._seconds = None if minutes is None else 60 * minutes
        self._saved_at = time.monotonic()
        self._received = 0
        self._process = os.getpid()
        self._former: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                    self._former[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._former.items():
            # None: it was not Python that had set it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        # Who presses Ctrl-C twice does not want to wait. torchrun sends one of its own besides.
        if number == signal.SIGINT == self._received and not launched():
            raise KeyboardInterrupt
        self._received = self._received or number

    def agreed(self) -> Asked:
        """What was asked of any rank since; a collective."""
        late = self._seconds is not None and time.monotonic() - self._saved_at >= self._seconds
        number, due = self._received, int(late)
        if world_size() > 1:
            asked = torch.tensor([number, due], device=self._device)
            dist.all_reduce(asked, op=dist.ReduceOp.MAX)
            number, due = asked.tolist()
        return Asked(signal.Signals(number) if number else None, bool(number or due))

    def saved(self) -> None:
        """A checkpoint was written: the next is due in so many minutes from now."""
        self._saved_at = time.monotonic()
