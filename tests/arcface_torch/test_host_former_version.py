"""A host that an earlier version of the package patched, under this one."""

import shutil
from pathlib import Path

import pytest
from helpers.host import Host

from arcface_cakd import patching
from arcface_cakd.patching import host as patching_host
from arcface_cakd.patching import read_sets
from arcface_cakd.resources import resource_dir

# The set `cakd` as of its version 2, as this repository had it.
FORMER = Path(__file__).parents[1] / "golden" / "patches_2"


@pytest.fixture(scope="module")
def former(checkout, host, tmp_path_factory) -> Host:
    folder = tmp_path_factory.mktemp("former")
    patches = shutil.copytree(resource_dir("patches"), folder / "patches")
    shutil.copytree(FORMER, patches, dirs_exist_ok=True)
    ignored = shutil.ignore_patterns("work_dirs", "__pycache__")
    copy = shutil.copytree(checkout, folder / "arcface_torch", ignore=ignored)
    patching.revert(copy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patching_host, "read_sets", lambda: read_sets(patches))
        patching.patch(copy, recipes=[])
    return Host(copy, **host.defaults)


def test_it_distils_and_trains_plainly_as_one_of_today(former, host, teacher):
    cakd = {"teacher": {"network": "swin_mini", "weights": teacher}, "prompts": {}}
    for name, settings in (("distilled", {"cakd": cakd}), ("plain", {})):
        then = former.train(name, **settings)
        now = host.train(f"former_{name}", **settings)
        assert len(then.losses) == 7 and then.losses == now.losses
        assert then.records[0]["terms"] == now.records[0]["terms"]
        assert ("urfm_feature" in then.log) == (name == "distilled")
    current = {found.patch_set.name: found for found in patching.check(former.folder).examined}
    assert current["cakd"].versions == (2,)
