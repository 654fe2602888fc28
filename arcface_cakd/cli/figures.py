"""``--json FILE``: what a command found, for programs."""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.files import in_the_way_of, json_text, write_text

STDOUT = "-"
# What the figures of each command hold: a file of such may be replaced.
_OBJECTS = (
    {"model", "network", "protocol", "sets"},  # evaluate
    {"path", "size", "precision", "cosine"},  # export
    {"output", "global_step", "accuracy"},  # train
    {"runs", "histogram_accuracy"},  # demo
    {"command", "machine", "ratios"},  # bench
    {"host", "state", "exit_code"},  # patch --check
    {"items", "damaged"},  # data verify
)
_ROWS = ({"name", "what"}, {"path", "kind", "images", "sizes"})  # list; data inspect
_outputs: list[TextIO] = []  # stdout, while what a command prints goes elsewhere


def add_json(parser: argparse.ArgumentParser, what: str = "write the figures to a file") -> None:
    """Give a command the option; its ``run`` calls ``write_json``."""
    parser.add_argument("--json", metavar="FILE", help=f"{what}; {STDOUT} is stdout")


def write_json(path: str | None, figures: Any) -> None:
    """Write figures to where ``--json`` says, if it says so; null for one that is not finite.

    Raises:
        ArcfaceCakdError: see ``check_json``; the file is there since then.
        OSError: the file cannot be written.
    """
    if not path:
        return
    check_json(path)
    text = json_text(figures, indent=2)
    if path == STDOUT:
        output = _outputs[-1] if _outputs else sys.stdout
        output.write(text)
        output.flush()
    else:
        write_text(path, text)


def check_json(path: str | None) -> None:
    """Refuse, before any work, to write figures over what is none.

    Args:
        path: the option's value.

    Raises:
        ArcfaceCakdError: something is there that no command wrote for ``--json``, or no folder
            can be where it would be.
        OSError: it cannot be read.
    """
    if not path or path == STDOUT:
        return
    file = Path(path)
    if file.is_dir():
        raise ArcfaceCakdError(f"--json {path}: a folder: name a file in it")
    if (above := in_the_way_of(file)) is not None:
        raise ArcfaceCakdError(f"--json {path}: {above} is no folder: name a file in one")
    if file.exists() and not _holds_figures(file):
        raise ArcfaceCakdError(
            f"--json {path}: is there, holds no figures of a command's, and would be replaced: "
            "name another file"
        )


def _holds_figures(file: Path) -> bool:
    """Whether a file is of figures, or empty, as mktemp leaves it."""
    if not file.is_file():
        return False
    with open(file, "rb") as opened:
        first = opened.read(1)
        if first not in (b"", b"{", b"["):  # the most of a large file is not read
            return False
        try:
            content = json.loads(first + opened.read()) if first else []
        except (ValueError, RecursionError):
            return False
    if isinstance(content, dict):
        return any(keys <= content.keys() for keys in _OBJECTS)
    return all(isinstance(row, dict) and any(k <= row.keys() for k in _ROWS) for row in content)


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
