"""Arguments and outputs that several actions share."""

import argparse
from pathlib import Path


def add_out(parser: argparse.ArgumentParser) -> None:
    """``OUT``, the folder of a data set that is written, and ``--force``."""
    parser.add_argument("out", metavar="OUT", help="folder to write to")
    parser.add_argument("--force", action="store_true", help="replace a data set in OUT")


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """``DATASET``, the folder of a record set."""
    parser.add_argument("dataset", metavar="DATASET", help="folder of train.rec")


def add_no_labels(parser: argparse.ArgumentParser) -> None:
    """``--no-labels``, for images that train without them (``cakd.margin_weight=0``)."""
    parser.add_argument(
        "--no-labels",
        action="store_true",
        help="take a folder's images, at any depth, for one set: nobody is told apart",
    )


def say_what_stays(folder: str | Path) -> None:
    """Say which verification sets lie in a folder whose records went elsewhere."""
    left = sorted(path.name for path in Path(folder).glob("*.bin"))
    if left:
        print(f"{folder}: {', '.join(left)} stay there: copy what you validate on")
