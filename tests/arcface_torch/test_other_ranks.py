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
from arcface_cakd.distributed import rank, world_size
from arcface_cakd.engine.checkpoint_sets import checkpoint_path, former_folder
from arcface_cakd.engine.errors import CheckpointError

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


OF_A_LOSS = "losses.adadistill.centers"
BATCH = 12


def written_by(folder, ranks, learns=True):
    """What a patched host of so many ranks writes, with a loss that shards; its whole rows."""
    folder.mkdir(exist_ok=True)
    rows = torch.arange(float(CLASSES))[:, None].repeat(1, E)
    size = -(-CLASSES // ranks)
    start = 0
    for number in range(ranks):
        count = CLASSES // ranks + (number < CLASSES % ranks)
        own = rows[start : start + count]
        start += count
        kept = torch.cat([own, torch.zeros(size - count, E)])
        weight = own + 100 if learns else torch.full((1, E), float(number))
        settings = {"batch_size": str(BATCH // ranks)}
        cakd = {"rng": None, "gradients": None, "settings": settings, "ranks": ranks}
        content = {
            **made(),
            "state_dict_backbone": {OF_A_LOSS: kept},
            "state_dict_softmax_fc": {"weight": weight},
            "state_optimizer": {"state": {}, "param_groups": [{"params": [0]}, {"params": [1]}]},
            "cakd": cakd,
        }
        torch.save(content, checkpoint_path(folder, number))
    return rows


def divided(output, learns=True, batch_size=None):
    """Divide, and what this rank then has of the loss, of Partial FC, and as ranks."""
    divide_anew(
        output,
        CLASSES if learns else None,
        batch_size=batch_size,
        sharded=[OF_A_LOSS],
        identities=CLASSES,
    )
    content = read(output, rank())
    count = CLASSES // world_size() + (rank() < CLASSES % world_size())
    kept, weight = content["state_dict_backbone"][OF_A_LOSS], content["state_dict_softmax_fc"]
    # Of which each rank has its share, so that it can be gone back.
    assert content["cakd"]["settings"]["batch_size"] == str(BATCH // world_size())
    return kept[:count].tolist(), weight["weight"].tolist(), content["cakd"]["ranks"]


@pytest.mark.parametrize(("then", "now"), [(1, 2), (2, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("learns", [True, False])
def test_what_losses_shard_is_divided_with_the_class_centres(tmp_path, then, now, learns):
    rows = written_by(tmp_path / "out", then, learns)
    if now == 1:
        parts = [divided(tmp_path / "out", learns)]
    else:
        parts = run_ranks(divided, now, tmp_path, tmp_path / "out", learns)
    assert [row for kept, _, _ in parts for row in kept] == rows.tolist()
    assert {ranks for _, _, ranks in parts} == {now}
    if learns:
        assert [row for _, weight, _ in parts for row in weight] == (rows + 100).tolist()
    else:  # a row each, which nothing learns
        assert all(len(weight) == 1 for _, weight, _ in parts)


def refuse(content, path):
    raise CheckpointError(f"{path} does not fit")


def of_former_versions(output):
    for path in output.glob("*.pt"):
        content = torch.load(path, weights_only=True)
        del content["cakd"]["ranks"]
        torch.save(content, path)


@pytest.mark.parametrize("learns", [True, False])
def test_a_whole_set_that_does_not_say_its_ranks_is_left_alone(tmp_path, caplog, learns):
    output = tmp_path / "out"
    written_by(output, 1, learns)
    of_former_versions(output)
    before = checkpoint_path(output).read_bytes()
    divide_anew(output, CLASSES if learns else None, sharded=[OF_A_LOSS], identities=CLASSES)
    assert checkpoint_path(output).read_bytes() == before and not caplog.messages
    written_by(output, 2, learns)  # and another number is seen by the files
    of_former_versions(output)
    kept, _, ranks = divided(output, learns)
    assert len(kept) == CLASSES and ranks == 1


def test_a_set_of_the_built_in_loop_says_its_ranks_and_images(tmp_path):
    output = tmp_path / "out"
    written_by(output, 2)
    for path in output.glob("*.pt"):
        content = torch.load(path, weights_only=True)
        del content["cakd"]
        content["config"] = {"ranks": 2, "batch_size": BATCH // 2}
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=f"set batch_size to {BATCH}, or"):
        divide_anew(output, CLASSES, batch_size=BATCH // 2)
    divide_anew(output, CLASSES, batch_size=BATCH, sharded=[OF_A_LOSS], identities=CLASSES)
    assert read(output)["config"] == {"ranks": 1, "batch_size": BATCH}


def test_a_set_that_does_not_fit_is_left_as_it_was(tmp_path):
    written_by(tmp_path / "out", 2)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(CheckpointError, match="does not fit"):
        divide_anew(
            tmp_path / "out", CLASSES, check=refuse, sharded=[OF_A_LOSS], identities=CLASSES
        )
    with pytest.raises(CheckpointError, match=f"set batch_size to {BATCH}, or"):
        divided(tmp_path / "out", batch_size=BATCH // 2)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    divided(tmp_path / "out", batch_size=BATCH)  # as advised
