"""What a run's folder says of it."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcface_cakd.engine import read_history, read_run_record, run_settings
from arcface_cakd.evaluation import VerificationResult
from arcface_cakd.report.errors import ReportError

logger = logging.getLogger("arcface_cakd")

_FILES_OF_OTHERS = ("run.json", "model.json")


@dataclass(frozen=True)
class ReportedRun:
    """A run of the built-in loop.

    Attributes:
        name: that tells it from the others on the page.
        folder: its ``output``.
        record: ``run.json``; empty for runs of versions that wrote none.
        history: the lines of ``metrics.jsonl``.
        evaluations: what ``evaluate --json`` wrote into the folder, by the file's stem: each has
            ``protocol`` and ``sets``.
        judged: results on ``.bin`` sets, by set, where the page was asked to judge them.
    """

    name: str
    folder: Path
    record: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    evaluations: Mapping[str, Mapping[str, Any]]
    judged: Mapping[str, VerificationResult]

    @property
    def log_lines(self) -> list[Mapping[str, Any]]:
        """The lines of training, without those of validation."""
        return [line for line in self.history if "loss" in line]

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
    if not any("loss" in line for line in history):
        raise ReportError(
            f"{folder} holds no run of the built-in loop: its metrics.jsonl is not there or has no "
            "log line yet; name the output folder of a run, config.output"
        )
    record = read_run_record(folder) or {}
    if not record:
        logger.warning(
            "%s has no run.json, which earlier versions did not write: its settings are not shown",
            folder,
        )
    return ReportedRun(name, folder, record, history, _evaluations(folder), {})


def _evaluations(folder: Path) -> dict[str, dict[str, Any]]:
    """What ``evaluate --json`` left in a run's folder."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        if path.name in _FILES_OF_OTHERS:
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            logger.warning("%s is no JSON and is left out", path)
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
