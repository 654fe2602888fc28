"""Whether URFM's target stays worth learning beside prompts: 300 steps of `demo_cakd`, three seeds.

    arcface-cakd demo
    python eval/study/target_holds.py cakd_demo --json eval/study/target_holds.json

What must hold in every seed, measured on the demo's lfw faces, which no run trains on: the
effective rank of h_T stays above half of its start; L_feat of the student's features of other faces
stays at least 0.9 of what the best constant scores; and what that scores stays above half of its
start. Exits with 1 where one does not hold. `tests/alignment/test_alignment_holds.py` holds a small
stand-in to the same.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from arcface_cakd.alignment import effective_rank
from arcface_cakd.config import load_config
from arcface_cakd.data import as_batch, read_bin
from arcface_cakd.distiller import Distiller
from arcface_cakd.engine import load_distiller, train
from arcface_cakd.files import write_text
from arcface_cakd.losses.urfm_feature_loss import urfm_feature_loss
from arcface_cakd.resources import find_recipe

STEPS, SEEDS, FACES, EPOCHS = 300, (1, 2, 3), 64, 3
# The recipe has no prompts, through which losses could reach the target.
PROMPTED = ["cakd.prompts.num_tokens=4", "cakd.preservation={}", "cakd.lr_scale.prompts=10.0"]


@torch.no_grad()
def measured(distiller: Distiller, images: torch.Tensor) -> dict[str, float]:
    """Figures on held-out faces, standardised by their own statistics as in training."""
    for norm in (distiller.urfm.student_norm, distiller.urfm.teacher_norm):
        norm.train()
    _, _, alignment = distiller.features(images)
    target = alignment.teacher.attended
    student = alignment.student.attended
    constant = target.mean(0, keepdim=True).expand_as(target)
    return {
        "rank_of_h": effective_rank(alignment.teacher.h),
        "constant": urfm_feature_loss(constant, target).item(),
        "feature": urfm_feature_loss(student, target).item(),
        "permuted": urfm_feature_loss(student.roll(1, 0), target).item(),
    }


def held(start: dict[str, float], end: dict[str, float]) -> dict[str, bool]:
    return {
        "rank": end["rank_of_h"] > start["rank_of_h"] / 2,
        "permuted": end["permuted"] >= 0.9 * end["constant"],
        "constant": end["constant"] > start["constant"] / 2,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path, help="output folder of `arcface-cakd demo`")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    target = None if args.json is None else Path(args.json).absolute()
    os.chdir(args.demo.absolute().parent)  # the recipe names its files from there
    settings = [f"num_epoch={EPOCHS}", "val_targets=()", *PROMPTED]
    config = load_config(find_recipe("demo_cakd"), settings)
    images = as_batch(read_bin(f"{config.rec}/lfw.bin").images[:FACES])
    runs = {}
    for seed in SEEDS:
        output = tempfile.mkdtemp(prefix="target_holds_")
        try:
            found = {}
            for steps in (1, STEPS):
                run = replace(config, seed=seed, output=output, resume=steps > 1)
                train(run, stop_after_step=steps)
                found[str(steps)] = measured(load_distiller(run), images)
        finally:
            shutil.rmtree(output)
        runs[str(seed)] = {"after_step": found, "held": held(found["1"], found[str(STEPS)])}
        print(seed, json.dumps(runs[str(seed)]), flush=True)
    if target is not None:
        content = {"recipe": "demo_cakd", "settings": PROMPTED, "runs": runs}
        write_text(target, json.dumps(content, indent=2) + "\n")
    return 0 if all(all(run["held"].values()) for run in runs.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
