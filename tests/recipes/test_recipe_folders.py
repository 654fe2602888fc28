"""Recipes in folders: what is where, how they find each other, and that they reach a package."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from helpers.recipes import RECIPES

from arcface_cakd.config import ConfigError, load_config
from arcface_cakd.resources import recipe_files, resource_dir

ROOT = Path(__file__).parents[2]
SHIPPED = resource_dir("recipes")
# It imports a recipe of another folder, which imports a piece of its own and one of all.
ABLATION = "ms1mv3_mbf_cakd_swin_s_preservation_margin"


def test_there_is_a_folder_for_each_purpose():
    folders: dict[str, set[str]] = {}
    for name, file in recipe_files().items():
        folders.setdefault(file.parent.name, set()).add(name)
    assert sorted(folders) == ["ablations", "demo", "losses", "ms1mv3", "other_sets"]
    for folder in ("ms1mv3", "losses", "ablations"):
        assert all(name.startswith("ms1mv3_") for name in folders[folder])
    assert all(name.startswith("ms1mv3_mbf_cakd_swin_s_") for name in folders["ablations"])
    assert folders["other_sets"] == {
        f"{data}_{run}"
        for data in ("ms1mv2", "glint360k", "wf4m", "wf42m", "casia")
        for run in ("swin_s", "mbf", "mbf_cakd_swin_s")
    }


def test_no_name_is_there_twice():
    """They are imported, and copied into a host, by name alone."""
    stems = Counter(file.stem for file in SHIPPED.rglob("*.py"))
    assert max(stems.values()) == 1
    for stem in stems:  # nor one that hides a module of Python's own
        assert stem not in sys.stdlib_module_names


def test_executing_them_leaves_nothing_behind():
    """Pieces are mutable: an ablation's change must not reach the recipe that it changes."""
    method = load_config(recipe_files()["ms1mv3_mbf_cakd_swin_s"])
    modules, path = set(sys.modules), list(sys.path)
    for name, file in recipe_files().items():
        load_config(file)
        assert set(sys.modules) == modules and sys.path == path, name
    assert load_config(recipe_files()["ms1mv3_mbf_cakd_swin_s"]) == method
    assert method.cakd.urfm is not None and len(method.cakd.losses) == 3


def test_a_copy_of_the_recipes_takes_its_own_pieces(tmp_path):
    shutil.copytree(SHIPPED, tmp_path / "mine")
    with (tmp_path / "mine" / "_cakd.py").open("a") as file:
        file.write("\ncakd.urfm.num_centers = 25\n")
    with (tmp_path / "mine" / "ms1mv3" / "ms1mv3_mbf.py").open("a") as file:
        file.write("\nconfig.lr = 0.03\n")
    for folder, centers in ((tmp_path / "mine", 25), (SHIPPED, 49)):
        config = load_config(folder / "ablations" / f"{ABLATION}.py")
        assert config.cakd.urfm["num_centers"] == centers
        assert config.lr == (0.03 if centers == 25 else 0.1)


def test_a_config_of_the_users_own_imports_from_its_own_folder_alone(tmp_path):
    (tmp_path / "_above.py").write_text("")
    (tmp_path / "configs").mkdir()
    for piece in ("_above", "_cakd"):
        (tmp_path / "configs" / "run.py").write_text(f"import {piece}\nconfig = dict(rec='a')\n")
        with pytest.raises(ConfigError, match=f"No module named '{piece}'"):
            load_config(tmp_path / "configs" / "run.py")


@pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="no setup.py: no checkout")
def test_they_reach_a_built_package(tmp_path):
    """As pip builds it: the package alone, run from another directory."""
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "lib")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    built = {file.stem for file in (tmp_path / "lib/arcface_cakd/recipes").rglob("*.py")}
    assert built == {file.stem for file in SHIPPED.rglob("*.py")}
    code = """
import arcface_cakd.config, arcface_cakd.resources as resources
configs = {name: arcface_cakd.config.load_config(resources.find_recipe(f"recipes/{name}.py"))
           for name in resources.recipe_files()}
print(resources.resource_dir("recipes"), len(configs), len(resources.set_lines()))
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "lib"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    folder, configs, lines = done.stdout.split()
    assert Path(folder) == tmp_path / "lib/arcface_cakd/recipes"
    assert int(configs) == len(RECIPES) and int(lines) > 0
