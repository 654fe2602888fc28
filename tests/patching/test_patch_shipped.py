"""The patch sets that ship with the package, also against a checkout of the real host."""

import builtins
import dataclasses
import json
import os
import shutil

import pytest
from helpers.patch_hosts import contents, replace, snapshot
from helpers.shipped_sets import PATH, digest, shipped

from arcface_cakd.patching import PatchError, check, patch, read_sets, revert

HOST = os.environ.get("ARCFACE_TORCH")
needs_host = pytest.mark.skipif(
    not HOST, reason="ARCFACE_TORCH does not name a checkout's recognition/arcface_torch"
)


@pytest.fixture
def host(tmp_path):
    copy = tmp_path / "arcface_torch"
    shutil.copytree(HOST, copy, ignore=shutil.ignore_patterns("__pycache__", "work_dirs"))
    return copy


def test_the_shipped_sets_are_well_formed():
    cakd, stack = read_sets()
    assert (cakd.name, stack.name) == ("cakd", "current-stack")
    for patch_set in (cakd, stack):
        ids = [edit.id for edit in patch_set.edits]
        assert ids and len(ids) == len(set(ids))
    assert [file.path for file in cakd.added] == ["utils/utils_cakd.py"]
    assert not stack.added
    compile(cakd.added[0].text, "utils_cakd.py", "exec")


@pytest.mark.parametrize("installed", [True, False])
def test_without_mxnet_ours_stands_in_or_is_asked_for(installed):
    """Every file of the host that imports mxnet, where no mxnet imports."""

    def importing(name, *arguments):
        absent = ("mxnet",) if installed else ("mxnet", "arcface_cakd")
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])
        return __import__(name, *arguments)

    _, stack = read_sets()
    blocks = ["\n".join(edit.lines) for edit in stack.edits]
    blocks = [block for block in blocks if block.startswith("try:\n    import mxnet as mx")]
    assert len(blocks) == 4
    for block in blocks:
        names = {"__builtins__": {**vars(builtins), "__import__": importing}}
        if installed:
            exec(block, names)
            assert names["mx"].recordio.MXIndexedRecordIO
        else:
            with pytest.raises(SystemExit, match="arcface_cakd, which stands in for it"):
                exec(block, names)


def test_a_set_that_changed_has_a_new_version():
    """Who upgrades is told so by the version: a host keeps blocks of its own version."""
    assert shipped() == json.loads(PATH.read_text(encoding="utf-8")), (
        "the set changed: raise version and run `python tests/helpers/shipped_sets.py` to update"
    )


def test_the_digest_is_over_what_ends_up_in_a_host():
    cakd = read_sets()[0]
    first, *others = cakd.edits

    def with_first(**changes):
        return dataclasses.replace(
            cakd, edits=(dataclasses.replace(first, **changes), *others), version=9
        )

    assert digest(with_first(reason="another")) == digest(cakd)
    added = dataclasses.replace(cakd.added[0], text="another")
    others = [with_first(lines=("another",)), with_first(anchor=("another",)), with_first(id="x")]
    others += [dataclasses.replace(cakd, added=(added,)), dataclasses.replace(cakd, added=())]
    assert len({digest(cakd), *map(digest, others)}) == 1 + len(others)


@needs_host
@pytest.mark.filterwarnings("ignore::SyntaxWarning")  # the host's own
@pytest.mark.parametrize("only", [None, "cakd", "current-stack"])
def test_the_real_host_is_patched_and_reverted(host, only):
    pristine = contents(host)
    assert {found.state for found in check(host, only).examined} == {"unpatched"}
    assert patch(host, only).written
    assert {found.state for found in check(host, only).examined} == {"patched"}
    for path in host.rglob("*.py"):
        compile(path.read_bytes(), str(path), "exec")
    before = snapshot(host)
    patch(host, only)
    assert snapshot(host) == before
    revert(host, only)
    assert contents(host) == pristine


@needs_host
def test_a_fork_of_the_real_host_is_refused(host):
    lines = (host / "train_v2.py").read_text().split("\n")
    cakd = read_sets()[0]
    edit = next(
        edit
        for edit in cakd.edits
        if edit.file == "train_v2.py" and lines.count(edit.indentation + edit.anchor[0]) == 1
    )
    line = edit.indentation + edit.anchor[0]
    replace(host / "train_v2.py", f"{line}\n", f"{line}  # mine\n")
    before = snapshot(host)
    with pytest.raises(PatchError) as error:
        patch(host)
    assert f"cakd {edit.id!r} in train_v2.py" in str(error.value)
    assert snapshot(host) == before
    assert edit.id in [lack.edit.id for found in check(host).examined for lack in found.lacks]
