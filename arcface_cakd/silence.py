"""Converters and runtimes that print and warn, made quiet; what they get wrong is compared."""

import contextlib
import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of converters and runtimes, and without what they print.

    Where it fails, torch's older exporter prints the whole graph on stdout.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), _silent_streams():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _silent_streams() -> Iterator[None]:
    """Nothing on the process's stdout and stderr, past ``sys.stdout`` (C++) and through it."""
    with contextlib.ExitStack() as stack, open(os.devnull, "w", encoding="utf-8") as nowhere:
        for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
            stack.enter_context(_silent(stream, number))
        # Which need not lead there: in notebooks, say.
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


@contextlib.contextmanager
def _silent(stream: TextIO, number: int) -> Iterator[None]:
    try:
        kept = os.dup(number)
    except OSError:  # there is none
        yield
        return
    stream.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    try:
        yield
    finally:
        stream.flush()
        ctypes.CDLL(None).fflush(None)  # what C++ has not written yet
        os.dup2(kept, number)
        os.close(kept)
        os.close(nowhere)
