"""``arcface-cakd data digest``: digests of a record file that is taken to be whole."""

import argparse
from pathlib import Path

HELP = "write the digests of a .rec file and its index, which verify and training hold them against"
EXAMPLE = "arcface-cakd data digest dataset/train.rec"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rec", metavar="FILE.rec", type=Path)
    parser.add_argument("--force", action="store_true", help="replace digests that are there")


def run(args: argparse.Namespace) -> int:
    from arcface_cakd.data import DataError
    from arcface_cakd.recordio.block_digests import digests_path, write_digests

    if args.rec.suffix != ".rec":
        raise DataError(f"{args.rec}: not a .rec file")
    path = digests_path(args.rec)
    if path.exists() and not args.force:
        raise DataError(
            f"{path}: digests are there: hold the set against them ('arcface-cakd data verify "
            f"{args.rec}'), or replace them with --force"
        )
    write_digests(args.rec)
    print(f"{path}: of {args.rec.name} and its index as they are now")
    return 0
