"""The command line: ``arcface-cakd COMMAND``.

A command is a module of this package with ``HELP`` (one line), ``configure(parser)`` and
``run(args)``, imported only when it is called or when the help lists it.
"""

import argparse
import contextlib
import importlib
import logging
import os
import sys

from arcface_cakd import __version__
from arcface_cakd.cli.figures import alone_on_stdout, check_json
from arcface_cakd.cli.help import Parser
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.files import DISK_IS_FULL
from arcface_cakd.launcher import tell_launcher
from arcface_cakd.openmp import spin_briefly

COMMANDS = ("demo", "train", "evaluate", "export", "report", "data", "bench", "patch", "list")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="arcface-cakd",
        description="Cross Architecture Distillation for insightface's arcface_torch.",
        epilog="example: arcface-cakd demo",
    )
    _add_import(parser, "modules")
    parser.add_argument("--version", action="version", version=f"arcface-cakd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"arcface_cakd.cli.{name}")
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        command.set_defaults(run=module.run)
        _add_import(command, "more_modules")
        module.configure(command)
    return parser


def _add_import(parser: argparse.ArgumentParser, dest: str) -> None:
    """``--import``, before a command and after it: two names, or one would forget the other's."""
    parser.add_argument(
        "--import",
        dest=dest,
        metavar="MODULE",
        action="append",
        default=[],
        help="import a module first, that registers networks or losses; here or installed",
    )


def _import_module(name: str) -> None:
    """Import a user's module, from the current folder too, as ``python -m`` would.

    Raises:
        ArcfaceCakdError: there is none of that name, or it does not run.
    """
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


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks what could follow, where the extra ``completion`` is installed."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    with contextlib.suppress(ImportError):
        import argcomplete

        argcomplete.autocomplete(parser)


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0, or 1 with one line on stderr for a user's mistake (2: wrong usage)."""
    for stream in (sys.stdout, sys.stderr):
        # What a terminal cannot show, such as a folder's name, is escaped and no error.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    _complete(parser)
    args = parser.parse_args(argv)
    if args.command != "bench":  # which measures torch as other programs have it
        spin_briefly()  # before a command imports torch
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    # Under torchrun every rank runs this; one of them speaks.
    rank = os.environ.get("RANK", "")
    first = not rank.isdecimal() or int(rank) == 0
    logging.getLogger("arcface_cakd").setLevel(logging.INFO if first else logging.ERROR)
    try:
        for name in (*args.modules, *args.more_modules):
            _import_module(name)
        figures = getattr(args, "json", None)
        check_json(figures)
        with alone_on_stdout(figures):
            return args.run(args) or 0
    except ArcfaceCakdError as error:
        mistake = str(error)
    except BrokenPipeError:  # `arcface-cakd ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, a folder that may not be written
        if error.filename is not None:
            mistake = f"{error.filename}: {error.strerror}"
        elif error.errno in DISK_IS_FULL:  # a write knows no file name
            mistake = f"cannot write: {error.strerror}: free space where the output goes"
        else:
            raise
    except KeyboardInterrupt:
        if first:
            print(f"arcface-cakd {args.command}: interrupted", file=sys.stderr)
        return 130
    message = f"arcface-cakd {args.command}: error: {mistake}"
    if first:
        print(message, file=sys.stderr)
    tell_launcher(message)
    return 1
