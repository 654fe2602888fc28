import ast
import json

import pytest

from arcface_cakd.cli import main
from arcface_cakd.registry import BACKBONES, LOSSES, PROTOCOLS
from arcface_cakd.resources import recipe_files


def listed(capsys, kind):
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {name: what.strip() for name, _, what in (line.partition(" ") for line in lines)}


def test_every_loss_says_what_it_is_where_from_and_what_it_needs(capsys):
    lines = listed(capsys, "losses")
    assert sorted(lines) == LOSSES.names()
    for name, line in lines.items():
        loss = LOSSES.get(name)
        if not loss.__module__.startswith("arcface_cakd."):  # another test's
            continue
        assert loss.paper and f"[{loss.paper}]" in line, name
        what = line.partition(f" [{loss.paper}]")[0]
        assert len(what.split()) >= 4, name
        assert all(need in line for need in loss.needs), name


def test_every_network_is_listed(capsys):
    lines = listed(capsys, "backbones")
    assert sorted(lines) == sorted([*BACKBONES.names(), "timm:<name>"])
    for name in BACKBONES.names():
        if BACKBONES.get(name).__module__.startswith("arcface_cakd."):
            assert len(lines[name].split()) >= 2, name


def test_every_recipe_is_listed_by_folder_and_docstring(capsys):
    lines = listed(capsys, "recipes")
    files = recipe_files()
    assert sorted(lines) == sorted(files)
    for name, line in lines.items():
        folder, what = line.split(maxsplit=1)
        assert folder == files[name].parent.name
        text = ast.get_docstring(ast.parse(files[name].read_text()))
        assert text.replace("\n", " ").startswith(what), name
    folders = [line.split()[0] for line in lines.values()]
    assert folders == sorted(folders)  # one after the other


def test_every_protocol_says_what_it_reads_and_gives(capsys):
    lines = listed(capsys, "protocols")
    assert sorted(lines) == PROTOCOLS.names()
    for name, line in lines.items():
        assert ": " in line and len(line.split()) >= 8, name


@pytest.mark.parametrize("kind", ["losses", "backbones", "protocols", "recipes"])
def test_json_holds_the_same(kind, tmp_path, capsys):
    assert main(["list", kind, "--json", str(tmp_path / "list.json")]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in json.loads((tmp_path / "list.json").read_text())] == names


def test_an_unknown_kind_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["list", "teachers"])
    assert stop.value.code == 2
