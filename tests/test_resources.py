import pytest

from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.resources import find_recipe, resource_dir


def test_recipes_are_found_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {path.stem for path in resource_dir("recipes").glob("demo_*.py")}
    assert "demo_cakd" in names
    for given in ("demo_cakd", "demo_cakd.py", "recipes/demo_cakd.py"):
        assert find_recipe(given).read_text().startswith('"""')


def test_a_file_of_the_users_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo_cakd.py").write_text("mine")
    assert find_recipe("demo_cakd.py").read_text() == "mine"


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ArcfaceCakdError, match="did you mean 'demo_cakd'"):
        find_recipe("demo_cakdd")


def test_an_unknown_kind_of_resource_is_said():
    with pytest.raises(ArcfaceCakdError, match="has no nonsense/"):
        resource_dir("nonsense")
