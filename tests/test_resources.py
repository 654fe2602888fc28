import pytest

from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.resources import find_recipe, recipe_files, resource_dir


def test_recipes_are_found_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = resource_dir("recipes") / "ms1mv3" / "ms1mv3_mbf.py"
    for given in (
        "ms1mv3_mbf",
        "ms1mv3_mbf.py",
        "recipes/ms1mv3/ms1mv3_mbf.py",
        "recipes/ms1mv3_mbf.py",  # where it stood before there were folders
        "ms1mv3/ms1mv3_mbf.py",
    ):
        assert find_recipe(given) == expected and expected.is_file()
    for given in ("losses/ms1mv3_mbf.py", "elsewhere/ms1mv3_mbf.py", "/recipes/ms1mv3_mbf.py"):
        with pytest.raises(ArcfaceCakdError, match="no such file"):
            find_recipe(given)


def test_a_file_of_the_users_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo_cakd.py").write_text("mine")
    for given in ("demo_cakd.py", "demo_cakd"):
        assert find_recipe(given).read_text() == "mine"


def test_a_config_may_be_named_as_arcface_torch_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "ms1mv3_mbf.v2.py").write_text("mine")
    for given in ("configs/ms1mv3_mbf.v2", tmp_path / "configs" / "ms1mv3_mbf.v2"):
        assert find_recipe(str(given)).read_text() == "mine"


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ArcfaceCakdError, match="did you mean 'demo_cakd'"):
        find_recipe("demo_cakdd")


@pytest.mark.parametrize("given", ["xyzzy", "xyzzy.py", "/nowhere/xyzzy.py"])
def test_where_none_is_near_it_says_how_to_list_them(given):
    with pytest.raises(ArcfaceCakdError) as raised:
        find_recipe(given)
    assert given in str(raised.value) and "arcface-cakd list recipes" in str(raised.value)
    assert len(str(raised.value)) < 200


def test_pieces_that_recipes_share_are_no_recipes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = recipe_files()
    assert list(files) == sorted(files) and "demo_cakd" in files
    pieces = {file.stem for file in resource_dir("recipes").rglob("*.py")} - set(files)
    assert pieces and all(piece.startswith("_") for piece in pieces)
    for name in ("_demo", "recipes/_demo.py", "recipes/demo/_demo.py"):
        with pytest.raises(ArcfaceCakdError):
            find_recipe(name)


def test_an_unknown_kind_of_resource_is_said():
    with pytest.raises(ArcfaceCakdError, match="has no nonsense/"):
        resource_dir("nonsense")
