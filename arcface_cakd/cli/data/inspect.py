"""``arcface-cakd data inspect``: what a data set holds."""

import argparse

from arcface_cakd.cli.data.arguments import add_no_labels
from arcface_cakd.cli.figures import add_json, write_json

HELP = "count images, identities and sizes; show some"
EXAMPLE = "arcface-cakd data inspect dataset/lfw.bin"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="a .rec or .bin file, or a folder")
    add_no_labels(parser)
    add_json(parser)
    parser.add_argument(
        "--contact-sheet", metavar="FILE.png", help="picture of some people's images, or of pairs"
    )


def run(args: argparse.Namespace) -> int:
    from arcface_cakd.data.contact_sheet import check_sheet, write_contact_sheet
    from arcface_cakd.data.inspection import inspect
    from arcface_cakd.preparation.overview import rows_of

    if args.contact_sheet:
        check_sheet(args.contact_sheet)
    descriptions = inspect(args.path, labelled=not args.no_labels)
    for description in descriptions:
        print(description["path"])
        for name, value in description.items():
            if isinstance(value, dict):
                value = ", ".join(f"{n} of {size}" for size, n in value.items())
            if name != "path" and value is not None:
                print(f"  {name.replace('_', ' ')}: {value}")
    write_json(args.json, descriptions)
    if args.contact_sheet:
        write_contact_sheet(args.contact_sheet, rows_of(args.path, labelled=not args.no_labels))
    return 0
