"""``arcface-cakd data import``: a set of another format, once to records."""

import argparse

from arcface_cakd.cli.data.arguments import add_out
from arcface_cakd.cli.without_effect import refuse

HELP = "write a set of another format as records: webdataset tars, parquet, Arrow, LMDB"
EXAMPLE = "arcface-cakd data import ms1mv3/train-*.tar dataset/"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="+",
        help="files in order (.tar, .tar.gz, .parquet, .arrow, .lmdb), or a folder of them",
    )
    add_out(parser)
    parser.add_argument(
        "--image", metavar="NAME", help="column, or suffix in tars, of the images [by its name]"
    )
    parser.add_argument(
        "--label", metavar="NAME", help="column, or suffix in tars, of the labels [cls in tars]"
    )
    parser.add_argument(
        "--labels",
        choices=("auto", "numbers", "names"),
        help="numbers stay as they are, names are numbered as they come [what the first one is]",
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out what is damaged or has no label"
    )


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from arcface_cakd.preparation.importing.formats import open_source, verification_tables

    out = Path(args.out)
    tables = verification_tables(args.sources)
    if tables is not None:
        options = ("image", "label", "labels", "skip_bad")
        refuse(args, options, f"is of a training set, and {args.sources[0]} holds pairs: drop it")
        from arcface_cakd.preparation.importing.arrow_pairs import import_pairs
        from arcface_cakd.preparation.pairing import vacant_bin

        same, different = import_pairs(*tables, vacant_bin(out, args.force))
        print(f"{out}: {same + different} pairs, {same} of one person and {different} of two")
        return 0
    from arcface_cakd.preparation.importing.importing import import_set

    source = open_source(args.sources, args.image, args.label)
    imported = import_set(
        source, out, labels=args.labels or "auto", skip_bad=args.skip_bad, force=args.force
    )
    skipped = f"; {imported.skipped} left out, see left_out.tsv" if imported.skipped else ""
    print(f"{out}: {imported}{skipped}")
    return 0
