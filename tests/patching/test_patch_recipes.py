"""The recipes that patching copies into a host's configs/, and those of its user there."""

import pytest
from helpers.patch_hosts import HOST, contents, replace, snapshot

from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.patching import PatchError, patch, revert


def test_chosen_recipes_take_the_place_of_the_default_ones(host):
    outcome = patch(host, recipes=["three"])
    assert outcome.recipes == ["three"]
    assert not (host / "configs/one.py").exists()
    assert (host / "configs/three.py").read_text().endswith("\nconfig = 3\n")
    assert sorted(patch(host).recipes) == ["one", "three", "two"]


def test_an_unknown_recipe_changes_nothing(host):
    before = snapshot(host)
    for name in ("four", "a name.py"):
        with pytest.raises(ArcfaceCakdError, match=name):
            patch(host, recipes=["one", name])
    assert snapshot(host) == before


def test_recipes_of_the_user_are_kept(host, recipes):
    (host / "configs/one.py").write_text("mine = 1\n")
    outcome = patch(host)
    assert outcome.kept == ["configs/one.py"] and outcome.recipes == ["two"]
    replace(host / "configs/two.py", "config = 2", "config = 22")
    mine = contents(host)
    recipes["two"] = "config = 222\n"
    assert sorted(patch(host).kept) == ["configs/one.py", "configs/two.py"]
    assert contents(host) == mine
    assert revert(host).kept == ["configs/two.py"]
    assert contents(host) == {
        **HOST,
        "configs/one.py": b"mine = 1\n",
        "configs/two.py": mine["configs/two.py"],
    }


def test_recipes_that_nobody_edited_follow_the_package(host, recipes):
    patch(host, recipes=["three", "one"])
    recipes["three"] = "config = 33\n"
    del recipes["one"]
    patch(host, recipes=["two"])
    assert (host / "configs/three.py").read_text().endswith("\nconfig = 33\n")
    assert (host / "configs/one.py").read_text().endswith("\nconfig = 1\n")
    revert(host)
    assert contents(host) == HOST


def test_a_copy_that_the_user_made_of_a_recipe_is_kept(host):
    patch(host)
    copy = (host / "configs/one.py").read_bytes()
    (host / "configs/mine.py").write_bytes(copy)
    assert revert(host).kept == ["configs/mine.py"]
    assert contents(host) == {**HOST, "configs/mine.py": copy}


# From a file of the user's own


@pytest.fixture
def mine(tmp_path):
    """A config of the user's that is called as a shipped one."""
    path = tmp_path / "mine" / "one.py"
    path.parent.mkdir()
    path.write_text("config = 'mine'\n")
    return path


def config(host, name="one"):
    return (host / f"configs/{name}.py").read_text().partition("\n")[2]


def test_a_recipe_of_the_users_own_is_not_replaced_by_the_shipped_one(host, recipes, mine):
    assert patch(host, recipes=[str(mine)]).recipes == ["one"]
    before = snapshot(host)
    outcome = patch(host, recipes=["three"])
    assert config(host) == "config = 'mine'\n" and outcome.written == ["configs/three.py"]
    assert outcome.recipes == ["three"]
    outcome = patch(host)
    assert outcome.kept == ["configs/one.py"] and sorted(outcome.recipes) == ["three", "two"]
    assert snapshot(host)["configs/one.py"] == before["configs/one.py"]

    mine.write_text("config = 'mine, too'\n")
    assert patch(host, recipes=[str(mine)]).written == ["configs/one.py"]
    assert config(host) == "config = 'mine, too'\n"
    revert(host)
    assert contents(host) == HOST


def test_a_shipped_recipe_may_be_replaced_by_the_users_own(host, mine):
    patch(host)
    patch(host, recipes=[str(mine)])
    assert config(host) == "config = 'mine'\n"


def test_a_path_to_a_shipped_recipe_is_none_of_the_users_own(host, recipes, sets, tmp_path, mine):
    """``sets`` makes one folder stand for every kind of resource."""
    from arcface_cakd.patching import host_recipes

    with pytest.MonkeyPatch.context() as context:
        context.setattr(host_recipes, "resource_dir", lambda kind: mine.parent)
        patch(host, recipes=[str(mine)])
    assert "recipe 1 one " in (host / "configs/one.py").read_text()
    patch(host)
    assert config(host) == "config = 1\n"


@pytest.mark.parametrize("kind", ["a file", "an edited recipe", "a recipe of the user's own"])
def test_a_recipe_asked_for_does_not_take_the_place_of_another(host, mine, kind):
    if kind == "a file":
        (host / "configs/one.py").write_text("mine = 1\n")
    elif kind == "an edited recipe":
        patch(host)
        replace(host / "configs/one.py", "config = 1", "config = 11")
    else:
        patch(host, recipes=[str(mine)])
    before = snapshot(host)
    with pytest.raises(PatchError) as error:
        patch(host, recipes=["two", "one"])
    assert f"{host / 'configs/one.py'}: " in str(error.value) and "\n" not in str(error.value)
    assert "nothing was changed" in str(error.value)
    assert snapshot(host) == before


def test_a_file_of_the_users_own_does_not_take_the_place_of_a_config(host, tmp_path):
    (tmp_path / "base.py").write_text("config = 2\n")
    with pytest.raises(PatchError, match=r"configs/base\.py: "):
        patch(host, recipes=[str(tmp_path / "base.py")])
    assert contents(host) == HOST


def test_two_recipes_of_one_name_are_refused(host, mine):
    with pytest.raises(PatchError, match=r"configs/one\.py"):
        patch(host, recipes=["one", str(mine)])
    assert contents(host) == HOST
