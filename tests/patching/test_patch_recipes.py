"""The recipes that patching copies into a host's configs/, and those of its user there."""

import pytest
from helpers.patch_hosts import HOST, contents, make_host, replace, snapshot, states

from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.patching import PatchError, patch, revert
from arcface_cakd.patching.blocks import RECIPE, mark_file


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


# Recipes that went


@pytest.mark.parametrize("name", ["ms1mv2_r18_cakd_swin_s", "ms1mv3_mbf_cakd_swin_s_prompts16"])
def test_a_host_keeps_a_recipe_that_went(name, tmp_path, sets):
    """Of a host that a former version patched, with the recipes that this version ships."""
    host = make_host(tmp_path / "arcface_torch")
    patch(host)
    text = "from easydict import EasyDict as edict\n\nconfig = edict()\nconfig.lr = 0.1\n"
    (host / f"configs/{name}.py").write_text(mark_file(RECIPE, 1, name, text))

    before = snapshot(host)
    assert states(host) == ["patched", "patched"]
    outcome = patch(host)
    assert (outcome.written, outcome.removed, outcome.kept) == ([], [], [])
    with pytest.raises(PatchError) as error:
        patch(host, recipes=[name])
    assert snapshot(host) == before
    assert f"recipe {name}: no recipe of its own any more: take ms1mv" in str(error.value)
    assert "--set" not in str(error.value) and "output=" not in str(error.value)
    assert "\n" not in str(error.value)

    revert(host)
    assert contents(host) == HOST


def test_one_that_was_edited_is_the_users(tmp_path, sets):
    host = make_host(tmp_path / "arcface_torch")
    patch(host)
    text = mark_file(RECIPE, 1, "casia_r50", "config = dict(lr=0.1)\n")
    path = host / "configs/casia_r50.py"
    path.write_text(text.replace("0.1", "0.2"))
    assert states(host) == ["patched", "patched"] and patch(host).written == []
    assert revert(host).kept == ["configs/casia_r50.py"]
    assert contents(host) == {**HOST, "configs/casia_r50.py": path.read_bytes()}


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
        context.setattr(host_recipes, "resource_dir", lambda kind: mine.parent.parent)
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
