"""Kills, damaged files and signals: how many runs go on as if nothing had happened.

    export PYTHONPATH=.:tests OMP_NUM_THREADS=1
    python eval/reliability/kills.py eval/reliability/kills.json

A small run (made images, 12 micro-steps, a checkpoint every third, dropout and sampled class
centres, so that random numbers count) is

- killed (SIGKILL) at an event drawn from all those that it has: before and after each step, in and
  around each write, link, rename and removal of a file; up to three times in a row;
- damaged after a kill: its newest checkpoint is cut anywhere, or one bit of it is flipped;
- sent SIGTERM, SIGINT, SIGUSR1 or SIGHUP in a step that is drawn.

Each time it goes on by ``resume="auto"``, and is equal where its last checkpoint, its ``model.pt``
and its log (but for times) are those of a run that never stopped, to the bit. The JSON says for
each kind how many were tried and equal, and for signals also how many ended with the signal's exit
code and a checkpoint.
"""

import argparse
import dataclasses
import json
import os
import random
import shutil
import signal
import tempfile
from pathlib import Path

import torch
from helpers.engine_runs import make_faces, small_config
from helpers.faults import events_of, flip, forked, killed_at, truncate

from arcface_cakd.config import TrainConfig
from arcface_cakd.engine import RunStoppedError, checkpoint_path, read_history, train
from arcface_cakd.engine.builders import Run
from arcface_cakd.files import write_text

TIMES = ("images_per_second", "seconds", "seconds_left")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", type=Path, help="the JSON file")
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--damages", type=int, default=100)
    parser.add_argument("--signals", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for number in SIGNALS:  # nohup and a shell's & have some ignored, and so would the runs
        signal.signal(number, signal.SIG_DFL)
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), random.Random(args.seed))
        figures = {
            "torch": torch.__version__,
            "events": len(study.events),
            "signal": {"tried": 0, "saved": 0, "equal": 0},
            **{kind: {"tried": 0, "equal": 0} for kind in ("kill", "truncate", "flip")},
            "unequal": [],
        }
        kinds = ["signal"] * args.signals + ["kill"] * args.kills
        kinds += [kind for _ in range(args.damages) for kind in ("truncate", "flip")]
        study.draw.shuffle(kinds)  # so that a run that is cut short says something of each
        for number, kind in enumerate(kinds):
            found = study.trial(kind)
            figures[kind]["tried"] += 1
            for name in found.keys() & figures[kind].keys():
                figures[kind][name] += bool(found[name])
            if not found["equal"]:
                figures["unequal"].append({"trial": number, "kind": kind, **found})
            if number % 10 == 9 or number == len(kinds) - 1:
                write_text(args.target, json.dumps(figures, indent=2) + "\n")


class Study:
    """The run, its events, and what it leaves where nothing happens to it."""

    def __init__(self, folder: Path, draw: random.Random):
        self.folder, self.draw = folder, draw
        faces = make_faces(folder / "faces", identities=4, images=4)
        self.config = small_config(
            faces,
            folder / "straight",
            network="test_tiny_dropout",
            sample_rate=0.5,
            num_epoch=3,
            checkpoint_every=3,
            frequent=2,
            resume="auto",
        )
        train(dataclasses.replace(self.config, output=str(folder / "warm")))  # imports what it does
        self.events = events_of(lambda: train(self.config), folder / "events")
        self.expected = what_is_left(self.config.folder)
        self.steps = self.expected["checkpoints"][0]["global_step"]

    def trial(self, kind: str) -> dict:
        """One run with a fault of that kind, and whether it came out equal."""
        output = self.folder / "run"
        shutil.rmtree(output, ignore_errors=True)
        config = dataclasses.replace(self.config, output=str(output))
        found: dict = {}
        if kind == "signal":
            found = self._signalled(config)
        else:
            found["events"] = []
            for _ in range(self.draw.choice((1, 1, 2, 3)) if kind == "kill" else 1):
                number = self.draw.randrange(len(self.events))
                found["events"].append(number)
                killed_at(number, lambda: train(config))
            newest = checkpoint_path(output)
            former = list(output.glob("checkpoints/step_*/checkpoint_gpu_0.pt"))
            if kind != "kill" and newest.is_file() and former:
                # A former one may be the same file under another name.
                shutil.copy(newest, output / "own.pt")
                os.replace(output / "own.pt", newest)
                (truncate if kind == "truncate" else flip)(newest, self.draw)
        log = self.folder / "said"
        log.unlink(missing_ok=True)
        code = forked(lambda: train(config), log)
        found["equal"] = code == 0 and same(what_is_left(config.folder), self.expected)
        if code != 0:
            found["said"] = log.read_text().splitlines()[-1:]
        return found

    def _signalled(self, config: TrainConfig) -> dict:
        number = self.draw.choice(SIGNALS)
        step = self.draw.randrange(1, self.steps)

        def work():
            plain, calls = Run.terms, []

            def terms(run, *batch):
                calls.append(1)
                if len(calls) == step:
                    os.kill(os.getpid(), number)
                return plain(run, *batch)

            Run.terms = terms
            try:
                train(config)
            except RunStoppedError as stopped:
                os._exit(stopped.exit_code)

        code = forked(work)
        path = checkpoint_path(config.output)
        kept = torch.load(path, weights_only=True)["global_step"] if path.is_file() else None
        saved = code == 128 + number and kept is not None and kept >= 1
        return {"signal": number.name, "step": step, "kept": kept, "saved": saved}


def what_is_left(output: Path, ranks: int = 1) -> dict:
    """What a run left, but for times."""
    paths = [checkpoint_path(output, number) for number in range(ranks)]
    lines = [{k: v for k, v in line.items() if k not in TIMES} for line in read_history(output)]
    return {
        "checkpoints": [torch.load(path, weights_only=True) for path in paths],
        "model": torch.load(output / "model.pt", weights_only=True),
        "history": lines,
    }


def same(left, right) -> bool:
    """Whether nests of dicts, lists, tensors and numbers are equal to the bit."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


if __name__ == "__main__":
    main()
