"""Forks: blocks that their owners put in by hand, and what they do to the blocks of ours."""

import ast

import pytest
from helpers.patch_hosts import (
    HOST,
    TRAIN,
    contents,
    lacks,
    paste,
    printed,
    refused,
    replace,
    snapshot,
    states,
)

from arcface_cakd.patching import check, patch, revert

STORE = TRAIN.replace("    save(model)", "    store(model)")


@pytest.fixture
def fork(host):
    """A host whose last line is another one, and which so lacks an anchor of each set."""
    (host / "train_v2.py").write_text(STORE)
    return host


def notes(host):
    return [note for found in check(host).examined for note in found.notes]


# A block put in by hand


def test_what_a_check_prints_can_be_pasted_and_the_rest_patched(fork):
    before = contents(fork)
    refused(fork, ["2 of 9 edits", "cakd 'save'", "current-stack 'before-saving'"])
    blocks = printed(fork)
    assert blocks[0].split("\n")[0] == "    # >>> arcface-cakd cakd 1 save by-hand"
    paste(fork, "    store(model)", "\n".join(blocks) + "\n    store(model)")

    assert states(fork) == ["partly", "partly"]
    patch(fork)
    assert states(fork) == ["patched", "patched"]
    text = (fork / "train_v2.py").read_text()
    assert all(block in text for block in blocks) and "cakd.clip(model)" in text
    twice = snapshot(fork)
    patch(fork)
    assert snapshot(fork) == twice
    revert(fork)
    assert contents(fork) == before


def test_a_pasted_block_may_be_fitted_to_the_fork(fork, sets):
    before = contents(fork)
    save, stack = printed(fork)
    fitted = save.replace("cakd.student(model)", "cakd.student(model, 10)")
    paste(fork, "    store(model)", f"{fitted}\n{stack}\n    store(model)")
    patch(fork)
    assert states(fork) == ["patched", "patched"]
    assert fitted in (fork / "train_v2.py").read_text()

    sets.upgrade("cakd", ("cakd.student(model)", "other(model)"), ("first = True", "first = 2"))
    assert states(fork) == ["older", "patched"]
    patch(fork)
    assert states(fork) == ["patched", "patched"]
    text = (fork / "train_v2.py").read_text()
    assert fitted in text and "first = 2" in text
    (note,) = notes(fork)
    assert note.startswith("train_v2.py:") and "cakd save" in note and "version 1" in note
    replace(fork / "train_v2.py", "cakd 1 save by-hand", "cakd 2 save by-hand")
    assert notes(fork) == []
    revert(fork)
    assert contents(fork) == before


def test_a_block_by_hand_stays_where_its_edit_is_gone(fork, sets):
    save, stack = printed(fork)
    paste(fork, "    store(model)", f"{save}\n{stack}\n    store(model)")
    patch(fork)
    sets.upgrade("cakd", ('id = "save"', 'id = "keep"'), ("    save(model)", "    model = build("))
    sets.change("cakd", ("    model = build(", "    model = build(cfg)"))
    outcome = patch(fork)
    assert states(fork) == ["patched", "patched"]
    assert save in (fork / "train_v2.py").read_text()
    (note,) = outcome.examined[0].notes
    assert "cakd save, which version 2 does not have" in note


def test_the_owner_of_a_fork_gets_his_own_line_back(host):
    dataset = host / "dataset.py"
    replace(dataset, "return long(x)", "return long(x[0])")
    before = contents(host)
    (block,) = printed(host)
    assert "\n        # ---         return long(x)\n" in block
    block = block.replace("long(x)", "long(x[0])").replace("int(x)", "int(x[0])")
    paste(host, "        return long(x[0])\r", block.replace("\n", "\r\n") + "\r")
    patch(host)
    assert states(host) == ["patched", "patched"]
    assert b"\r\n        return int(x[0])\r\n" in dataset.read_bytes()
    revert(host)
    assert contents(host) == before


def test_an_edited_block_is_adopted_by_marking_it(host):
    """In an unchanged host, where the anchor is there: ours must not come beside it."""
    patch(host)
    train = host / "train_v2.py"
    replace(train, "first = True", "first = False")
    refused(host, ["put by-hand in the place of its checksum"])
    replace(train, "loop 032babbe", "loop by-hand")
    replace(train, "clip 1a8df936", "clip by-hand")  # one of two
    replace(train, "                cakd.clip(model)\n", "                cakd.clip(model, 2)\n")
    before = snapshot(host)
    assert states(host) == ["patched", "patched"]
    patch(host)
    assert snapshot(host) == before
    revert(host)
    assert contents(host) == HOST


def test_what_is_missing_comes_beside_a_block_by_hand(host):
    """One of two places by hand: the other is found, and the first is not found again."""
    before = contents(host)
    patch(host)
    clip = "            # >>> arcface-cakd cakd 1 clip by-hand\n            # ---             "
    clip += "clip(model)\n            mine(model)\n            # <<< arcface-cakd"
    revert(host)
    text = TRAIN.replace("            clip(model)", clip, 1)
    (host / "train_v2.py").write_text(text)
    assert states(host, "cakd") == ["partly"]
    patch(host)
    assert states(host) == ["patched", "patched"]
    train = (host / "train_v2.py").read_text()
    assert train.count("mine(model)") == train.count("cakd.clip(model)") == 1
    revert(host)
    assert contents(host) == before


def test_the_other_set_keeps_its_blocks_by_hand(fork):
    save, stack = printed(fork)
    paste(fork, "    store(model)", f"{save}\n{stack}\n    store(model)")
    patch(fork, "cakd")
    assert stack in (fork / "train_v2.py").read_text()
    assert states(fork) == ["patched", "partly"]


def test_blocks_at_one_place_keep_the_order_that_the_fork_gives_them(fork):
    save, stack = printed(fork)
    paste(fork, "    store(model)", f"{stack}\n{save}\n    store(model)")
    patch(fork)
    assert f"{stack}\n{save}\n" in (fork / "train_v2.py").read_text()


def test_a_block_may_stand_deeper_in_a_fork(host, sets):
    dataset = host / "dataset.py"
    replace(
        dataset, "        return long(x)\r\n", "        if x:\r\n            return long(x[0])\r\n"
    )
    before = contents(host)
    lines = printed(host)[0].replace("long(x)", "long(x[0])").split("\n")
    block = "".join(f"    {line}\r\n" for line in lines)
    assert "            # ---         return long(x[0])\r\n" in block
    paste(host, "            return long(x[0])\r\n", block)
    patch(host)
    sets.upgrade("current-stack")
    patch(host)
    assert block.encode() in dataset.read_bytes()
    revert(host)
    assert contents(host) == before


# How many


def test_one_block_by_hand_is_not_enough_where_two_must_be(host):
    replace(
        host / "train_v2.py",
        "            clip(model)\n        else",
        "            c()\n        else",
    )
    replace(host / "train_v2.py", "                clip(model)", "                d()")
    (block,) = printed(host, "cakd")
    paste(host, "c()", block.strip())
    refused(host, ["1 of 9 edits", "cakd 'clip'"])
    (lack,) = lacks(host)
    assert (lack.found, lack.by_hand, lack.edit.count) == (0, 1, 2)
    assert states(host, "cakd") == ["foreign"]
    paste(host, "d()", block.strip())
    patch(host)
    assert states(host) == ["patched", "patched"]


def test_one_block_of_ours_is_not_enough_where_two_must_be(host):
    patch(host)
    train = host / "train_v2.py"
    text = train.read_text()
    first = text.index("                # >>> arcface-cakd cakd 1 clip 1a8df936")
    last = text.index("    # >>> arcface-cakd cakd 1 save")
    train.write_text(text[:first] + "                other(model)\n" + text[last:])
    refused(host, ["cakd 'clip'"])
    (lack,) = lacks(host)
    assert (lack.found, lack.edit.count) == (1, 2)


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_block_that_replaces_a_line_and_is_there_twice_is_refused(host, by_hand):
    patch(host)
    dataset = host / "dataset.py"
    if by_hand:
        replace(dataset, "label 02146ead", "label by-hand")
    text = dataset.read_bytes()
    block = text[text.index(b"        # >>>") :]
    dataset.write_bytes(text + block)
    refused(host, ["current-stack 'label' in dataset.py"])
    (lack,) = lacks(host)
    assert (lack.found, lack.by_hand) == ((0, 2) if by_hand else (2, 0))
    revert(host)
    assert dataset.read_bytes() == HOST["dataset.py"] + b"        return long(x)\r\n"


@pytest.mark.parametrize("by_hand", [False, True])
def test_an_inserted_block_that_is_there_twice_is_taken_out_once(host, by_hand):
    patch(host)
    partial_fc = host / "partial_fc_v2.py"
    text = partial_fc.read_bytes()
    block = text[text.index(b"\t# >>>") :]
    first = block.replace(b"6c7c6b1e", b"by-hand") if by_hand else block
    partial_fc.write_bytes(text.replace(block, first) + b"\n" + block)
    assert states(host) == ["patched", "partly"]
    patch(host)
    assert partial_fc.read_bytes() == text.replace(block, first)
    assert states(host) == ["patched", "patched"]


# Indentation


@pytest.mark.parametrize("shift", ["    ", "  ", "\t"])
def test_revert_follows_a_region_that_was_indented_anew(host, shift):
    patch(host)
    train = host / "train_v2.py"

    def deeper(text):
        head, body = text.split("def main(cfg):\n")
        body = "\n".join(shift + line if line else line for line in body.split("\n"))
        return f"{head}def main(cfg):\n{shift}if True:\n{body}"

    train.write_text(deeper(train.read_text()))
    assert states(host) == ["patched", "patched"]
    revert(host)
    assert train.read_text() == deeper(TRAIN)
    if shift == "    ":
        ast.parse(train.read_text())


def test_revert_follows_a_line_that_went_left(host):
    patch(host)
    dataset = host / "dataset.py"
    dataset.write_bytes(dataset.read_bytes().replace(b"\n        ", b"\n    "))
    revert(host)
    assert dataset.read_bytes() == HOST["dataset.py"].replace(b"\n        ", b"\n    ")


def test_an_upgrade_follows_a_region_that_was_indented_anew(host, sets):
    patch(host)
    dataset = host / "dataset.py"
    dataset.write_bytes(dataset.read_bytes().replace(b"\n        ", b"\n            "))
    sets.upgrade("current-stack", ('"int(x)"', '"float(x)"'))
    patch(host)
    assert b"            # ---             return long(x)\r\n" in dataset.read_bytes()
    revert(host)
    assert dataset.read_bytes() == HOST["dataset.py"].replace(b"\n        ", b"\n            ")


def test_a_change_that_indents_its_line_is_reverted(host, sets):
    sets.change("current-stack", ('"long(x)", "int(x)"', '"return", "    return"'))
    patch(host)
    revert(host)
    assert contents(host) == HOST


# Blocks of ours whose anchor somebody changed


def test_a_block_of_ours_stays_where_its_anchor_was_changed(host, sets):
    patch(host)
    train = host / "train_v2.py"
    replace(train, "    save(model)", "    store(model)")
    assert states(host) == ["patched", "patched"]
    sets.upgrade("cakd", ("first = True", "first = False"))
    assert states(host) == ["older", "patched"]
    patch(host)
    assert states(host) == ["patched", "patched"]
    assert "cakd 2 save 984f67c5" in train.read_text()

    sets.change("cakd", ("version = 2", "version = 3"), ("cakd.student(model)", "other(model)"))
    refused(host, ["1 of 9 edits", "cakd 'save'"])
    assert "        model = other(model)" in printed(host)[0]
