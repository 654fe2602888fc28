"""What a shell is told where it asks how a command line could go on."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("arcface-cakd exp", {"export "}), ("arcface-cakd data in", {"index", "inspect"})],
)
def test_commands_and_actions_are_completed(typed, expected):
    pytest.importorskip("argcomplete")
    read, write = os.pipe()
    # As argcomplete's shell function calls it: the answer is what it writes to number 8.
    command = 'exec 8>&"$ANSWER" 9>/dev/null; exec "$PYTHON" -m arcface_cakd'
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\v",
        "COMP_LINE": typed,
        "COMP_POINT": str(len(typed)),
        "COMP_TYPE": "9",
        "ANSWER": str(write),
        "PYTHON": sys.executable,
    }
    subprocess.run(["bash", "-c", command], env=environment, pass_fds=[write], check=True)
    os.close(write)
    with open(read) as answer:
        assert set(answer.read().split("\v")) == expected


def test_without_the_extra_the_command_runs_as_ever(monkeypatch, capsys):
    from arcface_cakd import cli

    monkeypatch.setenv("_ARGCOMPLETE", "1")
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert cli.main(["list", "losses"]) == 0
    assert "embedding_cosine" in capsys.readouterr().out
