"""Reading patch sets: what is refused, and how anchors are found and blocks are made."""

import hashlib

import pytest
from helpers.patch_hosts import CAKD, make_sets

from arcface_cakd.patching import PatchError, read_sets
from arcface_cakd.patching.anchors import block_at, find_anchor
from arcface_cakd.patching.blocks import checksum, put_in, take_out
from arcface_cakd.patching.edits import Edit, PatchSet


@pytest.fixture
def sets(tmp_path, monkeypatch):
    return make_sets(tmp_path / "patches", monkeypatch)


def test_sets_are_read_by_name(sets):
    cakd, stack = read_sets()
    assert (cakd.name, cakd.version, cakd.purpose) == ("cakd", 1, "the hooks")
    assert [edit.id for edit in cakd.edits] == ["import", "clip", "save", "loop", "networks"]
    assert cakd.added[0].path == "utils/utils_cakd.py" and "def clip" in cakd.added[0].text
    clip, loop, drop = cakd.edits[1], cakd.edits[3], stack.edits[2]
    assert (clip.anchor, clip.lines, clip.count) == (("clip(model)",), ("cakd.clip(model)",), 2)
    assert loop.anchor == ("for epoch in range(2):", "    if cfg.fp16:")
    assert (loop.lines, loop.indentation) == (("first = True",), "    ")
    assert drop.lines == ()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version = 1", "version = ", "not valid TOML"),
        ("version = 1", "version = 0", "version must be"),
        ("version = 1", 'version = "1"', "version must be"),
        ("version = 1", "version = true", "version must be"),
        ("version = 1\n", "", "version must be"),
        ('name = "cakd"', 'name = "other"', "must be the file's"),
        ('purpose = "the hooks"', 'purpose = " "', "purpose must be a text"),
        ('purpose = "the hooks"', 'aim = "x"', "unknown key 'aim'"),
        ('reason = "one import"', "", "reason must be a text"),
        ('source = "seam.py"', 'source = "gone.py"', "there is no"),
        ('path = "utils/utils_cakd.py"', 'path = "../x.py"', "path must be one of"),
        ('path = "utils/utils_cakd.py"', 'path = "/x/y.py"', "path must be one of"),
        ('path = "utils/utils_cakd.py"', 'path = "a/b/c.py"', "path must be one of"),
        ('file = "backbones/__init__.py"', 'file = "run.sh"', "file must be one of"),
        ('file = "backbones/__init__.py"', 'file = "docs/requirement.txt"', "file must be one"),
        ('id = "clip"', 'id = "import"', "'import' is there twice"),
        ('id = "clip"', 'id = "Clip it"', "an id is made of"),
        ('id = "clip"', 'id = "file"', "is not 'file'"),
        ('id = "clip"', 'name = "clip"', "unknown key 'name'"),
        ('id = "clip"', 'id = "clip"\nafter = "x"', "exactly one of"),
        ('change = ["clip(", "cakd.clip("]', "", "exactly one of"),
        ('change = ["clip(", "cakd.clip("]', 'change = ["clip("]', "change is [old, new]"),
        ('change = ["clip(", "cakd.clip("]', 'change = ["clip(", 1]', "change is [old, new]"),
        ('change = ["clip(", "cakd.clip("]', 'change = ["x", "y"]', "must occur once"),
        ('change = ["clip(", "cakd.clip("]', 'change = ["l", "y"]', "must occur once"),
        ('change = ["clip(", "cakd.clip("]', 'change = ["clip", "clip"]', "changes nothing"),
        ('change = ["clip(", "cakd.clip("]', 'change = ["clip", "a\\nb"]', "of one line"),
        ("count = 2", "count = 0", "count must be"),
        ("count = 2", "count = true", "count must be"),
        ('anchor = "clip(model)"', 'anchor = "clip(model)\\nb"', "only for an anchor of one line"),
        ('anchor = "clip(model)"\ncount = 2', 'anchor = "clip(model)\\nb"', "anchor of one line"),
        ('anchor = "clip(model)"', 'anchor = "\\nclip(model)"', "may not be blank"),
        ('anchor = "clip(model)"', "anchor = 3", "anchor must be a text"),
        ("    first = True", "    # <<< arcface-cakd", "looks like one of our markers"),
        ("    first = True", "    # --- x", "looks like one of our markers"),
    ],
)
def test_a_malformed_set_is_refused(sets, old, new, said):
    sets.change("cakd", (old, new))
    with pytest.raises(PatchError) as error:
        read_sets()
    assert said in str(error.value) and "cakd.toml" in str(error.value)
    assert "\n" not in str(error.value)


def test_entries_that_are_no_tables_are_refused(sets):
    sets.write("cakd", CAKD[: CAKD.index("[[add]]")] + 'edit = "x"\n')
    with pytest.raises(PatchError, match=r"must be written as \[\[edit\]\]"):
        read_sets()


def test_two_sets_may_not_change_one_line(sets):
    sets.change("current-stack", ('file = "dataset.py"', 'file = "train_v2.py"'))
    sets.change(
        "current-stack",
        ('anchor = "        return long(x)"', 'anchor = "  clip(model)"\ncount = 2'),
        ('"long(x)", "int(x)"', '"model", "m"'),
    )
    with pytest.raises(PatchError, match="cakd/clip and current-stack/label change the same line"):
        read_sets()


def edit(anchor, lines, action="after", count=1):
    return Edit("id", "a.py", "why", tuple(anchor), "", count, action, tuple(lines))


def test_anchor_lines_stand_together_and_are_equally_indented():
    anchor = edit(["if a:", "", "    b"], [])
    text = "if a:|    b|if a:||    b|  if a:  |  |      b|if a:||      b| xif a:||    b|if a:|"
    places = find_anchor(anchor, text.split("|"))
    assert [(place.index, place.indentation) for place in places] == [(2, ""), (5, "  ")]


def test_an_anchor_right_of_what_is_inserted_needs_the_room():
    anchor = edit(["    b,", ")"], ["a"])
    assert find_anchor(anchor, ["b,", ")"]) == []
    assert [place.indentation for place in find_anchor(anchor, ["\t    b,", "\t)"])] == ["\t"]


def test_lines_are_found_with_carriage_returns_and_changed_with_them():
    change = edit(["a b"], ["a c"], "change")
    lines = ["x\r", "  a b\r", ""]
    (place,) = find_anchor(change, lines)
    block = block_at(PatchSet("s", 3, "", (change,), ()), change, place, lines)
    digits = hashlib.sha256(b"# ---   a b\na c").hexdigest()[:8]
    assert put_in(lines, [block]) == [
        "x\r",
        f"  # >>> arcface-cakd s 3 id {digits}\r",
        "  # ---   a b\r",
        "  a c\r",
        "  # <<< arcface-cakd\r",
        "",
    ]
    pristine, (found,) = take_out(put_in(lines, [block]), "a.py")
    assert pristine == lines
    assert (found.at, found.number, found.lines) == (1, 2, block.lines)


def test_checksum_is_over_lines_without_outer_whitespace():
    expected = hashlib.sha256("a  b\n\ncaf\xe9".encode()).hexdigest()[:8]
    assert checksum(["  a  b \r", "", "\tcaf\xe9"]) == expected
    assert checksum(["  a b", "", "caf\xe9"]) != expected
    assert len(checksum([b"\xff".decode("utf-8", "surrogateescape")])) == 8
