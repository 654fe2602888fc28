"""The interval of a figure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A percentile interval, from a set that is drawn again and again.

    Attributes:
        low: its end, and ``high`` the other.
        high: see ``low``.
        level: the share of the draws between them.
        drawn: what was drawn, "people" or "pairs". Pairs leave out what people do to the spread,
            and stand where a set does not say who is on them.
    """

    low: float
    high: float
    level: float
    drawn: str
