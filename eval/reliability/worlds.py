"""Resumes runs on other numbers of ranks, at random, and compares what they end with.

    export PYTHONPATH=$PWD:$PWD/tests OMP_NUM_THREADS=1
    export ARCFACE_TORCH=<insightface>/recognition/arcface_torch   # or only the built-in loop
    python eval/reliability/worlds.py eval/reliability/worlds.json

Runs begin on one rank and go on with 1, 2 or 3 (gloo, never as many as before) with the same
global batch, by ``resume``: with SGD, with AdamW, and in distillation with a loss that shards its
own centres; the network has no BatchNorm, made images, and classes that no number of ranks divides.

- With steps: a number that is drawn between two changes, in the built-in loop also in the middle of
  a step of two micro-steps. A walk is equal where all weights, class centres included, end within
  1e-5 of those of a run that stays on one rank.
- Without steps: the checkpoint of a run that stopped is taken up and written again by each number
  of ranks, and at last by one. A walk is equal where that is the first one, to the bit.

In a patched arcface_torch, steps are whole epochs, as its checkpoints are, and without steps what
it calls before it loads its own files is called alone. It flips images by random numbers of each
process, so that its images are their own mirror images.
"""

import argparse
import dataclasses
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # before the ranks are forked
from helpers.engine_runs import make_faces, mirrored_face, small_cakd, small_config
from helpers.host import HELPERS, patched
from helpers.processes import as_torchrun, run_ranks
from kills import same

from arcface_cakd.arcface_torch.other_ranks import divide_anew
from arcface_cakd.config import TrainConfig
from arcface_cakd.distributed import init_from_env
from arcface_cakd.engine import checkpoint_path, train
from arcface_cakd.engine.builders import build_run
from arcface_cakd.engine.checkpoint import load_checkpoint, save_checkpoint
from arcface_cakd.files import write_text

RANKS = (1, 2, 3)
GLOBAL_BATCH = 6
CLASSES = 7  # and one fewer with images
WITHIN = 1e-5
EPOCHS = 4  # of arcface_torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", type=Path, help="the JSON file")
    parser.add_argument("--walks", type=int, default=12, help="of each kind, built-in loop")
    parser.add_argument("--host-walks", type=int, default=2, help="of each kind, arcface_torch")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(args.seed)
    figures: dict[str, Any] = {"torch": torch.__version__}

    def count(kind: str, found: dict[str, Any]) -> None:
        total = figures.setdefault(kind, {"tried": 0, "equal": 0, "changes": 0, "walks": []})
        total["tried"] += 1
        total["equal"] += found["equal"]
        total["changes"] += len(found["ranks"]) - 1
        if "difference" in found:
            worst = max(total.get("largest difference", 0.0), found["difference"])
            total["largest difference"] = worst
        total["walks"].append(found)
        write_text(args.target, json.dumps(figures, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        study = BuiltIn(Path(folder))
        for number in range(args.walks):
            name = list(study.configs)[number % len(study.configs)]
            count("built-in loop, with steps", study.with_steps(name, draw))
            count("built-in loop, without steps", study.without_steps(name, draw))
        if "ARCFACE_TORCH" not in os.environ:
            return
        host = InHost(Path(folder), Path(os.environ["ARCFACE_TORCH"]))
        for _ in range(args.host_walks):
            count("arcface_torch, with steps", host.with_steps(draw))
            count("arcface_torch, without steps", host.without_steps(draw))


class BuiltIn:
    """Runs of the built-in loop, and what those that stay on one rank end with."""

    def __init__(self, folder: Path):
        self.folder = folder
        faces = make_faces(folder / "faces")
        plain = small_config(
            faces,
            folder / "none",
            network="test_plain",
            num_classes=CLASSES,
            batch_size=GLOBAL_BATCH,
            gradient_acc=2,
            checkpoint_every=1,
        )
        cakd = small_cakd(prompts=None, urfm=None, losses=[{"name": "adadistill"}])
        others = {"adamw": {"optimizer": "adamw", "lr": 0.002}, "adadistill": {"cakd": cakd}}
        self.configs = {"sgd": plain}
        self.configs |= {k: dataclasses.replace(plain, **other) for k, other in others.items()}
        self.ends = {}
        for name in self.configs:
            straight = self._config(name, f"straight_{name}", 1)
            self.steps = train(straight).global_step
            self.ends[name] = weights(straight.folder, 1)

    def with_steps(self, name: str, draw: random.Random) -> dict[str, Any]:
        ends = [*sorted(draw.sample(range(1, self.steps), draw.choice((2, 3)))), self.steps]
        ranks = walk(len(ends), draw)
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        for number, end in zip(ranks, ends, strict=True):
            config = self._config(name, "run", number)
            assert on_ranks(number, trained, self.folder, config, end) == [end] * number
        found = compared(weights(self.folder / "run", ranks[-1]), self.ends[name])
        return {"of": name, "ranks": ranks, "to step": ends, **found}

    def without_steps(self, name: str, draw: random.Random) -> dict[str, Any]:
        step, ranks = draw.randrange(1, self.steps), [*walk(4, draw)]
        if ranks[-1] != 1:
            ranks.append(1)
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        on_ranks(1, trained, self.folder, self._config(name, "run", 1), step)
        first = checkpoint(self.folder / "run")
        for number in ranks[1:]:
            config = self._config(name, "run", number)
            on_ranks(number, taken_up_and_written, self.folder, config)
            assert checkpoint(self.folder / "run", number - 1)["config"]["ranks"] == number
        equal = same(checkpoint(self.folder / "run"), first)
        return {"of": name, "ranks": ranks, "at step": step, "equal": equal}

    def _config(self, name: str, output: str, ranks: int) -> TrainConfig:
        changes = {"output": str(self.folder / output), "batch_size": GLOBAL_BATCH // ranks}
        return dataclasses.replace(self.configs[name], resume="auto", **changes)


class InHost:
    """Runs of a patched arcface_torch, and what one that stays on one rank ends with."""

    def __init__(self, folder: Path, checkout: Path):
        self.folder = folder
        faces = make_faces(folder / "mirrored", face=mirrored_face)
        self.host = patched(
            checkout,
            folder / "arcface_torch",
            rec=faces,
            network="test_plain",
            num_classes=CLASSES,
            num_image=36,
            num_epoch=EPOCHS,
            val_targets=[],
            cakd={
                "teacher": {"network": "swin_mini", "weights": "random"},
                "losses": [{"name": "embedding_l2"}],
            },
        )
        straight = self._run("straight", 1, EPOCHS)
        self.end = weights(straight, 1)

    def with_steps(self, draw: random.Random) -> dict[str, Any]:
        ends = [*sorted(draw.sample(range(1, EPOCHS), 2)), EPOCHS]
        ranks = walk(len(ends), draw)
        output = self.host.folder / "work_dirs" / "run"
        shutil.rmtree(output, ignore_errors=True)
        for number, end in zip(ranks, ends, strict=True):
            self._run("run", number, end)
        found = compared(weights(output, ranks[-1]), self.end)
        return {"ranks": ranks, "to epoch": ends, **found}

    def without_steps(self, draw: random.Random) -> dict[str, Any]:
        ranks = [*walk(5, draw)]
        if ranks[-1] != 1:
            ranks.append(1)
        output = self.folder / "divided"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        shutil.copy(checkpoint_path(self.host.folder / "work_dirs" / "straight"), output)
        first = checkpoint(output)
        for number in ranks[1:]:
            on_ranks(number, divide_anew, self.folder, output, CLASSES)
            rows = [len(checkpoint(output, r)[CENTERS]["weight"]) for r in range(number)]
            assert sum(rows) == CLASSES and max(rows) - min(rows) <= 1
        return {"ranks": ranks, "equal": same(checkpoint(output), first)}

    def _run(self, name: str, ranks: int, end: int) -> Path:
        run = self.host.train(
            name,
            ranks,
            env={
                "STOP_BEFORE_EPOCH": str(end),
                "PYTHONPATH": str(HELPERS.parent),
            },
            before="import helpers.engine_runs  # registers the network",
            batch_size=GLOBAL_BATCH // ranks,
            resume=checkpoint_path(self.host.folder / "work_dirs" / name).is_file(),
        )
        assert run.checkpoint()["epoch"] == end
        return run.output


CENTERS = "state_dict_softmax_fc"


def walk(length: int, draw: random.Random) -> list[int]:
    """Numbers of ranks, the first 1, and no two that follow one another the same."""
    ranks = [1]
    while len(ranks) < length:
        ranks.append(draw.choice([number for number in RANKS if number != ranks[-1]]))
    return ranks


def on_ranks(number: int, work: Callable, folder: Path, *args: Any) -> list:
    """``run_ranks`` in forked processes, which need not import what DDP does: seconds each."""
    return run_ranks(work, number, folder, *args, timeout=300, start_method="fork")


def trained(config: TrainConfig, stop: int) -> int:
    as_torchrun()
    return train(config, stop_after_step=stop).global_step


def taken_up_and_written(config: TrainConfig) -> None:
    """As the loop goes on from a checkpoint and writes one, and no step between."""
    as_torchrun()
    config = dataclasses.replace(config, resume=True)
    run = build_run(config, init_from_env())
    position, meter = load_checkpoint(run, config)
    assert meter is not None
    save_checkpoint(run, config, position, meter)


def checkpoint(output: Path, rank: int = 0) -> dict[str, Any]:
    return torch.load(checkpoint_path(output, rank), weights_only=True)


def weights(output: Path, ranks: int) -> dict[str, torch.Tensor]:
    """What was learned: of the network on rank 0, and all ranks' shares of the centres."""
    contents = [checkpoint(output, number) for number in range(ranks)]
    learned = {**contents[0]["state_dict_backbone"]}
    for name in [name for name in learned if name.endswith(".centers")]:  # of a loss: padded
        shares = [content["state_dict_backbone"][name] for content in contents]
        rows = [len(content[CENTERS]["weight"]) for content in contents]
        learned[name] = torch.cat([share[:n] for share, n in zip(shares, rows, strict=True)])
    learned["class centres"] = torch.cat([content[CENTERS]["weight"] for content in contents])
    return learned


def compared(found: dict, expected: dict) -> dict[str, Any]:
    assert found.keys() == expected.keys()
    difference = max(float((found[name] - expected[name]).abs().max()) for name in expected)
    return {"difference": difference, "equal": difference < WITHIN}


if __name__ == "__main__":
    main()
