"""The command line's help: prose that fits the terminal, examples that can be pasted."""

import argparse
import textwrap
from itertools import groupby
from typing import Any


class HelpFormatter(argparse.HelpFormatter):
    """Fills paragraphs; leaves lines that are indented, or begin with ``example``, as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = []
        for as_it_is, lines in groupby(text.splitlines(), _as_it_is):
            part = "\n".join(lines)
            parts.append(part if as_it_is else textwrap.fill(" ".join(part.split()), width))
        return textwrap.indent("\n".join(parts), indent)


class Parser(argparse.ArgumentParser):
    """A parser with that help; so are those of its commands."""

    def __init__(self, **settings: Any):
        super().__init__(**{"formatter_class": HelpFormatter, **settings})


def _as_it_is(line: str) -> bool:
    return not line.strip() or line[0].isspace() or line.startswith("example")
