"""Made faces for the study: people who never were, and who is on the pairs.

    python eval/study/made_faces.py study_faces/made
    python eval/study/made_faces.py study_faces/made_confirmation --seed 2
    python eval/study/made_faces.py study_faces/made_5000 --identities 5000 --seed 3

As `arcface-cakd demo` makes them (300 people, 12 pictures of each), with 3,000 pairs a protocol,
and <protocol>_people.tsv, the two people of every pair. The teacher is trained afterwards:
`python eval/study/run.py --data made --teacher`.
"""

import argparse
from pathlib import Path

from arcface_cakd.files import write_text
from arcface_cakd.synthesis import PROTOCOLS, synthesize
from arcface_cakd.synthesis.dataset import heldout_pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--identities", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    synthesize(args.out, args.identities, 12, args.seed, pairs=args.pairs, workers=args.workers)
    for name in PROTOCOLS:
        people = heldout_pairs(name, args.pairs, args.seed)
        lines = [f"{one}\t{other}\n" for one, other in people]
        write_text(args.out / f"{name}_people.tsv", "".join(lines))


if __name__ == "__main__":
    main()
