"""Numbers as options of commands take them: types for argparse."""

import argparse
import math

_FEWEST_DRAWS = 100  # of fewer, one or two draws would be an end of a 95 % interval
_MOST_DRAWS = 1_000_000  # more take memory and time, and change no digit that is shown


def at_least_0(text: str) -> int:
    """A whole number of 0 or more, for argparse."""
    return _whole(text, 0)


def positive(text: str) -> int:
    """A whole number of 1 or more, for argparse."""
    return _whole(text, 1)


def at_least_2(text: str) -> int:
    """A whole number of 2 or more, for argparse: BatchNorm has no statistics of one image."""
    return _whole(text, 2)


def _whole(text: str, least: int) -> int:
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"must be {least} or more, got {number}")
    return number


def finite(text: str) -> float:
    """A number that is finite, for argparse."""
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text}")
    return number


def draws(text: str) -> int:
    """How often people are drawn again, for argparse; 0: not at all."""
    number = at_least_0(text)
    if 0 < number < _FEWEST_DRAWS:
        raise argparse.ArgumentTypeError(
            f"must be 0, or {_FEWEST_DRAWS} or more, got {number}: the ends of an interval are the "
            "2.5 % of the draws that are lowest and highest"
        )
    if number > _MOST_DRAWS:
        raise argparse.ArgumentTypeError(f"must be at most {_MOST_DRAWS:,}, got {number}")
    return number
