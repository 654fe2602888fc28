"""``arcface-cakd data renumber``: labels from 0 on without gaps."""

import argparse
from pathlib import Path

from arcface_cakd.cli.data.arguments import add_out

HELP = "write a record set anew: every image, people numbered from 0 on without gaps"
EXAMPLE = "arcface-cakd data renumber dataset/ renumbered/"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="folder of train.rec")
    add_out(parser)


def run(args: argparse.Namespace) -> int:
    from arcface_cakd.preparation.renumbering import renumber

    images, people = renumber(args.dataset, args.out, args.force)
    print(f"{args.out}: {images} images of {people} people; labels.tsv has their former labels")
    left = sorted(path.name for path in Path(args.dataset).glob("*.bin"))
    if left:
        print(f"{args.dataset}: {', '.join(left)} stay there: copy what you validate on")
    return 0
