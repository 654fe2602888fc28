"""Patching, upgrading and reverting a host made for the tests."""

import ast
import os
import stat

import pytest
from helpers.patch_hosts import (
    HOST,
    PATCHED,
    PATCHED_TRAIN,
    TRAIN,
    contents,
    refused,
    replace,
    snapshot,
    states,
    take_block,
)

from arcface_cakd.patching import PatchError, check, patch, revert


def test_patched_host_is_what_was_written_by_hand(host):
    patch(host)
    assert contents(host) == PATCHED
    ast.parse(PATCHED_TRAIN)


def test_second_run_writes_nothing(host):
    first = patch(host)
    before = snapshot(host)
    second = patch(host)
    assert snapshot(host) == before
    assert first.written == sorted(
        set(PATCHED) - {"configs/base.py", "docs/readme.md"} - {"utils/other.py"}
    )
    assert second.written == second.removed == []


def test_checking_writes_nothing_and_follows_the_host(host):
    before = snapshot(host)
    assert states(host) == ["unpatched", "unpatched"]
    assert snapshot(host) == before
    patch(host)
    before = snapshot(host)
    assert states(host) == ["patched", "patched"]
    assert states(host, "cakd") == ["patched"]
    assert snapshot(host) == before


def test_revert_gives_the_bytes_back(host):
    patch(host)
    outcome = revert(host)
    assert contents(host) == HOST
    assert outcome.removed == ["configs/one.py", "configs/two.py", "utils/utils_cakd.py"]


def test_reverting_what_is_not_patched_writes_nothing(host):
    before = snapshot(host)
    outcome = revert(host)
    assert outcome.written == outcome.removed == []
    assert snapshot(host) == before


def test_permissions_and_links_stay(host, tmp_path):
    os.chmod(host / "train_v2.py", 0o754)
    moved = tmp_path / "elsewhere.py"
    (host / "dataset.py").rename(moved)
    (host / "dataset.py").symlink_to(moved)
    patch(host)
    assert stat.S_IMODE((host / "train_v2.py").stat().st_mode) == 0o754
    assert (host / "dataset.py").is_symlink() and moved.read_bytes() == PATCHED["dataset.py"]
    revert(host)
    assert stat.S_IMODE((host / "train_v2.py").stat().st_mode) == 0o754
    assert moved.read_bytes() == HOST["dataset.py"]


def test_links_that_lead_nowhere_are_refused(host, tmp_path):
    before = snapshot(host)
    victim = tmp_path / "victim.py"
    for place in ("utils/utils_cakd.py", "configs/one.py"):
        (host / place).parent.mkdir(exist_ok=True)
        (host / place).symlink_to(victim)
        with pytest.raises(PatchError, match=rf"{place}: a link to {victim}, .*remove it; nothing"):
            patch(host)
        (host / place).unlink()
    (host / "utils").rename(tmp_path / "utils")
    (host / "utils").symlink_to(tmp_path / "gone")
    with pytest.raises(PatchError, match=r"utils: a link to .*gone, which is not there"):
        patch(host)
    assert not victim.exists() and not (tmp_path / "gone").exists()
    (host / "utils").unlink()
    (tmp_path / "utils").rename(host / "utils")
    assert snapshot(host).keys() == before.keys()
    patch(host)
    assert contents(host) == PATCHED


def test_what_lies_outside_of_the_host_is_named(host, tmp_path):
    moved = tmp_path / "elsewhere.py"
    (host / "dataset.py").rename(moved)
    (host / "dataset.py").symlink_to(moved)
    (host / "train_v2.py").rename(host / "mine.py")
    (host / "train_v2.py").symlink_to("mine.py")  # which is inside
    for command in (check, patch, check, revert):
        assert command(host).outside == {"dataset.py": moved}
    assert moved.read_bytes() == HOST["dataset.py"]


def test_a_checkout_of_insightface_will_do(host, tmp_path):
    inside = tmp_path / "insightface" / "recognition" / "arcface_torch"
    inside.parent.mkdir(parents=True)
    host.rename(inside)
    assert patch(tmp_path / "insightface").root == inside
    assert contents(inside) == PATCHED


def test_another_folder_is_refused(tmp_path, sets):
    (tmp_path / "train_v2.py").write_text("")
    with pytest.raises(PatchError, match=r"it lacks partial_fc_v2\.py, backbones/__init__\.py;"):
        patch(tmp_path)
    with pytest.raises(PatchError, match="no such folder"):
        patch(tmp_path / "nowhere")


def test_what_people_keep_in_the_host_is_not_searched(host):
    marker = "# >>> arcface-cakd cakd 9 x 00000000\n"
    for name in ("faces/set/labels.py", "faces/list.txt", ".git/hook.py", "log.txt"):
        path = host / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(marker)
    patch(host)
    assert states(host) == ["patched", "patched"]


# --only


def test_each_set_alone_leaves_the_lines_of_the_other(host):
    patch(host, "current-stack")
    assert states(host) == ["unpatched", "patched"]
    assert not (host / "utils/utils_cakd.py").exists() and not (host / "configs/one.py").exists()
    stack = contents(host)

    patch(host, "cakd")
    assert contents(host) == PATCHED
    revert(host, "cakd")
    assert contents(host) == stack

    patch(host)
    outcome = revert(host, "current-stack")
    assert outcome.removed == []
    assert states(host) == ["patched", "unpatched"]
    assert (host / "configs/one.py").exists() and (host / "utils/utils_cakd.py").exists()
    before = snapshot(host)
    patch(host, "cakd")
    assert snapshot(host) == before
    revert(host, "cakd")
    assert contents(host) == HOST


def test_the_other_set_is_upgraded_too_if_it_is_there(host, sets):
    patch(host)
    sets.upgrade("current-stack", ("flush()", "flush(1)"))
    outcome = patch(host, "cakd")
    assert [found.state for found in outcome.examined] == ["patched", "older"]
    assert outcome.written == ["dataset.py", "partial_fc_v2.py", "requirement.txt", "train_v2.py"]
    assert states(host) == ["patched", "patched"]
    assert "flush(1)" in (host / "train_v2.py").read_text()


def test_reverting_one_set_keeps_another_that_is_older_or_edited(host, sets):
    patch(host)
    replace(host / "train_v2.py", "    flush()", "    flush(mine)")
    sets.upgrade("current-stack", ('anchor = "    save(model)"', 'anchor = "    gone()"'))
    revert(host, "cakd")
    assert b"flush(mine)" in (host / "train_v2.py").read_bytes()
    assert (host / "dataset.py").read_bytes() == PATCHED["dataset.py"]
    assert (host / "backbones/__init__.py").read_bytes() == HOST["backbones/__init__.py"]


# What users do


def test_lines_of_the_user_survive_an_upgrade_and_a_revert(host, sets):
    patch(host)
    train = host / "train_v2.py"
    replace(train, "    model = build(cfg)\n", "    model = build(cfg)\n    mine = 1\n")
    replace(
        train,
        "    # >>> arcface-cakd cakd 1 save",
        "    mine = 2\n    # >>> arcface-cakd cakd 1 save",
    )
    sets.upgrade("cakd", ("cakd.student(model)", "cakd.student(model, 2)"))
    patch(host)
    text = train.read_text()
    assert text.index("mine = 1") < text.index("first = True")
    assert text.index("mine = 2") < text.index("cakd.student(model, 2)")
    revert(host)
    mine = TRAIN.replace("build(cfg)\n", "build(cfg)\n    mine = 1\n")
    mine = mine.replace("    save(", "    mine = 2\n    save(")
    assert contents(host) == {**HOST, "train_v2.py": mine.encode()}


def test_a_host_that_turned_to_crlf_is_still_patched(host):
    patch(host)
    for name in ("train_v2.py", "utils/utils_cakd.py", "configs/one.py"):
        path = host / name
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    before = snapshot(host)
    assert states(host) == ["patched", "patched"]
    patch(host)
    assert snapshot(host) == before
    revert(host)
    assert contents(host) == {**HOST, "train_v2.py": TRAIN.replace("\n", "\r\n").encode()}


@pytest.mark.parametrize(
    ("old", "new", "number"),
    [
        ("first = True", "first = False", 8),
        ("# ---             clip(model)", "# ---             clip(model, mine)", 14),
        ("cakd.student(model)\n", "cakd.student(model)\n    mine = 1\n", 24),
    ],
)
def test_an_edited_block_is_refused(host, old, new, number):
    patch(host)
    replace(host / "train_v2.py", old, new)
    said = [f"{host / 'train_v2.py'}:{number}: this block", "move your lines out of it"]
    refused(host, said)
    refused(host, said, revert)
    assert states(host) == ["foreign", "patched"]


def test_an_edited_added_file_is_refused(host):
    patch(host)
    replace(host / "utils/utils_cakd.py", "pass", "mine()")
    refused(host, ["utils_cakd.py: this file of arcface-cakd was edited"])
    refused(host, ["utils_cakd.py: this file of arcface-cakd was edited"], revert)


def test_a_file_in_the_place_of_an_added_one_is_refused(host):
    (host / "utils/utils_cakd.py").write_text("mine\n")
    refused(host, ["utils_cakd.py: is in the place of a file to add: rename it"])
    assert states(host) == ["foreign", "unpatched"]
    patch(host, "current-stack")


@pytest.mark.parametrize(
    "gone",
    ["    # >>> arcface-cakd cakd 1 loop 032babbe\n", "    first = True\n    # <<< arcface-cakd\n"],
)
def test_a_lone_marker_line_is_refused_wherever_it_is(host, gone):
    patch(host)
    replace(host / "train_v2.py", gone, "")
    before = snapshot(host)
    for action in (patch, check, revert):
        with pytest.raises(PatchError, match=r"train_v2.py:\d+: this marker line .* is damaged"):
            action(host)
    assert snapshot(host) == before


def test_a_fork_that_lacks_anchors_is_refused(host):
    replace(
        host / "train_v2.py",
        "    model = build(cfg)\n",
        "    model = build(cfg)\n    clip(model)\n",
    )
    replace(host / "dataset.py", "long(x)", "long(x[0])")
    (host / "requirement.txt").unlink()
    refused(
        host, ["3 of 9 edits", "cakd 'clip' in train_v2.py", "current-stack 'label'", "--check"]
    )
    cakd, stack = check(host).examined
    assert (cakd.state, stack.state) == ("foreign", "foreign")
    found = {lack.edit.id: (lack.found, lack.edit.count) for lack in (*cakd.lacks, *stack.lacks)}
    assert found == {"clip": (3, 2), "label": (0, 1), "sklearn": (None, 1)}


def test_an_anchor_is_found_in_the_lines_of_the_host_only(host, sets):
    """Lines of ours that say the same are no anchor."""
    sets.change("cakd", ("    first = True", "    save(model)"))
    patch(host)
    assert states(host) == ["patched", "patched"]
    before = snapshot(host)
    patch(host)
    assert snapshot(host) == before
    revert(host)
    assert contents(host) == HOST


# Versions


def test_upgrade_from_a_version_whose_data_is_gone(host, sets):
    """Renamed, moved, changed, dropped and new edits, and an added file that moved."""
    patch(host)
    text = sets.read("cakd")
    loop = text.index('[[edit]]\nid = "loop"')
    networks = text.index('[[edit]]\nid = "networks"')
    sets.write("cakd", text[:loop] + text[networks:])
    sets.upgrade(
        "cakd",
        ('id = "import"', 'id = "seam"'),
        ("from utils import", "from scripts import"),
        ("cakd.clip(", "cakd.clipped("),
        ("before = '''\n    return cakd", "after = '''\n    return cakd"),
        ('path = "utils/utils_cakd.py"', 'path = "scripts/utils_cakd.py"'),
    )
    assert states(host) == ["older", "patched"]
    outcome = patch(host)
    assert outcome.removed == ["utils/utils_cakd.py"]
    assert states(host) == ["patched", "patched"]
    upgraded = contents(host)
    assert b" cakd 1 " not in b"".join(upgraded.values())

    revert(host)
    assert contents(host) == HOST
    patch(host)
    assert contents(host) == upgraded


def test_a_newer_version_is_refused_but_can_be_reverted(host, sets):
    old = sets.read("cakd")
    sets.upgrade("cakd")
    patch(host)
    sets.write("cakd", old)
    refused(host, ["has version 2 of cakd", "installed version 1: upgrade arcface_cakd"])
    assert states(host) == ["foreign", "patched"]
    revert(host)
    assert contents(host) == HOST


def test_lines_of_a_set_that_is_not_known_are_refused_but_can_be_reverted(host, sets):
    sets.write(
        "later",
        sets.read("current-stack")
        .replace("current-stack", "later")
        .replace('change = ["long(x)", "int(x)"]', 'after = "        pass"')
        .replace('change = ["sklearn", ""]', 'after = "torch"'),
    )
    patch(host)
    (sets.folder / "later.toml").unlink()
    before = snapshot(host)
    for action in (patch, check):
        with pytest.raises(PatchError, match=r"patch set 'later', .* upgrade arcface_cakd"):
            action(host)
    assert snapshot(host) == before
    revert(host)
    assert contents(host) == HOST


def test_a_block_that_no_edit_of_this_version_has_is_taken_out(host):
    patch(host)
    block = take_block(host / "train_v2.py", "loop")
    patch(host)
    with open(host / "train_v2.py", "a") as train:
        train.write(block.replace("cakd 1 loop", "cakd 1 gone") + "\n")
    assert states(host) == ["older", "patched"]
    patch(host)
    assert contents(host) == PATCHED


def test_lines_that_changed_within_a_version_are_replaced(host, sets):
    patch(host)
    sets.change("cakd", ("\n        model = cakd", "\n         model = cakd"))
    assert states(host) == ["older", "patched"]
    patch(host)
    assert "         model = cakd.student(model)\n" in (host / "train_v2.py").read_text()


# Halfway


def test_an_upgrade_of_some_files_only_is_partly_one(host, sets):
    patch(host)
    old = (host / "train_v2.py").read_bytes()
    sets.upgrade("cakd", ("first = True", "first = False"))
    patch(host)
    whole = contents(host)
    (host / "train_v2.py").write_bytes(old)
    assert states(host) == ["partly", "patched"]
    patch(host)
    assert contents(host) == whole


def test_a_lost_block_is_put_back(host):
    patch(host)
    take_block(host / "train_v2.py", "loop")
    take_block(host / "train_v2.py", "import")
    assert states(host) == ["partly", "patched"]
    patch(host)
    assert contents(host) == PATCHED


def test_a_lost_added_file_is_put_back(host):
    patch(host)
    (host / "utils/utils_cakd.py").unlink()
    assert states(host) == ["partly", "patched"]
    patch(host)
    assert contents(host) == PATCHED


@pytest.mark.parametrize("action", [patch, revert])
@pytest.mark.parametrize("calls", range(8))
def test_a_run_that_dies_between_two_renames_can_be_completed(host, monkeypatch, action, calls):
    whole = {patch: PATCHED, revert: HOST}[action]
    if action is revert:
        patch(host)
    before = contents(host)
    renamed = []
    replace_file = os.replace

    def dying(source, target):
        if len(renamed) == calls:
            raise KeyboardInterrupt
        renamed.append(target)
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", dying)
    files = 8 if action is patch else 5
    if calls < files:
        with pytest.raises(KeyboardInterrupt):
            action(host)
        halfway = contents(host)
        for name in set(halfway) | set(whole):
            assert halfway.get(name) in (before.get(name), whole.get(name)), name
        assert set(halfway) <= set(before) | set(whole)  # nothing is left beside
        monkeypatch.setattr(os, "replace", replace_file)
        if calls > 2:
            assert "partly" in states(host)
    action(host)
    assert contents(host) == whole


def test_a_full_disk_changes_nothing(host, monkeypatch):
    from pathlib import Path

    write, written = Path.write_bytes, []

    def filling(path, data):
        written.append(path)
        if len(written) == 4:
            raise OSError(28, "No space left on device", str(path))
        return write(path, data)

    before = snapshot(host)
    monkeypatch.setattr(Path, "write_bytes", filling)
    with pytest.raises(OSError, match="No space"):
        patch(host)
    assert len(written) == 4 and snapshot(host) == before


def test_a_file_that_cannot_be_replaced_is_told_with_what_was_done(host, monkeypatch):
    """As a single file that is mounted; what was advised works."""
    real, targets = os.replace, []

    def replace(source, target):
        targets.append(str(target))
        if len(targets) == 3:
            raise OSError(16, "Device or resource busy", str(source), None, str(target))
        real(source, target)

    before = contents(host)
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace)
        with pytest.raises(PatchError, match=r"busy, and 2 files have been changed") as error:
            patch(host)
    assert str(error.value).startswith(targets[2]) and "\n" not in str(error.value)
    patch(host)
    revert(host)
    assert contents(host) == before
