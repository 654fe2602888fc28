"""Names of runs that have no recipe of their own: the line that each gives, obeyed, is that run."""

import json
import runpy
from pathlib import Path

import pytest
from helpers.recipes import RECIPES

from arcface_cakd.cli import _parser, main
from arcface_cakd.resources import NoRecipeOfItsOwn, find_recipe, recipe_files, set_lines

GOLDEN = Path(__file__).parents[1] / "golden"
resolved = runpy.run_path(str(GOLDEN / "make_set_lines.py"))["resolved"]
# What load_config made of the recipes that these runs once had, by where it differs from another.
RECORDED = json.loads((GOLDEN / "set_lines.json").read_text(encoding="utf-8"))


def said_of(name: str) -> str:
    with pytest.raises(NoRecipeOfItsOwn) as raised:
        find_recipe(name)
    return str(raised.value)


def put(config: dict, key: str, value) -> None:
    *entries, last = key.split(".")
    for entry in entries:
        config = config[entry]
    assert config[last] != value
    config[last] = value


def test_no_name_is_forgotten():
    assert RECORDED.keys() <= set_lines().keys()
    assert not set_lines().keys() & set(RECIPES)


@pytest.mark.parametrize("name", RECORDED)
def test_the_line_gives_the_config_that_its_recipe_gave(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = resolved(recipe_files()[RECORDED[name]["recipe"]])
    for key, value in RECORDED[name]["differs"].items():
        put(expected, key, value)

    start, line = said_of(name).split("any more: ")
    assert start == f"config {name}: no recipe of its own "
    given = _parser().parse_args(line.split())  # as a shell splits it: nothing needs quotes
    assert resolved(find_recipe(given.config), given.set) == expected
    assert given.config.split("_")[0] == name.split("_")[0]


@pytest.mark.parametrize("form", ["{}", "{}.py", "recipes/{}.py"])
def test_every_way_to_name_a_recipe_gives_the_line(form):
    name = "ms1mv2_r18_cakd_swin_s"
    assert said_of(form.format(name)) == (
        f"config {form.format(name)}: no recipe of its own any more: train ms1mv2_mbf_cakd_swin_s "
        "--set network=r18 weight_decay=5e-4 num_epoch=20 output=work_dirs/ms1mv2_r18_cakd_swin_s"
    )


def test_a_file_of_the_users_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "casia_r50.py").write_text("mine")
    assert find_recipe("casia_r50.py").read_text() == "mine"


def test_a_command_prints_it_in_one_line(capfd):
    assert main(["train", "ms1mv3_mbf_cakd_swin_s_prompts4"]) == 1
    printed = capfd.readouterr().err
    assert printed.count("\n") == 1 and "--set cakd.prompts.num_tokens=4 " in printed
