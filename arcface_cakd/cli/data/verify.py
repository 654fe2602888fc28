"""``arcface-cakd data verify``: whether all of a data set can be read."""

import argparse

from arcface_cakd.cli.data.arguments import add_no_labels
from arcface_cakd.cli.figures import add_json, write_json

HELP = "read and decode everything; exit 1 and name what is damaged, if anything is"
EXAMPLE = "arcface-cakd data verify dataset/ --json damage.json"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="a .rec or .bin file, or a folder")
    add_no_labels(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from arcface_cakd.data.damage import verify

    items, damages = verify(args.path, labelled=not args.no_labels)
    for damage in damages:
        place = [damage["path"]]
        place += [f"{name} {damage[name]}" for name in ("key", "byte") if damage[name] is not None]
        print(f"{', '.join(place)}: {damage['problem']}")
    print(f"{args.path}: {items} items read, {len(damages)} damaged")
    write_json(args.json, {"items": items, "damaged": damages})
    return 1 if damages else 0
