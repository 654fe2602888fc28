"""Checkpoints of arcface_torch on another number of ranks: divided, joined, and after kills."""

import os
import random
import shutil
import signal

import pytest
import torch
from helpers.engine_runs import assert_same_state
from helpers.faults import flip, truncate
from helpers.full_disk import full_disk
from helpers.processes import exit_codes, run_ranks

from arcface_cakd.arcface_torch import save
from arcface_cakd.arcface_torch.other_ranks import divide_anew
from arcface_cakd.engine.checkpoint_sets import checkpoint_path, former_folder

CLASSES, E = 7, 3


def made():
    """What ``train_v2.py`` writes on one rank."""
    draw = torch.Generator().manual_seed(0)
    weight, momentum, own = (torch.randn(n, E, generator=draw) for n in (CLASSES, CLASSES, 2))
    return {
        "epoch": 1,
        "global_step": 9,
        "state_dict_backbone": {"fc.weight": own},
        "state_dict_softmax_fc": {"weight": weight},
        "state_optimizer": {
            "state": {0: {"momentum_buffer": own + 1}, 1: {"momentum_buffer": momentum}},
            "param_groups": [{"params": [0]}, {"params": [1]}],
        },
        "state_lr_scheduler": {"last_epoch": 9},
    }


def read(folder, rank=0):
    return torch.load(checkpoint_path(folder, rank), weights_only=True)


def centers(folder, ranks):
    return torch.cat([read(folder, r)["state_dict_softmax_fc"]["weight"] for r in range(ranks)])


def killed_before_its_rename(output):
    """Rank 1, when rank 0 may have done its own."""
    real = os.replace

    def replace(source, target):
        if os.environ["RANK"] == "1" and target == checkpoint_path(output, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    os.replace = replace
    divide_anew(output, CLASSES)


def divided_twice(output):
    divide_anew(output, CLASSES)
    divide_anew(output, CLASSES)  # which they are already


def test_one_rank_two_after_a_kill_and_one_again(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    torch.save(made(), checkpoint_path(output))
    # Rank 0 loses its peer in a collective, at once: it does not wait for the limit.
    assert exit_codes(killed_before_its_rename, 2, tmp_path, output) == [1, -signal.SIGKILL]
    assert len(centers(output, 1)) < CLASSES and not checkpoint_path(output, 1).exists()
    run_ranks(divided_twice, 2, tmp_path, output)
    assert torch.equal(centers(output, 2), made()["state_dict_softmax_fc"]["weight"])
    assert len(read(output, 1)["state_dict_softmax_fc"]["weight"]) == CLASSES // 2
    assert_same_state(read(former_folder(output, 9)), made())

    shutil.copy(checkpoint_path(output, 1), tmp_path / "stale.pt")
    divide_anew(output, CLASSES)
    assert_same_state(read(output), made())
    assert not checkpoint_path(output, 1).exists()
    # A kill before that was removed: it belongs to no set, and hurts none.
    shutil.copy(tmp_path / "stale.pt", checkpoint_path(output, 1))
    run_ranks(divide_anew, 2, tmp_path, output, CLASSES)
    assert torch.equal(centers(output, 2), made()["state_dict_softmax_fc"]["weight"])


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_the_set_before_takes_the_place_of_a_damaged_one(tmp_path, caplog, damage):
    """What the host saves at the end of each epoch: the last two stay."""
    path = checkpoint_path(tmp_path)
    sets = {step: {**made(), "global_step": step, "epoch": step // 9} for step in (9, 18, 27)}
    for content in sets.values():
        save(content, path)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step_18"]
    divide_anew(tmp_path, CLASSES)  # nothing is wrong
    assert_same_state(read(tmp_path), sets[27])
    assert not caplog.text
    if damage == "missing":
        path.unlink()
    else:
        (flip if damage == "flipped" else truncate)(path, random.Random(1))
    divide_anew(tmp_path, CLASSES)
    assert_same_state(read(tmp_path), sets[18])
    assert "going on from that of step 18" in caplog.text


def test_a_checkpoint_that_cannot_be_written_is_one_line(tmp_path, capsys):
    save(made(), checkpoint_path(tmp_path))
    with full_disk(500), pytest.raises(SystemExit):
        save({**made(), "global_step": 18}, checkpoint_path(tmp_path))
    said = capsys.readouterr().err
    assert said.startswith("arcface-cakd: error: ") and said.count("\n") == 1
    assert_same_state(read(tmp_path), made())


def test_what_is_of_other_people_is_left_alone(tmp_path):
    torch.save(made(), checkpoint_path(tmp_path))
    before = checkpoint_path(tmp_path).read_bytes()
    divide_anew(tmp_path, CLASSES + 1)
    assert checkpoint_path(tmp_path).read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
