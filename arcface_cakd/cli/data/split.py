"""``arcface-cakd data split``: two sets of different people."""

import argparse

from arcface_cakd.cli.data.arguments import add_dataset, add_out, say_what_stays
from arcface_cakd.cli.numbers import finite, positive

HELP = "divide a record set in two, of which no person is in both"
EXAMPLE = "arcface-cakd data split dataset/ train/ held_out/ --fraction 0.1 --seed 1"


def configure(parser: argparse.ArgumentParser) -> None:
    add_dataset(parser)
    add_out(parser)
    parser.add_argument("held_out", metavar="HELD_OUT", help="folder for the people who are drawn")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--fraction", type=finite, metavar="F", help="of the people to draw")
    size.add_argument("--people", type=positive, metavar="N", help="how many people to draw")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the draw [0]")


def run(args: argparse.Namespace) -> int:
    from arcface_cakd.preparation.splitting import split_people

    rest, held_out = split_people(
        args.dataset,
        args.out,
        args.held_out,
        fraction=args.fraction,
        people=args.people,
        seed=args.seed,
        force=args.force,
    )
    print(f"{args.out}: {rest}")
    print(f"{args.held_out}: {held_out}, none of whom is in {args.out}")
    say_what_stays(args.dataset)
    return 0
