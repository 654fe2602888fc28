"""``arcface-cakd data inspect``: what a data set holds."""

import argparse

from arcface_cakd.cli.data.arguments import add_json, write_json

HELP = "count images, identities and sizes"
EXAMPLE = "arcface-cakd data inspect dataset/lfw.bin"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="a .rec or .bin file, or a folder")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from arcface_cakd.data.inspection import inspect

    descriptions = inspect(args.path)
    for description in descriptions:
        print(description["path"])
        for name, value in description.items():
            if isinstance(value, dict):
                value = ", ".join(f"{n} of {size}" for size, n in value.items())
            if name != "path" and value is not None:
                print(f"  {name.replace('_', ' ')}: {value}")
    write_json(args.json, descriptions)
    return 0
