"""``arcface-cakd data shuffle``: the images of a set in another order."""

import argparse

from arcface_cakd.cli.data.arguments import add_dataset, add_out, say_what_stays

HELP = "write a record set in an order drawn from a seed"
EXAMPLE = "arcface-cakd data shuffle dataset/ shuffled_dataset/ --seed 1"


def configure(parser: argparse.ArgumentParser) -> None:
    add_dataset(parser)
    add_out(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the order [0]")


def run(args: argparse.Namespace) -> int:
    from arcface_cakd.preparation.shuffling import shuffle

    print(f"{args.out}: {shuffle(args.dataset, args.out, args.seed, force=args.force)}")
    say_what_stays(args.dataset)
    return 0
