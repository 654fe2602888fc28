"""How alike a teacher's tokens are, and what standardising them does to URFM's target.

    python eval/token_statistics.py cakd_demo --json eval/results/token_statistics.json

Takes the demo's teacher and its lfw faces. Prints the share of the tokens' power that lies in
their common mean, and the effective rank of the teacher's local features h_T, of MSA(h_T) too, and
the share of MSA(h_T)'s power that all faces share, with tokens standardised per place (as URFM
does by default), per channel, and with a LayerNorm per token in their place. Mean and standard
deviation over seeds of the MSA's initial weights; h_T depends on none.
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

    ranks = {}
    for name in ("place", "channel", "layer norm"):
        found = []
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            standardise = "channel" if name == "layer norm" else name
            urfm = URFM(128, (7, 7), teacher.token_dim, teacher.grid, standardise=standardise)
            norm = LayerNormOfTokens() if name == "layer norm" else urfm.teacher_norm
            h, _ = urfm.teacher(norm(features))
            attended, _ = urfm.msa(h)
            shared = attended.mean(0).square().mean() / attended.square().mean()
            found.append((effective_rank(h), effective_rank(attended), float(shared)))
        figures = torch.tensor(found, dtype=torch.float64)
        ranks[name] = {
            figure: {"mean": float(figures[:, i].mean()), "std": float(figures[:, i].std())}
            for i, figure in enumerate(("rank_of_h", "rank_of_attended", "shared_by_all_faces"))
        }
    figures = {
        "faces": FACES,
        "power_in_common_mean": float(common),
        "power_between_images": float(of_image),
        "largest_possible_rank": teacher.token_dim,
        "standardised_by": ranks,
    }
    print(json.dumps(figures, indent=2))
    if args.json:
        write_text(args.json, json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
