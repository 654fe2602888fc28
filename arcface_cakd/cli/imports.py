"""``--import MODULE``: modules of the user's that register networks, losses or protocols."""

import argparse
import importlib
import os
import sys

from arcface_cakd.errors import ArcfaceCakdError

# Behind the program's name, a command's and an action's: under one name of the namespace the
# later ones would forget the earlier.
PLACES = ("import_first", "import_in_command", "import_in_action")


def add_import(parser: argparse.ArgumentParser, place: str) -> None:
    """Add ``--import`` to a parser; ``place`` is one of ``PLACES``."""
    parser.add_argument(
        "--import",
        dest=place,
        metavar="MODULE",
        action="append",
        default=[],
        help="import a module first, that registers networks or losses; here or installed",
    )


def import_modules(args: argparse.Namespace) -> None:
    """Import what was asked for, from the current folder too, as ``python -m`` would.

    Raises:
        ArcfaceCakdError: there is no module of that name, or it does not run.
    """
    for name in (name for place in PLACES for name in getattr(args, place, ())):
        _import_module(name)


def _import_module(name: str) -> None:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        importlib.import_module(name.removesuffix(".py"))
    except ArcfaceCakdError:
        raise
    except Exception as error:  # whatever the user's lines raise
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        raise ArcfaceCakdError(
            f"--import {name}: {problem}; give a module's name, as in `import {name}`, that is "
            "in this folder or installed"
        ) from error
