"""Folders that hold what `report` reads of a run, without a run."""

import json
from pathlib import Path

import numpy as np

from arcface_cakd.engine.run_record import RUN_RECORD
from arcface_cakd.evaluation import VerificationResult, verification_metrics

STEP = {"step": 1, "epoch": 0, "loss": 2.0, "lr": 0.1, "images_per_second": 5.0, "seconds": 2.0}


def logged(folder: Path, *lines: dict | bytes) -> Path:
    """A run's folder with nothing but its log."""
    folder.mkdir(parents=True)
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (folder / "metrics.jsonl").write_bytes(b"".join(text + b"\n" for text in texts))
    return folder


def recorded(folder: Path, **record) -> Path:
    """A run's folder with a log and a ``run.json``."""
    content = {"format": 1, "environment": {}, "config": {"lr": 0.1}, **record}
    logged(folder, STEP)
    (folder / RUN_RECORD).write_text(json.dumps(content))
    return folder


def evaluated(folder: Path, file: str, result: dict, name: str = "lfw", **said) -> None:
    """What `evaluate --json` writes into a run's folder."""
    content = {"protocol": "bin", "sets": {name: result}, **said}
    (folder / f"{file}.json").write_text(json.dumps(content))


def verification() -> VerificationResult:
    """Of random embeddings."""
    random = np.random.default_rng(0)
    return verification_metrics(random.normal(size=(80, 8)), random.random(40) < 0.5)
