"""Kills a rank under ``torchrun --max-restarts``, and looks at what the run comes to.

    export PYTHONPATH=.:tests OMP_NUM_THREADS=1
    python eval/reliability/restarts.py eval/reliability/restarts.json

A small run of two ranks (gloo, made images, 8 micro-steps, a checkpoint every third, dropout and
sampled class centres) is started by torchrun with ``resume="auto"``, as docs/reliability.md has it.
In a step that is drawn a rank that is drawn is killed (SIGKILL), in some trials again after the
first restart; torchrun starts all ranks anew. The run is equal where both ranks' checkpoints, the
``model.pt`` and the log (but for times) are those of a run that was never killed, to the bit.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from helpers.engine_runs import make_faces
from kills import same, what_is_left

from arcface_cakd.engine.builders import Run
from arcface_cakd.files import write_text

RANKS, STEPS = 2, 8
CONFIG = """
import helpers.engine_runs  # registers the network
from easydict import EasyDict as edict
from restarts import kill

kill({kills})
config = edict(
    rec={faces!r}, output={output!r}, network="test_tiny_dropout", embedding_size=16,
    sample_rate=0.5, batch_size=4, num_epoch=2, lr=0.05, margin_list=(1.0, 0.0, 0.2),
    num_workers=0, val_targets=[], frequent=2, checkpoint_every=3, rank_timeout=60.0,
)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", type=Path, help="the JSON file")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    figures: dict[str, Any] = {
        "torch": torch.__version__,
        "tried": 0,
        "restarts": 0,
        "equal": 0,
        "runs": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        faces = make_faces(Path(folder) / "faces", identities=4, images=8)
        straight = Path(folder) / "straight"
        launch(faces, straight, [])
        expected = what_is_left(straight, RANKS)
        for _ in range(args.trials):
            output = Path(folder) / "run"
            shutil.rmtree(output, ignore_errors=True)
            steps = sorted(draw.sample(range(1, STEPS + 1), draw.choice((1, 1, 2))))
            kills = [(draw.randrange(RANKS), step) for step in steps]
            code = launch(faces, output, kills)
            equal = code == 0 and same(what_is_left(output, RANKS), expected)
            figures["tried"] += 1
            figures["restarts"] += len(kills)
            figures["equal"] += equal
            run = {"rank and step": kills, "exit code": code, "equal": equal}
            if code:
                lines = output.with_name("run.log").read_text().splitlines()
                run["said"] = [line for line in lines if "rror" in line or "the run ends" in line]
            figures["runs"].append(run)
            write_text(args.target, json.dumps(figures, indent=1) + "\n")


def launch(faces: Path, output: Path, kills: list[tuple[int, int]]) -> int:
    """torchrun's exit code, of a run that is killed at these ranks and steps, one each start."""
    config = output.with_name(f"{output.name}.py")
    config.write_text(CONFIG.format(faces=str(faces), output=str(output), kills=kills))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(RANKS), "--max-restarts", str(len(kills))),
        *("-m", "arcface_cakd", "train", str(config), "--set", "resume=auto"),
    ]
    with output.with_name(f"{output.name}.log").open("w") as log:
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, "PYTHONPATH": path}
        return subprocess.run(command, stdout=log, stderr=log, env=env).returncode


def kill(kills: list[tuple[int, int]]) -> None:
    """Let this rank end in its step, where it is its turn in this start of all ranks."""
    start = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    due = kills[start : start + 1]
    plain = Run.terms

    def terms(run, *batch):
        step = run.schedule.state_dict()["steps"] + 1  # since the run began
        if (int(os.environ["RANK"]), step) in due:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(run, *batch)

    Run.terms = terms  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
