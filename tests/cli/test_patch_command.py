import json

import pytest
from helpers.patch_hosts import (
    HOST,
    contents,
    make_host,
    make_recipes,
    make_sets,
    replace,
    snapshot,
    take_block,
)

from arcface_cakd import cli


@pytest.fixture
def sets(tmp_path, monkeypatch):
    make_recipes(monkeypatch)
    return make_sets(tmp_path / "patches", monkeypatch)


@pytest.fixture
def host(tmp_path, sets):
    return make_host(tmp_path / "arcface_torch")


def run(*arguments):
    return cli.main(["patch", *map(str, arguments)])


def checked(host, tmp_path, *arguments):
    """Exit code and the states by set, which the file says too."""
    before = snapshot(host)
    figures = tmp_path / "figures.json"
    code = run(host, "--check", "--json", figures, *arguments)
    assert snapshot(host) == before
    written = json.loads(figures.read_text())
    assert written["exit_code"] == code
    return code, {found["name"]: found["state"] for found in written["sets"]}


def test_exit_codes_of_a_check_say_the_gravest_state(host, sets, tmp_path):
    def states(cakd, stack):
        return {"cakd": cakd, "current-stack": stack}

    assert checked(host, tmp_path) == (4, states("unpatched", "unpatched"))
    assert run(host, "--only", "cakd") == 0
    assert checked(host, tmp_path) == (4, states("patched", "unpatched"))
    assert checked(host, tmp_path, "--only", "cakd") == (0, {"cakd": "patched"})
    assert run(host) == 0
    assert checked(host, tmp_path) == (0, states("patched", "patched"))

    sets.upgrade("current-stack")
    assert checked(host, tmp_path) == (3, states("patched", "older"))
    assert run(host, "--only", "cakd", "--revert") == 0
    assert checked(host, tmp_path) == (3, states("unpatched", "older"))
    assert run(host, "--only", "cakd") == 0
    take_block(host / "train_v2.py", "loop")
    sets.change("current-stack", ("version = 2", "version = 3"))
    assert checked(host, tmp_path) == (5, states("partly", "older"))
    replace(host / "train_v2.py", "flush()", "flush(mine)")
    assert checked(host, tmp_path) == (6, states("partly", "foreign"))
    assert run(host) == 1


def test_it_says_what_it_did_and_what_is_next(host, sets, capsys):
    assert run(host) == 0
    assert capsys.readouterr().out.splitlines() == [
        "cakd 1: applied: 5 edits in 2 files, 1 file added",
        "current-stack 1: applied: 4 edits in 4 files",
        "recipes in configs/: one, two",
        f"{host}: 8 files changed: backbones/__init__.py, configs/one.py, configs/two.py, "
        "dataset.py, partial_fc_v2.py, requirement.txt, train_v2.py, utils/utils_cakd.py",
        f"next: cd {host} && torchrun --nproc-per-node gpu train_v2.py configs/one",
    ]
    replace(host / "configs/two.py", "config = 2", "config = 3")
    assert run(host) == 0
    said = capsys.readouterr().out
    assert "cakd 1: in place already" in said and f"{host}: nothing changed" in said
    assert "configs/two.py: kept, it is yours" in said

    sets.upgrade("current-stack", ("flush()", "flush(1)"))
    assert run(host, "--only", "cakd") == 0
    said = capsys.readouterr().out
    assert "current-stack 2: brought from version 1 up to date too, because it was there" in said

    assert run(host, "--revert") == 0
    said = capsys.readouterr().out
    assert "5 files reverted, removed: configs/one.py, utils/utils_cakd.py" in said
    assert "configs/two.py: kept" in said
    assert run(host, "--revert") == 0
    assert "nothing to revert" in capsys.readouterr().out


def test_chosen_recipes_are_copied(host, capsys):
    assert run(host, "--recipe", "three", "--recipe", "one") == 0
    assert "configs/three" in capsys.readouterr().out
    there = {name for name in contents(host) if name.startswith("configs/")}
    assert there == {"configs/base.py", "configs/three.py", "configs/one.py"}


def test_a_check_of_a_fork_shows_the_lines_to_add(host, tmp_path, capsys):
    replace(host / "train_v2.py", "    save(model)", "    store(model)")
    (host / "dataset.py").unlink()
    assert run(host, "--check", "--json", tmp_path / "figures.json") == 6
    said = capsys.readouterr().out
    assert "cakd 1: foreign" in said
    shown = """\
train_v2.py: cakd save: anchor must occur once, found 0 times
reason: only the student is saved
put the block before what does this here:
    save(model)
the block; you may fit it to your code, by-hand keeps it as you write it;
indent it as the line there:
    # >>> arcface-cakd cakd 1 save by-hand
    if cfg.cakd:

        model = cakd.student(model)
    # <<< arcface-cakd
"""
    assert shown in said
    assert "dataset.py: current-stack label: anchor must occur once, the file is missing" in said
    assert "        # ---         return long(x)\n        return int(x)\n" in said
    assert "put your own line behind # ---, for --revert to give it back" in said

    cakd, stack = json.loads((tmp_path / "figures.json").read_text())["sets"]
    (lack,) = cakd["lacks"]
    assert (lack["id"], lack["file"], lack["count"], lack["found"]) == ("save", "train_v2.py", 1, 0)
    assert "\n".join(lack["block"]) in shown
    assert [lack["found"] for lack in stack["lacks"]] == [None, 0]


def test_where_a_pasted_block_goes_is_said_of_several_lines_too(host, capsys):
    replace(host / "train_v2.py", "for epoch in range(2)", "for epoch in range(3)")
    replace(host / "train_v2.py", "clip(model)\n        else", "c(model)\n        else")
    run(host, "--check")
    said = capsys.readouterr().out
    clip, loop = said[said.index("cakd clip") :].split("cakd loop")
    assert "anchor must occur twice, found once\n" in clip
    assert "indent it as the line there:\n# >>> arcface-cakd cakd 1 clip by-hand\n" in clip
    assert "shift it as the lines above are shifted there:\n    # >>> arcface-cakd" in loop


def test_a_check_says_what_is_there_by_hand(host, sets, tmp_path, capsys):
    run(host)
    replace(host / "train_v2.py", "clip 1a8df936", "clip by-hand")
    replace(host / "train_v2.py", "clip af333f10", "clip by-hand")
    replace(host / "train_v2.py", "save 984f67c5", "save by-hand")
    text = (host / "train_v2.py").read_text()
    first = text.index("            # >>> arcface-cakd cakd 1 clip")
    text = text[:first] + text[text.index("        else") :]
    (host / "train_v2.py").write_text(text)
    sets.upgrade("cakd")
    capsys.readouterr()
    assert checked(host, tmp_path, "--only", "cakd") == (6, {"cakd": "foreign"})
    said = capsys.readouterr().out
    assert "anchor must occur twice, found 0 times, and once a block by hand" in said
    number = 1 + next(i for i, line in enumerate(text.split("\n")) if "cakd 1 save" in line)
    assert f"train_v2.py:{number}: the block by hand is for version 1 of cakd save" in said
    (found,) = json.loads((tmp_path / "figures.json").read_text())["sets"]
    assert found["lacks"][0]["by_hand"] == 1 and len(found["notes"]) == 2


def test_copies_are_named(host, tmp_path, capsys):
    run(host)
    copy = host / "train_mine.py"
    copy.write_bytes((host / "train_v2.py").read_bytes())
    replace(copy, "first = True", "first = mine")
    note = "train_mine.py: carries blocks of arcface-cakd, left as it is\n"
    capsys.readouterr()
    assert run(host) == 0
    assert note in capsys.readouterr().out
    assert checked(host, tmp_path)[0] == 0
    assert note in capsys.readouterr().out
    assert json.loads((tmp_path / "figures.json").read_text())["copies"] == ["train_mine.py"]
    assert run(host, "--revert") == 0
    said = capsys.readouterr().out
    assert "train_mine.py: carried blocks of arcface-cakd, taken out too\n" in said
    assert "train_mine.py:5: kept, this block of arcface-cakd was edited\n" in said
    assert run(host, "--revert") == 0
    said = capsys.readouterr().out
    assert "train_mine.py:5: kept" in said and "nothing to revert" in said


def test_what_differs_within_a_version_is_said(host, sets, capsys):
    run(host)
    sets.change("cakd", ("first = True", "first = False"))
    capsys.readouterr()
    assert run(host, "--check", "--only", "cakd") == 3
    assert capsys.readouterr().out == (
        "cakd 1: older: what is in place differs from this version: patch again\n"
    )
    assert run(host) == 0
    assert "cakd 1: brought up to date: 5 edits" in capsys.readouterr().out
    sets.upgrade("cakd")
    run(host, "--check", "--only", "cakd")
    assert "cakd 2: older: version 1 is in place: patch again" in capsys.readouterr().out
    assert run(host) == 0
    assert "cakd 2: brought from version 1 up to date: 5 edits" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["--revert"]])
def test_an_interrupted_run_says_to_run_it_again(host, capsys, monkeypatch, arguments):
    run(host)
    (host / "train_v2.py").write_bytes(HOST["train_v2.py"])

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr("os.replace", interrupted)
        capsys.readouterr()
        assert run(host, *arguments) == 130
    assert capsys.readouterr().err == (
        "arcface-cakd patch: interrupted: run it again, it completes what is done in part\n"
    )
    assert run(host, *arguments) == 0


def test_a_check_names_what_was_edited(host, capsys):
    run(host)
    replace(host / "train_v2.py", "first = True", "first = 2")
    capsys.readouterr()
    assert run(host, "--check") == 6
    assert f"{host / 'train_v2.py'}:8: this block of arcface-cakd was edited" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda host: replace(host / "dataset.py", "long", "int"), "1 of 9 edits"),
        (lambda host: (host / "train_v2.py").unlink(), "no arcface_torch folder"),
        (lambda host: (host / "utils/utils_cakd.py").write_text(""), "rename it"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(host, capsys, change, said):
    change(host)
    before = snapshot(host)
    assert run(host) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("arcface-cakd patch: error: ")
    assert said in lines[0]
    assert snapshot(host) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--check", "--revert"],
        ["--check", "--recipe", "one"],
        ["--revert", "--recipe", "one"],
        ["--only", "current-stack", "--recipe", "one"],
        ["--only", "other"],
        ["--json", "x.json"],
    ],
)
def test_wrong_usage_exits_2(host, arguments):
    with pytest.raises(SystemExit) as stopped:
        run(host, *arguments)
    assert stopped.value.code == 2
    assert contents(host) == HOST
