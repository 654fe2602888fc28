"""``arcface-cakd data merge``: several sets made one."""

import argparse

from arcface_cakd.cli.data.arguments import add_out, say_what_stays

HELP = "make one record set of several"
EXAMPLE = "arcface-cakd data merge first/ second/ merged/"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("datasets", metavar="DATASET", nargs="+", help="folders of train.rec")
    add_out(parser)
    parser.add_argument(
        "--by",
        choices=("names", "offsets"),
        default="names",
        help="names: who has one name in the sets' labels.tsv is one person; offsets: nobody is "
        "in two sets [names]",
    )


def run(args: argparse.Namespace) -> int:
    from arcface_cakd.preparation.merging import merge

    merged = merge(args.datasets, args.out, by=args.by, force=args.force)
    print(f"{args.out}: {merged}; {merged.joined} of them joined from more than one set")
    for folder in args.datasets:
        say_what_stays(folder)
    return 0
