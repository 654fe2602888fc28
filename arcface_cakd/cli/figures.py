"""``--json FILE``: what a command found, for programs."""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from arcface_cakd.files import write_text

STDOUT = "-"
_outputs: list[TextIO] = []  # stdout, while what a command prints goes elsewhere


def add_json(parser: argparse.ArgumentParser, what: str = "write the figures to a file") -> None:
    """Give a command the option; its ``run`` calls ``write_json``."""
    parser.add_argument("--json", metavar="FILE", help=f"{what}; {STDOUT} is stdout")


def write_json(path: str | None, figures: Any) -> None:
    """Write figures to where ``--json`` says, if it says so.

    Raises:
        OSError: the file cannot be written.
    """
    if not path:
        return
    text = json.dumps(figures, indent=2) + "\n"
    if path == STDOUT:
        output = _outputs[-1] if _outputs else sys.stdout
        output.write(text)
        output.flush()
    else:
        write_text(path, text)


@contextlib.contextmanager
def alone_on_stdout(path: str | None) -> Iterator[None]:
    """While figures are to go to stdout, all that is printed goes to stderr.

    Args:
        path: the option's value.
    """
    if path != STDOUT:
        yield
        return
    _outputs.append(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _outputs.pop()
