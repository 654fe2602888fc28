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
import warnings
from collections.abc import Iterator

from arcface_cakd import __version__
from arcface_cakd.cli.figures import alone_on_stdout, check_json
from arcface_cakd.cli.help import Parser
from arcface_cakd.cli.imports import add_import, import_modules
from arcface_cakd.errors import ArcfaceCakdError, ArcfaceCakdWarning
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
    add_import(parser, "import_first")
    parser.add_argument("--version", action="version", version=f"arcface-cakd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"arcface_cakd.cli.{name}")
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        command.set_defaults(run=module.run)
        add_import(command, "import_in_command")
        module.configure(command)
    return parser


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks what could follow, where the extra ``completion`` is installed."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    with contextlib.suppress(ImportError):
        import argcomplete

        argcomplete.autocomplete(parser)


@contextlib.contextmanager
def _plain_warnings(command: str, first: bool) -> Iterator[None]:
    """Show our warnings as errors are shown, without the lines of source that raise them."""
    former = warnings.formatwarning

    def as_a_line(message, category, filename, lineno, line=None) -> str:
        if not issubclass(category, ArcfaceCakdWarning):
            return former(message, category, filename, lineno, line)
        return f"arcface-cakd {command}: warning: {message}\n" if first else ""

    warnings.formatwarning = as_a_line
    try:
        yield
    finally:
        warnings.formatwarning = former


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
        import_modules(args)
        figures = getattr(args, "json", None)
        check_json(figures)
        with _plain_warnings(args.command, first), alone_on_stdout(figures):
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
