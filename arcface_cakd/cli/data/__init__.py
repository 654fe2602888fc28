"""``arcface-cakd data``: an action is a module of this package.

It has ``HELP`` (one line), ``EXAMPLE``, ``configure(parser)`` and ``run(args)``.
"""

import argparse
import importlib

from arcface_cakd.cli.imports import add_import

HELP = "align, make, pack, split, merge, inspect and verify data sets, and more"

ACTIONS = (
    "align",
    "synthesize",
    "import",
    "pack",
    "pairs",
    "templates",
    "split",
    "merge",
    "shuffle",
    "dedupe",
    "renumber",
    "index",
    "digest",
    "inspect",
    "verify",
)

_MODULES = {"import": "importing"}  # which no module may be called


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example: arcface-cakd data inspect /data/ms1m-retinaface-t1"
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name in ACTIONS:
        module = importlib.import_module(f"arcface_cakd.cli.data.{_MODULES.get(name, name)}")
        action = actions.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=f"example:\n  {module.EXAMPLE}",
        )
        action.set_defaults(run_action=module.run)
        add_import(action, "import_in_action")
        module.configure(action)


def run(args: argparse.Namespace) -> int:
    return args.run_action(args)
