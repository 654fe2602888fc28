"""``arcface-cakd data templates``: a protocol of the shape of IJB-C's, of one's own faces."""

import argparse

from arcface_cakd.cli.numbers import positive

HELP = "make a set of templates in IJB-C's layout, of folders of people with several images"
EXAMPLE = "arcface-cakd data templates crops/ own_templates/ --seed 1"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="FOLDER", help="one subfolder for each person, 112 x 112 images in it"
    )
    parser.add_argument("out", metavar="OUT", help="folder to write, which is not there yet")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the draw [0]")
    parser.add_argument(
        "--impostors",
        type=positive,
        default=8_000_000,
        metavar="N",
        help="pairs of two people, at most [%(default)s, as in IJB-B]",
    )
    parser.add_argument(
        "--name",
        default="own",
        help="what the tables' names begin with [own]; arcface_torch's scripts read ijbc",
    )


def run(args: argparse.Namespace) -> int:
    from arcface_cakd.preparation.templates import write_templates

    made = write_templates(
        args.folder, args.out, seed=args.seed, impostors=args.impostors, name=args.name
    )
    print(
        f"{args.out}: {made.images} images of {made.people} people in {made.templates} templates, "
        f"{made.probes} of them probes; {made.positives} pairs of one person and "
        f"{made.negatives} of two"
    )
    print(f"arcface-cakd evaluate MODEL --protocol ijb --data {args.out}  # or ijb_1n")
    return 0
