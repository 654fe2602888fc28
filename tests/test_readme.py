"""What the README shows is what the package takes."""

import json
import re
import shlex
from pathlib import Path

import pytest

from arcface_cakd import BACKBONES, LOSSES
from arcface_cakd.cli import _parser
from arcface_cakd.config import load_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.M | re.S)
COMMANDS = [
    line.split("&&")[-1].strip()
    for language, block in BLOCKS
    for line in block.splitlines()
    if language == "" and re.search(r"arcface-cakd |-m arcface_cakd ", line)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command):
    words = shlex.split(command.replace("-m arcface_cakd", "arcface-cakd"), comments=True)
    _parser().parse_args(words[words.index("arcface-cakd") + 1 :])


def test_the_config_loads(tmp_path):
    (config,) = [block for _, block in BLOCKS if "config.cakd" in block]
    (tmp_path / "example.py").write_text(config)
    loaded = load_config(tmp_path / "example.py")
    assert loaded.cakd.teacher["network"] == "swin_s" and loaded.cakd.prompts is not None


def test_every_network_and_loss_of_our_own_is_named():
    for registry in (BACKBONES, LOSSES):
        for name in registry.names():
            if registry.get(name).__module__.startswith("arcface_cakd."):  # not another test's
                assert f"`{name}`" in README, name


def test_the_table_of_host_breakages_is_what_the_script_found():
    found = json.loads((ROOT / "eval" / "results" / "host_breakages.json").read_text())
    for row in found["rows"]:
        assert bool(row["left"]) == bool(row["with_current_stack"]), row["what"]
        mended = f"not mended: {row['left']}" if row["left"] else "works"
        assert f"\n| {row['where']} | {row['what']} | {mended} |\n" in README
    assert found["host"][:8] in README and found["versions"]["torch"] in README


def test_ci_runs_the_test_command():
    """.ci/run takes the command out of the README, so it has to stand where it looks."""
    after = README.split("<!-- the test command -->\n```\n")[1]
    assert after.splitlines()[0].endswith("pytest")
