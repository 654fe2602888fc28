"""Every command's help fits a terminal, and its examples can be pasted."""

import argparse
import re
import shlex
from collections.abc import Iterator

import pytest

from arcface_cakd import cli
from arcface_cakd.cli.help import Parser


def parsers(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, Parser]]:
    """A parser and all that it has commands for, by what is typed after ``arcface-cakd``."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command, inner in action.choices.items():
                yield from parsers(inner, f"{name} {command}".strip())


ALL = dict(parsers(cli._parser()))


def examples(parser: argparse.ArgumentParser) -> list[list[str]]:
    """The commands that the help shows, as a shell takes them."""
    shown = re.split(r"^examples?:", parser.format_help(), flags=re.MULTILINE)[1]
    return [shlex.split(line) for line in shown.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def test_all_commands_are_looked_at():
    assert set(cli.COMMANDS) <= set(ALL) and {"data verify", "bench classes"} <= set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_it_fits_80_columns(name):
    wide = [line for line in ALL[name].format_help().splitlines() if len(line) > 80]
    assert not wide


@pytest.mark.parametrize("name", ALL)
def test_its_examples_can_be_pasted(name):
    found = examples(ALL[name])
    assert found
    for words in found:
        start = words.index("arcface_cakd" if words[0] == "torchrun" else "arcface-cakd")
        given = ALL[""].parse_args(words[start + 1 :])  # exits where it does not parse
        typed = [given.command, getattr(given, "action", None)]
        assert " ".join(filter(None, typed)).startswith(name)


def test_prose_is_filled_and_examples_stay():
    text = "one line " * 20 + "\nand more\n\nexamples:\n  arcface-cakd " + "x " * 10
    shown = Parser(prog="x", epilog=text).format_help()
    assert "examples:\n  arcface-cakd x x" in shown
    prose = shown.split("\n\n")[-2]
    assert all(60 < len(line) <= 80 for line in prose.splitlines()[:-1])
    assert prose.replace("\n", " ").endswith("one line and more")


@pytest.mark.parametrize(
    "name", [name for name, parser in ALL.items() if "--json" in str(parser._option_string_actions)]
)
def test_every_json_option_says_that_it_takes_stdout(name):
    assert ALL[name]._option_string_actions["--json"].help.endswith("; - is stdout")
