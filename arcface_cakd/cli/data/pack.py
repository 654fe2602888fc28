"""``arcface-cakd data pack``: a folder of people made a record set."""

import argparse

from arcface_cakd.cli.data.arguments import add_out

HELP = "pack one folder of 112 x 112 images per identity into train.rec, train.idx, property"
EXAMPLE = "arcface-cakd data pack crops/ dataset/"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="one subfolder per identity")
    add_out(parser)
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out files that are no 112 x 112 images"
    )


def run(args: argparse.Namespace) -> int:
    from arcface_cakd.preparation import pack_folder

    packed = pack_folder(args.folder, args.out, force=args.force, skip_bad=args.skip_bad)
    skipped = f"; {len(packed.skipped)} files left out" if packed.skipped else ""
    print(f"{args.out}: {packed.images} images of {packed.identities} identities{skipped}")
    print(f"{args.out}/labels.tsv: the folder of each label")
    return 0
