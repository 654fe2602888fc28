"""What a teacher's cache gains: CPU seconds of a training step with it, and without.

    python eval/cache_step.py --json eval/results/cache_step.json

For each student, teacher and method, one run of the built-in loop is built on a few made faces,
and its cache is made. Then steps are taken from one batch, forward and backward, with what the
cache says of the images and without in turn, so that what else the machine does meets both
alike; the seconds are those of this process on the CPU (one thread), not of the clock. The median
of each side's steps is the result. Reading the cache, which is next to nothing, is counted;
decoding, the optimiser, validation and logging, the same for both, are not. Weights are random:
they cost what trained ones cost.

methods: ``embedding`` (embedding_cosine alone), ``urfm`` (URFM with anchoring, no prompts) and
``prompts`` (the same with APT, where the prompted teacher still runs).
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch
from item_path import cpu_name

from arcface_cakd.backbones import get_model
from arcface_cakd.config import CakdConfig, TrainConfig
from arcface_cakd.data.draws import epoch_order
from arcface_cakd.engine.builders import Run, build_run
from arcface_cakd.files import write_text
from arcface_cakd.losses.base import total
from arcface_cakd.synthesis import synthesize
from arcface_cakd.teacher_cache import TeacherCache, open_cache

STUDENTS = ("r10_narrow", "mbf")
TEACHERS = ("swin_mini", "swin_s")
METHODS = {
    "embedding": {"prompts": None, "urfm": None, "losses": [{"name": "embedding_cosine"}]},
    "urfm": {"prompts": None},
    "prompts": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=8, help="images of a step (8)")
    parser.add_argument("--rounds", type=int, default=3, help="steps of each side (3)")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(1)

    cells = []
    with tempfile.TemporaryDirectory() as folder:
        faces = Path(folder) / "faces"
        synthesize(faces, 2, args.batch_size // 2, seed=1, pairs=20, workers=1)
        for teacher in TEACHERS:
            weights = Path(folder) / f"{teacher}.pt"
            torch.manual_seed(0)
            torch.save(get_model(teacher, num_features=512).state_dict(), weights)
            for student in STUDENTS:
                for method in METHODS:
                    run, cache = build(faces, weights, student, teacher, method, args.batch_size)
                    without, with_it = measure(run, cache, args.rounds)
                    cell = {
                        "student": student,
                        "teacher": teacher,
                        "method": method,
                        "seconds_without": statistics.median(without),
                        "seconds_with": statistics.median(with_it),
                        "ratio": statistics.median(without) / statistics.median(with_it),
                        "steps": {"without": without, "with": with_it},
                    }
                    cells.append(cell)
                    print(
                        f"{student} from {teacher}, {method}: {cell['seconds_without']:.2f} s "
                        f"without, {cell['seconds_with']:.2f} s with the cache",
                        flush=True,
                    )
    if args.json:
        report = {
            "command": "python eval/cache_step.py --json eval/results/cache_step.json",
            "date": date.today().isoformat(),
            "cpu": cpu_name(),
            "threads": 1,
            "conditions": "2 cores shared with other jobs; CPU time, steps of both sides in turn",
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "batch_size": args.batch_size,
            "rounds": args.rounds,
            "cells": cells,
        }
        write_text(args.json, json.dumps(report, indent=2) + "\n")


def build(
    faces: Path, weights: Path, student: str, teacher: str, method: str, batch_size: int
) -> tuple[Run, TeacherCache]:
    """A run of one batch an epoch, and its cache; runs with one teacher share a folder."""
    settings = {"network": teacher, "weights": str(weights)}
    cache = {"cache": str(weights.with_suffix(""))}
    run = build_run(
        TrainConfig(
            rec=str(faces),
            network=student,
            batch_size=batch_size,
            num_workers=0,
            cakd=CakdConfig.from_entry({"teacher": settings | cache, **METHODS[method]}),
        ),
        torch.device("cpu"),
    )
    opened = open_cache(run.model, run.loader.views, batch_size=batch_size, num_workers=0)
    assert opened is not None
    return run, opened


def measure(run: Run, cache: TeacherCache, rounds: int) -> tuple[list[float], list[float]]:
    """CPU seconds of each step without and with the cache; the first of each is not counted."""
    images, labels = next(iter(run.loader))
    images = images.to(memory_format=run.memory_format)
    views = run.loader.views
    positions = epoch_order(views.images.keys, views.seed, epoch=0)[: len(labels)]
    flips = views.flips(positions, epoch=0)

    def known() -> dict[str, torch.Tensor]:
        rows = cache.read(positions, flips, 0)
        return {name: torch.from_numpy(array) for name, array in rows.items()}

    def step(read: Callable[[], dict[str, torch.Tensor]] | None) -> float:
        begin = time.process_time()
        terms = run.terms(images, labels, None, None if read is None else read())
        total(terms.values()).backward()
        run.optimizer.zero_grad()
        return time.process_time() - begin

    seconds = np.array([[step(read) for read in (None, known)] for _ in range(1 + rounds)])
    without, with_it = seconds[1:].T.tolist()
    return without, with_it


if __name__ == "__main__":
    main()
