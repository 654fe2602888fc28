"""``arcface-cakd demo``."""

import argparse
import json
from pathlib import Path

from arcface_cakd.cli.figures import add_json, write_json

HELP = "Show the whole way on made faces: data, teacher, distilled students, evaluation, export."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example: arcface-cakd demo --out cakd_demo"
    parser.add_argument(
        "--out", default="cakd_demo", metavar="DIR", help="folder for everything it makes"
    )
    add_json(parser, "write the figures of the table to a file, too")


def run(args: argparse.Namespace) -> int:
    from arcface_cakd.demo import RESULTS, run_demo

    code = run_demo(args.out)
    write_json(args.json, json.loads(Path(args.out, RESULTS).read_text(encoding="utf-8")))
    return code
