"""TensorBoard's file, which a run does without where it cannot be written."""

import logging
import threading
from pathlib import Path

logger = logging.getLogger("arcface_cakd")


class Board:
    """Scalars for TensorBoard. When they cannot be written any more, one warning says so.

    Args:
        folder: where the file goes.
        purge_step: what a former run wrote from this step on is not shown.
    """

    def __init__(self, folder: Path, purge_step: int):
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        # A thread of TensorBoard's writes, and would print the traceback of what befalls it.
        self._former_hook, threading.excepthook = threading.excepthook, self._in_a_thread
        try:
            self._writer: SummaryWriter | None = SummaryWriter(str(folder), purge_step=purge_step)
        except OSError as error:
            self._lose(error)

    def add(self, name: str, value: float, step: int) -> None:
        """Record a scalar."""
        if self._writer is None:
            return
        try:
            self._writer.add_scalar(name, value, step)
        except OSError as error:
            self._lose(error)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                self._lose(error)
        threading.excepthook = self._former_hook

    def _lose(self, error: OSError) -> None:
        self._writer = None
        logger.warning(
            "%s: TensorBoard gets no more figures (%s); metrics.jsonl has them all",
            self._folder,
            error.strerror or error,
        )

    def _in_a_thread(self, args) -> None:
        theirs = type(args.thread).__module__.startswith("tensorboard")
        if not (theirs and isinstance(args.exc_value, OSError)):  # else `add` gets it
            self._former_hook(args)
