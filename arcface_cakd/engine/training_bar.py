"""How a run shows itself on a terminal."""

import shutil
import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm


class TrainingBar:
    """A bar on the terminal with loss, learning rate and speed; below it the terms of the loss.

    Args:
        total_steps: micro-steps of the whole run.
        start: micro-steps that are done.
    """

    def __init__(self, total_steps: int, start: int):
        self._bar = tqdm(
            total=total_steps, initial=start, desc="train", unit="step", dynamic_ncols=True
        )
        self._terms: tqdm | None = None

    def tick(self) -> None:
        self._bar.update()

    def show(self, line: Mapping[str, Any], terms: Mapping[str, float]) -> None:
        """Show what a log line says.

        Args:
            line: its ``loss``, ``lr`` and ``images_per_second``.
            terms: of the loss, by name; none of a plain model's.
        """
        speed = f"{line['images_per_second']:.0f} img/s"
        self._bar.set_postfix_str(f"loss {line['loss']:.4f}, lr {line['lr']:.2e}, {speed}")
        if not terms:
            return
        if self._terms is None:
            self._terms = tqdm(total=0, position=1, bar_format="{desc}")
        text = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
        # A line that the terminal breaks in two would not be overwritten as a whole.
        self._terms.set_description_str(text[: shutil.get_terminal_size().columns - 1])

    def say(self, text: str) -> None:
        """A line that stays."""
        self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()
        if self._terms is not None:
            self._terms.close()
