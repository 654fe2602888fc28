"""``arcface-cakd data index``: the index of a record file, made anew."""

import argparse
from pathlib import Path

HELP = "write the .idx of a .rec file anew, from the records themselves"
EXAMPLE = "arcface-cakd data index dataset/train.rec"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rec", metavar="FILE.rec", type=Path)
    parser.add_argument("--force", action="store_true", help="replace an index that is there")


def run(args: argparse.Namespace) -> int:
    from arcface_cakd.data import DataError
    from arcface_cakd.preparation.indexing import rebuild_index

    idx = args.rec.with_suffix(".idx")
    if args.rec.suffix != ".rec":
        raise DataError(f"{args.rec}: not a .rec file")
    if idx.exists() and not args.force:
        raise DataError(f"{idx}: an index is there: replace it with --force")
    records, by_id = rebuild_index(args.rec, idx)
    kind = "the ids in their headers" if by_id else "their places, for their ids do not tell them"
    print(f"{idx}: {records} records, whose keys are {kind}")
    return 0
