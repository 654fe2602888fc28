"""What a run's folder says of it."""

import itertools
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arcface_cakd.engine import RUN_RECORD, read_history, read_run_record, run_settings
from arcface_cakd.engine.run_record import run_parts
from arcface_cakd.engine.run_settings import changed_settings
from arcface_cakd.evaluation import VerificationResult
from arcface_cakd.files import sha256_of
from arcface_cakd.report.errors import ReportError

logger = logging.getLogger("arcface_cakd")

_FILES_OF_OTHERS = (RUN_RECORD, "model.json")
_WEIGHTS = "model.pt"
SIZES = ("images", "classes")
"""Of the training set, in ``run.json``."""


@dataclass(frozen=True)
class ReportedRun:
    """A run of the built-in loop.

    Attributes:
        name: that tells it from the others on the page.
        folder: its ``output``.
        record: ``run.json``; empty where there is none that can be read.
        history: the lines of ``metrics.jsonl``.
        evaluations: what ``evaluate --json`` wrote into the folder, by the file's stem: each has
            ``protocol`` and ``sets``.
        judged: results on ``.bin`` sets, by set, where the page was asked to judge them.
        digests: the SHA-256 of these sets' files, in hex, by set.
    """

    name: str
    folder: Path
    record: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    evaluations: Mapping[str, Mapping[str, Any]]
    judged: Mapping[str, VerificationResult] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def log_lines(self) -> list[Mapping[str, Any]]:
        """The lines of training, without those of validation."""
        return [line for line in self.history if _is_log_line(line)]

    @property
    def settings(self) -> dict[str, str]:
        """What it was told, by dotted name; without the folder that it wrote to."""
        return run_settings(self.record.get("config", {}))

    @property
    def cost(self) -> dict[str, float]:
        """Of a step: ``images_per_second`` of all ranks, milliseconds an image, minutes in all."""
        lines = [line for line in self.log_lines if "images_per_second" in line]
        seconds = sum(line.get("seconds", 0) for line in lines)
        images = sum(line.get("seconds", 0) * line["images_per_second"] for line in lines)
        if not seconds > 0 or not images > 0:
            return {}
        return {
            "images a second": images / seconds,
            "ms an image": 1000 * seconds / images,
            "minutes": seconds / 60,
        }

    @property
    def notes(self) -> list[str]:
        """What is to be known before the run is compared with another, a sentence each."""
        notes = []
        if not self.record:
            notes.append(f"{self.name} {self.without_record}: what it was told is not known.")
        step = max((line["step"] for line in self.history), default=0)
        steps = self.record.get("steps")
        if isinstance(steps, int) and step < steps:
            notes.append(
                f"The log of {self.name} ends at step {step} of {steps}: it was stopped, or goes "
                "on still."
            )
        parts = run_parts(self.record)
        for then, now in itertools.pairwise(parts):
            changes = changed_settings(_told(then), _told(now))
            notes.append(f"{self.name} went on otherwise after step {now.get('since')}: {changes}.")
        for file in self._of_other_weights():
            notes.append(
                f"{self.name}: the figures of {file}.json are not of the model.pt that is there: "
                "judge it again."
            )
        return notes

    @property
    def without_record(self) -> str:
        """Why there is no ``record``, after the run's name."""
        if not os.path.lexists(self.folder / RUN_RECORD):
            return f"has no {RUN_RECORD} (earlier versions of arcface_cakd wrote none)"
        return f"has a {RUN_RECORD} that is damaged, or of a later version of arcface_cakd"

    def _of_other_weights(self) -> list[str]:
        """The stems of evaluations that say of which weights they are, and not of those here."""
        # Other models' rows name them, and nothing here tells what they should be.
        told = {
            stem: each["model_sha256"]
            for stem, each in self.evaluations.items()
            if each.get("model_sha256") and model_of(each) in (None, _WEIGHTS)
        }
        weights = self.folder / _WEIGHTS
        if not told or not weights.is_file():
            return []
        found = sha256_of(weights)
        return [stem for stem, digest in told.items() if digest != found]

    def last(self, group: str) -> dict[str, float]:
        """The last values of ``diagnostics``, ``terms`` or ``gradient_norms``."""
        found: dict[str, float] = {}
        for line in self.log_lines:
            found |= line.get(group, {})
        return found


def open_runs(folders: Sequence[str | os.PathLike]) -> list[ReportedRun]:
    """The runs in these folders, named by what tells their paths apart.

    Raises:
        ReportError: a folder that is not there, is no run's, or is named twice.
    """
    paths = [Path(os.path.abspath(folder)) for folder in folders]
    for path in paths:
        if paths.count(path) > 1:
            raise ReportError(f"{path} is named twice: name each run once")
    return [_open(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def _open(folder: Path, name: str) -> ReportedRun:
    if not folder.is_dir():
        raise ReportError(f"{folder}: no such folder: name the output folder of a run")
    history = read_history(folder)
    if not any(_is_log_line(line) for line in history):
        raise ReportError(
            f"{folder} holds no run of the built-in loop: its metrics.jsonl is not there or has no "
            "log line yet; name the output folder of a run, config.output"
        )
    record = read_run_record(folder) or {}
    return ReportedRun(name, folder, record, history, _evaluations(folder))


def _is_log_line(line: Mapping[str, Any]) -> bool:
    return "loss" in line or "lr" in line  # a loss that is no number is left out


def _told(part: Mapping[str, Any]) -> dict[str, str]:
    """What a part of a run was told, where it ran, and on how much."""
    sizes = {key: str(part[key]) for key in SIZES if key in part}
    return run_settings(part["config"]) | sizes | run_settings(part["environment"])


def model_of(evaluation: Mapping[str, Any]) -> str | None:
    """The file's name of the model that an evaluation says it judged; None where it says none."""
    model = evaluation.get("model")
    return Path(model).name if isinstance(model, str) else None


def _evaluations(folder: Path) -> dict[str, dict[str, Any]]:
    """What ``evaluate --json`` left in a run's folder."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        if path.name in _FILES_OF_OTHERS:
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            logger.warning("%s cannot be read as JSON and is left out", path)
            continue
        if isinstance(content, dict) and isinstance(content.get("sets"), dict):
            found[path.stem] = content
    return found


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart; what is no UTF-8 in them is escaped."""
    shown = [str(path).encode("utf-8", "backslashreplace").decode() for path in paths]
    split = [Path(path).parts for path in shown]
    for parts in range(1, max(map(len, split)) + 1):
        names = ["/".join(path[-parts:]) for path in split]
        if len(set(names)) == len(names):
            return names
    return shown
