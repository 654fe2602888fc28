"""``arcface-cakd data dedupe``: images that are there twice."""

import argparse
from pathlib import Path

from arcface_cakd.cli.data.arguments import add_dataset
from arcface_cakd.cli.numbers import at_least_0, finite, positive
from arcface_cakd.cli.without_effect import refuse

HELP = "find images that are there twice, and write the set without them"
EXAMPLE = "arcface-cakd data dedupe dataset/ deduplicated/"


def configure(parser: argparse.ArgumentParser) -> None:
    add_dataset(parser)
    parser.add_argument(
        "out", metavar="OUT", nargs="?", help="folder to write to; without it, only look"
    )
    parser.add_argument("--force", action="store_true", help="replace a data set in OUT")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--bits",
        type=at_least_0,
        default=16,
        metavar="B",
        help="how many of 256 bits of a perceptual hash may differ, at most 24 [16]",
    )
    how.add_argument("--exact", action="store_true", help="only images of equal pixels")
    how.add_argument(
        "--model", metavar="MODEL", help="a model.pt or .onnx file, whose embeddings decide instead"
    )
    parser.add_argument("--network", metavar="NAME", help="of a model.pt, where it does not say so")
    parser.add_argument("--embedding-size", type=positive, metavar="E", help="of a model.pt")
    parser.add_argument("--device", help="cpu, cuda, cuda:1; default: cuda where there is one")
    parser.add_argument(
        "--cosine",
        type=finite,
        metavar="C",
        help="from which on embeddings are of nearly the same image [0.95]",
    )
    parser.add_argument(
        "--conflicts",
        choices=("keep", "first", "drop"),
        default="keep",
        help="of the same image under two people: keep both, leave out all but the first, or all",
    )
    parser.add_argument("--report", metavar="FILE.tsv", help="write what is alike there, too")
    parser.set_defaults(pixels=None)


def run(args: argparse.Namespace) -> int:
    from arcface_cakd.preparation.deduplication import REPORT, deduplicate

    if args.model is None:
        options = ("cosine", "network", "embedding_size", "device")
        refuse(args, options, "is for --model: say --model, or drop it")
    if args.out is None:
        refuse(args, ("force",), "replaces a data set in OUT: say OUT, or drop it")
    if args.report is not None:
        _check_report(Path(args.report))
    embed, device = _embedder(args)
    found = deduplicate(
        args.dataset,
        args.out,
        bits=None if args.exact else args.bits,
        embed=embed,
        cosine=0.95 if args.cosine is None else args.cosine,
        device=device,
        conflicts=args.conflicts,
        report=args.report,
        force=args.force,
    )
    left_out = found.same + found.near + found.conflicting
    print(f"{args.out or args.dataset}: {found}{'' if args.out else ' would be left'}")
    print(f"  {found.same} images have the pixels of another of the same person")
    print(f"  {found.near} images are nearly the same as another of the same person")
    print(f"  {found.conflicts} couples of images are the same or nearly, and of two people")
    if found.gone:
        print(f"  {found.gone} people have no image left")
    where = args.report or (f"{args.out}/{REPORT}" if args.out else "--report FILE.tsv")
    print(f"  {left_out} left out; each is named in {where}")
    return 0


def _check_report(path: Path) -> None:
    """Refuse, before any work, to write the report over what is none."""
    from arcface_cakd.data.errors import DataError
    from arcface_cakd.preparation.deduplication import COLUMNS

    heading = ("\t".join(COLUMNS) + "\n").encode()
    if path.is_dir():
        raise DataError(f"--report {path}: a folder: name a file in it")
    if path.exists():
        with open(path, "rb") as file:
            start = file.read(len(heading))
        if start not in (b"", heading):
            raise DataError(
                f"--report {path}: is there, is no such report, and would be replaced: name "
                "another file"
            )


def _embedder(args: argparse.Namespace):
    """What embeds images, None where hashes decide; and where embeddings are compared."""
    if args.model is None:
        return None, "cpu"
    from arcface_cakd.cli.evaluate import open_model
    from arcface_cakd.evaluation import embed

    backbone, _, device = open_model(args)
    return (lambda images: embed(backbone, images, device=device)), str(device or "cpu")
