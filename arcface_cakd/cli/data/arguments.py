"""Arguments and outputs that several actions share."""

import argparse
import json

from arcface_cakd.files import write_text


def add_out(parser: argparse.ArgumentParser) -> None:
    """``OUT``, the folder of a data set that is written, and ``--force``."""
    parser.add_argument("out", metavar="OUT", help="folder to write to")
    parser.add_argument("--force", action="store_true", help="replace a data set in OUT")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", help="write the figures there")


def write_json(path: str | None, figures) -> None:
    """Write figures to where ``--json`` says, if it says so."""
    if path:
        write_text(path, json.dumps(figures, indent=2) + "\n")
