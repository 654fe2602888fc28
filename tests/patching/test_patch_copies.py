"""Files that carry lines of ours and are the user's: copies and links."""

import pytest
from helpers.patch_hosts import (
    HOST,
    PATCHED,
    TRAIN,
    contents,
    make_host,
    refused,
    replace,
    snapshot,
    states,
)

from arcface_cakd.patching import check, patch, revert


@pytest.fixture
def copied(host):
    """A patched host in which train_v2.py was copied."""
    patch(host)
    (host / "train_mine.py").write_bytes(PATCHED["train_v2.py"])
    return host


# Links


@pytest.mark.parametrize("name", ["train_link.py", "a_link.py", "utils/link.py"])
def test_a_link_to_a_file_of_the_host_is_no_second_file(host, name):
    (host / name).symlink_to(host / "train_v2.py")
    (host / "bb").symlink_to("backbones")
    for _ in range(2):
        patch(host)
        assert (host / "train_v2.py").read_bytes() == PATCHED["train_v2.py"]
        assert states(host) == ["patched", "patched"]
        assert check(host).copies == []
    revert(host)
    assert (host / name).is_symlink() and (host / "bb").is_symlink()
    assert contents(host) == {**HOST, name: TRAIN.encode()}


def test_the_link_counts_if_an_edit_names_it(host):
    (host / "dataset.py").rename(host / "data_mine.py")
    (host / "dataset.py").symlink_to("data_mine.py")
    patch(host)
    assert (host / "data_mine.py").read_bytes() == PATCHED["dataset.py"]
    revert(host)
    assert (host / "data_mine.py").read_bytes() == HOST["dataset.py"]


def test_what_a_link_of_a_recipes_name_leads_to_is_kept(host):
    (host / "configs/mine.py").write_text("mine = 1\n")
    (host / "configs/one.py").symlink_to("mine.py")
    assert patch(host).kept == ["configs/one.py"]
    assert (host / "configs/mine.py").read_text() == "mine = 1\n"


# Copies


def test_a_copy_keeps_its_hooks(copied, sets):
    before = snapshot(copied)
    assert check(copied).copies == patch(copied).copies == ["train_mine.py"]
    assert states(copied) == ["patched", "patched"]
    assert snapshot(copied) == before
    sets.upgrade("cakd", ("first = True", "first = False"))
    outcome = patch(copied)
    assert outcome.copies == ["train_mine.py"] and "train_v2.py" in outcome.written
    assert (copied / "train_mine.py").read_bytes() == PATCHED["train_v2.py"]
    assert states(copied) == ["patched", "patched"]


def test_a_copy_that_was_edited_does_not_hinder(copied, sets):
    mine = copied / "train_mine.py"
    replace(mine, "first = True", "first = mine")
    text = mine.read_bytes()
    sets.upgrade("cakd")
    patch(copied)
    assert states(copied) == ["patched", "patched"] and mine.read_bytes() == text
    outcome = revert(copied)
    assert outcome.copies == ["train_mine.py"]
    (left,) = outcome.left
    assert left.startswith("train_mine.py:5: ") and "edited" in left
    kept = TRAIN.replace(
        "    for epoch",
        "    # >>> arcface-cakd cakd 1 loop 032babbe\n    first = mine\n    # <<< arcface-cakd\n"
        "    for epoch",
    )
    assert contents(copied) == {**HOST, "train_mine.py": kept.encode()}


def test_a_copy_with_a_damaged_marker_does_not_hinder(copied):
    mine = copied / "train_mine.py"
    replace(mine, "    first = True\n    # <<< arcface-cakd\n", "")
    text = mine.read_bytes()
    assert check(copied).copies == patch(copied).copies == ["train_mine.py"]
    (left,) = revert(copied).left
    assert "train_mine.py" in left and "damaged" in left
    assert contents(copied) == {**HOST, "train_mine.py": text}


def test_reverting_takes_the_blocks_out_of_copies_too(copied):
    revert(copied, "cakd")
    mine = (copied / "train_mine.py").read_bytes()
    assert mine == (copied / "train_v2.py").read_bytes() and b"flush()" in mine
    outcome = revert(copied)
    assert outcome.copies == ["train_mine.py"] and outcome.left == []
    assert contents(copied) == {**HOST, "train_mine.py": TRAIN.encode()}


def test_a_copy_in_a_host_that_is_not_patched_does_not_count(host):
    (host / "train_mine.py").write_bytes(PATCHED["train_v2.py"])
    assert states(host) == ["unpatched", "unpatched"]
    patch(host)
    assert contents(host) == {**PATCHED, "train_mine.py": PATCHED["train_v2.py"]}


@pytest.mark.parametrize("edited", [False, True])
def test_a_copy_of_an_added_file_is_kept(host, edited):
    patch(host)
    mine = host / "utils/mine.py"
    text = PATCHED["utils/utils_cakd.py"].replace(b"pass", b"mine()" if edited else b"pass")
    mine.write_bytes(text)
    assert patch(host).copies == ["utils/mine.py"]
    assert states(host) == ["patched", "patched"] and mine.read_bytes() == text
    (left,) = revert(host).left
    assert left.startswith("utils/mine.py: ")
    assert contents(host) == {**HOST, "utils/mine.py": text}


def test_a_file_that_only_an_older_version_edited_is_no_copy(tmp_path, sets, recipes):
    host = make_host(tmp_path / "host")
    text = sets.read("current-stack")
    patch(host)
    first = text.index('[[edit]]\nid = "label"')
    last = text.index('[[edit]]\nid = "tail"')
    sets.write("current-stack", (text[:first] + text[last:]).replace("version = 1", "version = 2"))
    assert states(host) == ["patched", "older"]
    outcome = patch(host)
    assert outcome.copies == [] and (host / "dataset.py").read_bytes() == HOST["dataset.py"]
    assert states(host) == ["patched", "patched"]


def test_an_edited_block_in_a_file_of_the_host_still_hinders(copied):
    replace(copied / "train_v2.py", "first = True", "first = mine")
    refused(copied, [f"{copied / 'train_v2.py'}:8: this block"])
    refused(copied, [f"{copied / 'train_v2.py'}:8: this block"], revert)
