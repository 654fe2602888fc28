"""``arcface-cakd demo``."""

import argparse

HELP = "Show the whole way on made faces: data, teacher, distilled students, evaluation, export."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example: arcface-cakd demo --out cakd_demo"
    parser.add_argument(
        "--out", default="cakd_demo", metavar="DIR", help="folder for everything it makes"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures of the table here, too")


def run(args: argparse.Namespace) -> int:
    from arcface_cakd.demo import run_demo

    return run_demo(args.out, json_file=args.json)
