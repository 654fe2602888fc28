"""``arcface-cakd data pairs``: a verification set of a data set's images."""

import argparse

from arcface_cakd.cli.numbers import positive
from arcface_cakd.cli.without_effect import refuse

HELP = "make a .bin verification set: of a list of pairs, or drawn by a seed"
EXAMPLE = "arcface-cakd data pairs held_out/ held_out/mine.bin --pairs 6000 --seed 1"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "dataset", metavar="DATASET", help="folder of train.rec, or of folders of images"
    )
    parser.add_argument("out", metavar="OUT.bin", help="file to write")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument(
        "--pairs",
        type=positive,
        metavar="P",
        help="how many to draw, half of them of one person; no person is in two of ten folds",
    )
    kind.add_argument(
        "--list",
        metavar="FILE",
        help="LFW's pairs.txt, or lines of two images (paths, or keys of records) and 1 or 0",
    )
    parser.add_argument("--seed", type=int, metavar="S", help="of the draw [0]")
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out listed pairs that cannot be made"
    )
    parser.add_argument("--force", action="store_true", help="replace a set that is there")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from arcface_cakd.data.bins import people_file
    from arcface_cakd.preparation.pairing import draw_bin, list_bin

    if args.list is None:
        refuse(args, ("skip_bad",), "is for --list: drop it")
        made = draw_bin(args.dataset, args.out, args.pairs, args.seed or 0, force=args.force)
    else:
        refuse(args, ("seed",), "is of --pairs, which are drawn: drop it")
        made = list_bin(args.dataset, args.out, args.list, skip_bad=args.skip_bad, force=args.force)
    skipped = f"; {len(made.skipped)} left out" if made.skipped else ""
    pairs = made.same + made.different
    print(
        f"{args.out}: {pairs} pairs, {made.same} of one person and {made.different} of two{skipped}"
    )
    if made.people is not None:
        print(f"{people_file(Path(args.out))}: the two people of each pair, {made.people} in all")
    return 0
