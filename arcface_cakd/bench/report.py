"""What a benchmark found, for people and for programs."""

from dataclasses import dataclass, field
from datetime import date
from typing import Any

from arcface_cakd.bench.machine import machine
from arcface_cakd.bench.timing import Ratio, Times


@dataclass
class Report:
    """Figures of one run on one machine.

    Attributes:
        command: what was asked for, as it would be typed.
        settings: sizes of what was measured.
        ratios: by what is compared, ``"ours / theirs"``.
        amounts: other figures, by name with the unit in it.
        seconds: of each side, by round.
        notes: what a reader has to know of these figures, and what was left out and why.
    """

    command: str
    settings: dict[str, Any]
    ratios: dict[str, Ratio] = field(default_factory=dict)
    amounts: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=machine)

    def add_times(self, times: Times, prefix: str = "") -> None:
        """Keep the seconds of sides that took turns."""
        self.seconds |= {f"{prefix}{name}": rounds for name, rounds in times.seconds.items()}

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "command": self.command,
            "date": date.today().isoformat(),
            "machine": self.machine,
            "settings": self.settings,
            "ratios": {
                name: {
                    "median": ratio.median,
                    "quartiles": [ratio.low, ratio.high],
                    "rounds": list(ratio.rounds),
                }
                for name, ratio in self.ratios.items()
            },
            "amounts": self.amounts,
            "seconds": self.seconds,
            "notes": self.notes,
        }

    def __str__(self) -> str:
        """Lines for a terminal: every figure, with quartiles where there are rounds."""
        about = self.machine
        where = about["gpu"] or about["cpu"]
        lines = [
            f"{where}, {about['cores']} core(s), load {about['load']}, {about['threads']} "
            f"thread(s), torch {about['versions']['torch']}"
        ]
        width = max(map(len, (*self.ratios, *self.amounts)), default=0)
        for name, ratio in self.ratios.items():
            spread = f"[{ratio.low:.3f} to {ratio.high:.3f}, {len(ratio.rounds)} rounds]"
            lines.append(f"{name:<{width}}  {ratio.median:8.3f}  {spread}")
        lines += [f"{name:<{width}}  {amount:8.3f}" for name, amount in self.amounts.items()]
        return "\n".join([*lines, *self.notes])
