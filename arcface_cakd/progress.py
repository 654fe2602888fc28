"""Progress of long work: a bar on a terminal, plain log lines elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")
logger = logging.getLogger("arcface_cakd")


def track(
    items: Iterable[T],
    description: str,
    total: int | None = None,
    unit: str = "it",
    every: float = 10.0,
) -> Iterator[T]:
    """Iterate over ``items``, showing how far it is.

    On a terminal this is a tqdm bar on stderr with rate and time left; elsewhere a log line at
    most every ``every`` seconds, so that short work stays silent.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc=description, total=total, unit=unit, leave=False)
        return
    start = said = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - said >= every:
            said = now
            of = f" of {total}" if total else ""
            logger.info(
                "%s: %d%s %s (%.1f %s/s)",
                description,
                done,
                of,
                unit,
                done / (now - start),
                unit,
            )
