"""``arcface-cakd data synthesize``: made faces."""

import argparse
import contextlib
from pathlib import Path

from arcface_cakd.cli.data.arguments import add_out
from arcface_cakd.cli.numbers import finite, positive

HELP = "make a data set of procedural faces: training records and verification sets"
EXAMPLE = (
    "arcface-cakd data synthesize faces --identities 200 \\\n"
    "      --images-per-identity 50 --seed 1"
)


def configure(parser: argparse.ArgumentParser) -> None:
    add_out(parser)
    parser.add_argument("--identities", type=positive, required=True, metavar="N")
    parser.add_argument("--images-per-identity", type=positive, required=True, metavar="M")
    parser.add_argument("--seed", type=int, required=True, metavar="S")
    parser.add_argument(
        "--difficulty", type=finite, default=1.0, metavar="D", help="strength of nuisances [1.0]"
    )
    parser.add_argument(
        "--pairs",
        type=positive,
        default=3000,
        metavar="P",
        help="pairs per verification set [3000]",
    )
    parser.add_argument("--contact-sheet", metavar="FILE.png", help="picture of what was made")


def run(args: argparse.Namespace) -> int:
    from arcface_cakd.preparation.output import check_vacant, whole_set
    from arcface_cakd.synthesis import synthesize

    check_vacant(args.out, args.force)
    # Where no set is there to be replaced, ``synthesize`` itself refuses what is not empty.
    former = any(Path(args.out, name).exists() for name in ("train.rec", "train.idx"))
    with whole_set(args.out, True) if former else contextlib.nullcontext(args.out) as out:
        synthesize(
            out,
            args.identities,
            args.images_per_identity,
            args.seed,
            difficulty=args.difficulty,
            pairs=args.pairs,
            contact_sheet=args.contact_sheet,
        )
    images = args.identities * args.images_per_identity
    print(f"{args.out}: {images} images of {args.identities} identities, and verification sets")
    return 0
