"""``arcface-cakd data renumber``: labels from 0 on without gaps."""

import argparse

from arcface_cakd.cli.data.arguments import add_dataset, add_out, say_what_stays

HELP = "write a record set anew: every image, people numbered from 0 on without gaps"
EXAMPLE = "arcface-cakd data renumber dataset/ renumbered/"


def configure(parser: argparse.ArgumentParser) -> None:
    add_dataset(parser)
    add_out(parser)


def run(args: argparse.Namespace) -> int:
    from arcface_cakd.preparation.renumbering import renumber

    written = renumber(args.dataset, args.out, args.force)
    print(f"{args.out}: {written}; labels.tsv has their former labels")
    say_what_stays(args.dataset)
    return 0
