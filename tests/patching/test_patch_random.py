"""Random hosts and random patch sets: what holds for all of them."""

import random
import shutil

import pytest
from helpers.patch_hosts import contents, make_host, make_recipes, snapshot

from arcface_cakd.patching import check, patch, revert

WORDS = ["a()", "b = 1", "", "# c", "x\xe9", "if d:", "return e", "  ", "\tf"]


def random_text(rng: random.Random, unique: list[str]) -> bytes:
    """Lines of few words, so that many occur twice, and each of ``unique`` once."""
    lines = [" " * rng.choice([0, 2, 4]) + rng.choice(WORDS) for _ in range(rng.randrange(20))]
    for line in unique:
        lines.insert(rng.randrange(len(lines) + 1), " " * rng.choice([0, 1, 4]) + line)
    ending = rng.choice(["\n", "\r\n"])
    text = ending.join(lines) + rng.choice(["", ending, ending * 2])
    return text.encode(rng.choice(["utf-8", "latin-1"]))


def random_edit(rng: random.Random, id: str, file: str, line: str) -> str:
    action = rng.choice(["after", "before", "change", "drop"])
    indentation = " " * rng.choice([0, 3, 8])
    text = f"[[edit]]\nid = '{id}'\nfile = '{file}'\nreason = 'r'\nanchor = '{indentation}{line}'\n"
    if action == "change":
        return text + f"change = ['{line}', 'new {rng.random()}']\n"
    if action == "drop":
        return text + f"change = ['{line}', '']\n"
    lines = [f"{indentation}{rng.choice(WORDS)} {rng.random()}" for _ in range(rng.randint(1, 3))]
    return text + f"{action} = '''\n" + "\n".join(lines) + "\n'''\n"


def random_set(rng: random.Random, name: str, version: int, anchors: dict) -> str:
    text = f"name = '{name}'\nversion = {version}\npurpose = 'p'\n"
    if rng.random() < 0.7:
        path = f"utils/{name}_{rng.choice('ab')}.py"
        text += f"[[add]]\npath = '{path}'\nsource = 'seam.py'\nreason = 'r'\n"
    for file, lines in anchors.items():
        for number, line in enumerate(lines):
            if rng.random() < 0.8:
                text += random_edit(rng, f"e-{file[0]}-{number}", file, line)
    return text


@pytest.mark.parametrize("seed", range(40))
def test_patch_upgrade_and_revert(seed, tmp_path, monkeypatch):
    rng = random.Random(seed)
    folder = tmp_path / "patches"
    folder.mkdir()
    (folder / "seam.py").write_text("seam = 1\n")
    monkeypatch.setattr("arcface_cakd.patching.edits.resource_dir", lambda kind: folder)
    make_recipes(monkeypatch)
    files = ["train_v2.py", "partial_fc_v2.py", "backbones/__init__.py", "dataset.py"]
    anchors = {
        name: {
            file: [f"{name}.{i}('{file}')".replace("'", '"') for i in range(3)] for file in files
        }
        for name in ("cakd", "current-stack")
    }
    original = {
        file: random_text(rng, anchors["cakd"][file] + anchors["current-stack"][file])
        for file in files
    }
    host = make_host(tmp_path / "host", original)

    def release(version):
        for name in anchors:
            text = random_set(rng, name, version, anchors[name])
            (folder / f"{name}.toml").write_text(text)

    def assert_is(state, only=None):
        before = snapshot(host)
        assert {found.state for found in check(host, only).examined} == {state}
        assert snapshot(host) == before

    release(1)
    assert_is("unpatched")
    patch(host)
    assert_is("patched")
    old = tmp_path / "old"
    shutil.copytree(host, old)

    release(2)
    assert_is("older")
    patch(host)
    assert_is("patched")
    before = snapshot(host)
    patch(host)
    assert snapshot(host) == before
    upgraded = contents(host)

    name, other = rng.sample(sorted(anchors), 2)
    revert(host, name)
    assert_is("unpatched", name)
    assert_is("patched", other)
    revert(host)
    assert contents(host) == original
    for one in (name, other):  # in either order, as at once
        patch(host, one)
    assert contents(host) == upgraded
    revert(old)  # without the data of the version that is there
    assert contents(old) == original
