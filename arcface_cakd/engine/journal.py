"""What a run says of itself while it goes: log lines, TensorBoard, metrics.jsonl."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arcface_cakd.engine.board import Board
from arcface_cakd.engine.training_bar import TrainingBar
from arcface_cakd.extras import MissingPackageError, extra
from arcface_cakd.files import open_own, write_text

logger = logging.getLogger("arcface_cakd")

METRICS = "metrics.jsonl"
_GROUPS = ("terms", "gradient_norms", "diagnostics", "validation")  # of numbers, in a line


class Journal:
    """The record of a run, kept by rank 0; on other ranks it keeps silent.

    Every log line is also a line of ``metrics.jsonl``: ``step``, ``epoch``; the weighted
    ``loss``, ``margin`` (unless ``cakd.margin_weight`` is 0) and, when distilling, the other
    ``terms`` by name, means over the steps since the last line and over the ranks; ``lr`` of
    the student in that step; ``images_per_second`` of all ranks, ``seconds`` of training since
    the last line, ``seconds_left``; and where they exist ``grad_scale``, ``left_out`` (steps
    of the run so far that were not finite), ``gradient_norms`` on the student by term, and
    ``diagnostics``. A validation is a line with ``step``, ``epoch`` and
    ``validation``, the accuracy by set. Resuming drops the lines after the checkpoint's step,
    which the run is about to write again.

    Args:
        output: folder of the run, made if it is missing.
        total_steps: micro-steps of the whole run.
        start: micro-steps that are done; 0 starts the record anew.
        active: whether this rank keeps it.

    Attributes:
        history: the lines of ``metrics.jsonl`` so far, as dicts.
    """

    def __init__(self, output: str | Path, total_steps: int, start: int, active: bool):
        self.history: list[dict[str, Any]] = []
        self._active = active
        self._total = total_steps
        if not active:
            return
        self._path = Path(output) / METRICS
        kept = _read(self._path, start) if start else []
        self.history = [line for _, line in kept]
        write_text(self._path, "".join(f"{text}\n" for text, _ in kept))
        self._board = _tensorboard(Path(output), start)
        self._bar = TrainingBar(total_steps, start) if sys.stderr.isatty() else None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception) -> None:
        if self._active:
            if self._board is not None:
                self._board.close()
            if self._bar is not None:
                self._bar.close()

    def tick(self) -> None:
        """A micro-step is done."""
        if self._active and self._bar is not None:
            self._bar.tick()

    def log(self, line: dict[str, Any]) -> None:
        """Record a log line; see the class for its keys."""
        if not self._active:
            return
        self._write(line)
        if self._bar is not None:
            self._bar.show(line, terms_of(line))
        else:
            logger.info("%s", describe(line, self._total))

    def log_validation(self, step: int, epoch: int, accuracies: dict[str, float]) -> bool:
        """Record the accuracy on each set, and report the highest so far.

        Returns:
            whether that on the first set is higher than all before it.
        """
        if not self._active or not accuracies:
            return False
        first, accuracy = next(iter(accuracies.items()))
        best = accuracy > self.highest().get(first, -1.0)
        self._write({"step": step, "epoch": epoch, "validation": accuracies})
        highest = self.highest()
        text = ", ".join(f"{k} {v:.4f} (highest {highest[k]:.4f})" for k, v in accuracies.items())
        if self._bar is not None:
            self._bar.say(f"step {step}: accuracy {text}")
        else:
            logger.info("step %d: accuracy %s", step, text)
        return best

    def highest(self) -> dict[str, float]:
        """The best accuracy so far, by set."""
        best: dict[str, float] = {}
        for line in self.history:
            for name, accuracy in line.get("validation", {}).items():
                best[name] = max(accuracy, best.get(name, 0.0))
        return best

    def last_validation(self) -> dict[str, float]:
        """The accuracies of the latest validation, by set."""
        lines = [line["validation"] for line in self.history if "validation" in line]
        return lines[-1] if lines else {}

    def _write(self, line: dict[str, Any]) -> None:
        self.history.append(line)
        try:
            with open_own(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:  # of a write or of closing the file, which know no name
            error.filename = str(self._path)
            raise
        if self._board is not None:
            for name, value in _scalars(line):
                self._board.add(name, value, line["step"])


def _tensorboard(output: Path, start: int) -> Board | None:
    """What records for TensorBoard; None, which a line says, where TensorBoard is not installed."""
    try:
        extra("tensorboard", "tensorboard", "a record for TensorBoard")
    except MissingPackageError as error:
        logger.info("%s; %s has every figure", error, METRICS)
        return None
    return Board(output / "tensorboard", purge_step=start + 1)


def read_history(output: str | Path, last_step: int | None = None) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``, up to and including ``last_step``.

    A missing file has none, and a last line that a kill cut short is left out; so is what else is
    no line with a step, which the log says, and in a line what is no number.
    """
    return [line for _, line in _read(Path(output) / METRICS, last_step)]


def _read(path: Path, last_step: int | None) -> list[tuple[str, dict[str, Any]]]:
    """The lines of the file as they stand there, each with what a ``Journal`` has of it."""
    if not path.is_file():
        return []
    lines, odd = [], []
    texts = path.read_bytes().splitlines()
    for number, text in enumerate(texts, start=1):
        found = _parsed(text)
        if found is None:
            odd.append(number)
        elif last_step is None or found[1]["step"] <= last_step:
            lines.append(found)
    if odd and odd != [len(texts)]:
        more = f", as are {len(odd) - 1} more" if len(odd) > 1 else ""
        logger.warning("%s: line %d is no line of a run's and is left out%s", path, odd[0], more)
    return lines


def _parsed(written: bytes) -> tuple[str, dict[str, Any]] | None:
    """A line of the file, and its numbers in their groups; None where it has no step."""
    try:
        text = written.decode("utf-8")
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or type(line.get("step")) is not int:
        return None
    found: dict[str, Any] = {}
    for key, value in line.items():
        if key in _GROUPS:
            found[key] = _numbers(value) if isinstance(value, dict) else {}
        else:
            found |= _numbers({key: value})
    return text, found


def _numbers(values: dict[str, Any]) -> dict[str, int | float]:
    return {key: value for key, value in values.items() if isinstance(value, int | float)}


def describe(line: dict[str, Any], total_steps: int) -> str:
    """A log line for a person."""
    parts = [f"epoch {line['epoch']}", f"step {line['step']}/{total_steps}"]
    loss = f"loss {line['loss']:.4f}"
    if terms := terms_of(line):
        loss += " (" + " ".join(f"{name} {value:.4f}" for name, value in terms.items()) + ")"
    parts.append(loss)
    parts.append(f"lr {line['lr']:.2e}")
    if "grad_scale" in line:
        parts.append(f"grad scale {line['grad_scale']:g}")
    if line.get("left_out"):
        parts.append(f"{line['left_out']} left out")
    parts += [f"{k} {v:.3f}" for k, v in line.get("diagnostics", {}).items()]
    parts.append(f"{line['images_per_second']:.0f} img/s")
    minutes, seconds = divmod(round(line["seconds_left"]), 60)
    parts.append(f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} left")
    return ", ".join(parts)


def terms_of(line: dict[str, Any]) -> dict[str, float]:
    """What the loss of a distillation is the sum of, by name; nothing of a plain model's."""
    margin = {name: line[name] for name in ("margin",) if name in line}
    return margin | line["terms"] if "terms" in line else {}


def _scalars(line: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in line.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{prefix}{name}/")
        elif f"{prefix}{name}" != "step":
            yield prefix + name, value
