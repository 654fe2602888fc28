"""Measure what short spins of torch's threads are worth where another program wants a core.

    python eval/shared_threads.py --rounds 3 --json eval/benchmarks/shared_threads.json

Processes take turns, with long spins, short ones and one thread, with nothing beside them and
beside one busy process; each trains r10_narrow from swin_mini, 32 images a step, for some seconds.
Images a second are of the wall, as it is waiting that is measured: on a machine where anything
else runs, stop that first.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from arcface_cakd.bench.machine import machine
from arcface_cakd.engine.threads import CHOSEN_BY as THREADS_CHOSEN_BY
from arcface_cakd.files import write_text
from arcface_cakd.openmp import CHOSEN_BY, FEW_SPINS

SIDES = {
    "long spins": {},
    "short spins": {"GOMP_SPINCOUNT": FEW_SPINS},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
CHOSEN = {*CHOSEN_BY, *THREADS_CHOSEN_BY}
BATCH = 32


def images_per_second(seconds: float) -> dict[str, float]:
    """Train in this process; images/s of the wall, and the CPU's milliseconds for an image."""
    import torch

    from arcface_cakd.backbones import get_model

    torch.manual_seed(0)
    student, teacher = get_model("r10_narrow").train(), get_model("swin_mini").eval()
    images = torch.randn(BATCH, 3, 112, 112)

    def step() -> None:
        with torch.no_grad():
            target = teacher(images)
        student.zero_grad()
        (student(images) - target).square().mean().backward()

    step()
    start, used, steps = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        step()
        steps += 1
    count = steps * BATCH
    return {
        "images/s": count / (time.perf_counter() - start),
        "CPU ms": (time.process_time() - used) / count * 1000,
    }


def measured(side: str, seconds: float) -> dict[str, float]:
    kept = {k: v for k, v in os.environ.items() if k not in CHOSEN}
    command = [sys.executable, __file__, "--train", str(seconds)]
    done = subprocess.run(
        command, env=kept | SIDES[side], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=7.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--train", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        print(json.dumps(images_per_second(args.train)))
        return
    alone = machine()
    rounds: dict[str, dict[str, list[dict[str, float]]]] = {}
    for beside in ("nothing", "a busy process"):
        busy = None
        if beside != "nothing":
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            taken = rounds.setdefault(beside, {side: [] for side in SIDES})
            for turn in range(args.rounds):
                for side in list(SIDES)[:: 1 if turn % 2 == 0 else -1]:
                    taken[side].append(measured(side, args.seconds))
        finally:
            if busy:
                busy.kill()
    for beside, taken in rounds.items():
        for side, each in taken.items():
            speed, cpu = (statistics.median(r[k] for r in each) for k in ("images/s", "CPU ms"))
            print(f"beside {beside}: {side}: {speed:.1f} images/s, {cpu:.1f} CPU ms an image")
    if args.json:
        report = {
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.date.today().isoformat(),
            "machine": alone,
            "rounds": rounds,
        }
        write_text(args.json, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
