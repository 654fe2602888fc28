"""In the real arcface_torch, a run from a teacher's cache is one without, within float16."""

import shutil

import pytest
from helpers.host import differences, side_by_side


def cakd_of(teacher, cache=None, **entry):
    return {"teacher": {"network": "swin_mini", "weights": teacher, "cache": cache}, **entry}


@pytest.mark.parametrize("entry", [{"prompts": None}, {}], ids=["URFM", "prompts"])
def test_losses_are_those_of_a_run_without(host, teacher, tmp_path, entry):
    name = f"cache_{len(entry)}"
    with_it, without = side_by_side(
        lambda: host.train(name, cakd=cakd_of(teacher, str(tmp_path / "c"), **entry)),
        lambda: host.train(f"{name}_not", cakd=cakd_of(teacher, **entry)),
    )
    assert len(with_it.losses) == 7
    assert "of 56 images, both flips" in with_it.log
    ours, theirs = with_it.records[0], without.records[0]
    assert ours["labels"] == theirs["labels"]
    for step in range(4):  # and then roundings have grown
        assert with_it.losses[step] == pytest.approx(without.losses[step], rel=2e-3)
    assert ours["terms"][0] == pytest.approx(theirs["terms"][0], rel=1e-3, abs=1e-5)


def test_ranks_share_it_and_a_stopped_run_goes_on_to_the_bit(host, teacher, tmp_path):
    settings = {
        "num_epoch": 2,
        "processes": 2,
        "batch_size": 4,
        "cakd": cakd_of(teacher, str(tmp_path / "c"), prompts=None),
    }
    straight = host.train("cached_straight", **settings)
    host.train("cached_first", env={"STOP_BEFORE_EPOCH": "1"}, **settings)
    kept = shutil.copytree(
        host.folder / "work_dirs" / "cached_first", host.folder / "work_dirs" / "cached_resumed"
    )
    resumed = host.train("cached_resumed", output=kept, resume=True, **settings)
    assert not differences(resumed.load("model.pt"), straight.load("model.pt"))
    for rank in (0, 1):
        assert not differences(resumed.checkpoint(rank), straight.checkpoint(rank))
