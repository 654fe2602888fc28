"""How alike a teacher's tokens are, and what standardising them does to URFM.

    python eval/token_statistics.py cakd_demo --json eval/results/token_statistics.json

Takes the demo's teacher and its lfw faces. Prints the share of the tokens' power that lies in
their common mean, and the effective rank of the teacher's local features h_T at the start of
training, with tokens standardised per channel (as URFM does) and with a LayerNorm per token in
its place; mean and standard deviation over seeds of URFM's initial weights.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import nn

from arcface_cakd.alignment import URFM, effective_rank
from arcface_cakd.backbones import get_model, load_weights
from arcface_cakd.data import as_batch, read_bin
from arcface_cakd.files import write_text

FACES, SEEDS = 64, 5


class LayerNormOfTokens(nn.Module):
    """What stands where URFM standardises, for comparison."""

    def forward(self, features):
        return nn.functional.layer_norm(features.tokens, features.tokens.shape[-1:])


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path, help="output folder of `arcface-cakd demo`")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()

    teacher = get_model("swin_mini", num_features=128).eval()
    load_weights(teacher, args.demo / "teacher" / "model.pt")
    images = read_bin(args.demo / "data" / "lfw.bin").images[:FACES]
    features = teacher.forward_features(as_batch(images))
    tokens = features.tokens.double()
    power = tokens.square().sum(-1).mean()
    common = tokens.mean(dim=(0, 1)).square().sum() / power
    of_image = (tokens - tokens.mean(0)).square().sum(-1).mean() / power

    ranks = {"standardised": [], "layer norm": []}
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        urfm = URFM(128, (7, 7), teacher.token_dim, teacher.grid, dim=64, num_heads=4)
        for name, norm in (
            ("standardised", urfm.teacher_norm),
            ("layer norm", LayerNormOfTokens()),
        ):
            h, _ = urfm.teacher(norm(features))
            ranks[name].append(effective_rank(h))
    figures = {
        "faces": FACES,
        "power_in_common_mean": float(common),
        "power_between_images": float(of_image),
        "largest_possible_rank": urfm.dim,
        "effective_rank_of_h": {
            name: {"mean": float(torch.tensor(r).mean()), "std": float(torch.tensor(r).std())}
            for name, r in ranks.items()
        },
    }
    print(json.dumps(figures, indent=2))
    if args.json:
        write_text(args.json, json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
