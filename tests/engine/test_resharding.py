"""Another number of ranks: what is divided anew is the same, to the bit, and so is what follows."""

import dataclasses
import shutil
from collections import OrderedDict

import numpy as np
import pytest
import torch
from helpers.engine_runs import assert_same_state, small_config
from helpers.processes import as_torchrun, run_ranks
from torch import nn

from arcface_cakd.engine import CheckpointError, checkpoint_path, train
from arcface_cakd.engine.checkpoint_reading import newest_whole
from arcface_cakd.engine.checkpoint_sets import former_folder
from arcface_cakd.engine.resharding import joined_gradients, mean_of, resharded

E = 3
CENTERS = "losses.own.centers"


def whole(classes, optimizer):
    """A made checkpoint of one rank."""
    draw = torch.Generator().manual_seed(classes)

    def random(*size):
        return torch.randn(size, generator=draw)

    kept = {"momentum_buffer": random(classes, E)}
    if optimizer == "adamw":
        kept = {"step": torch.tensor(5.0), "exp_avg": random(classes, E)}
    return {
        "global_step": 7,
        "state_dict_backbone": {
            "fc.weight": random(E, 5),
            "losses.own.centers": random(classes, 2),
        },
        "state_dict_softmax_fc": {"weight": random(classes, E), "margin_softmax.std": random(1)},
        "state_optimizer": {
            "state": {0: {"momentum_buffer": random(E, 5)}, 1: kept},
            "param_groups": [{"params": [0]}, {"params": [1]}],
        },
    }


def divided(contents, ranks, classes):
    return [resharded(contents, number, ranks, [CENTERS], classes) for number in range(ranks)]


@pytest.mark.parametrize("classes", [3, 7, 10])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_there_and_back_is_equal_to_the_bit(classes, optimizer):
    one = whole(classes, optimizer)
    two = divided([one], 2, classes)
    three = divided(two, 3, classes)
    for number, rows in enumerate(np.array_split(np.arange(classes), 3)):
        own = three[number]
        state = own["state_optimizer"]["state"]
        (name,) = {"momentum_buffer", "exp_avg"} & state[1].keys()
        for part, all_of_it in (
            (own["state_dict_softmax_fc"]["weight"], one["state_dict_softmax_fc"]["weight"]),
            (state[1][name], one["state_optimizer"]["state"][1][name]),
        ):
            assert torch.equal(part, all_of_it[rows])
        padded = own["state_dict_backbone"][CENTERS]
        expected = one["state_dict_backbone"][CENTERS][rows]
        assert len(padded) == -(-classes // 3) and torch.equal(padded[: len(rows)], expected)
        assert torch.equal(
            own["state_dict_backbone"]["fc.weight"], two[0]["state_dict_backbone"]["fc.weight"]
        )
    (back,) = divided(three, 1, classes)
    assert_same_state(one, back)


def test_the_versions_of_modules_stay():
    """A state dict tells them beside its keys, and modules load by them."""
    one = {**whole(7, "sgd"), "state_dict_backbone": nn.BatchNorm1d(2).state_dict()}
    one["state_dict_softmax_fc"] = OrderedDict(one["state_dict_softmax_fc"])
    two = [resharded([one], number, 2) for number in range(2)]
    back = resharded(two, 0, 1)
    assert back["state_dict_backbone"]._metadata[""] == {"version": 2}
    assert_same_state(one, back)
    assert len(one["state_dict_softmax_fc"]["weight"]) == 7


@pytest.mark.parametrize("seed", range(3))
def test_gradients_of_a_step_that_is_not_complete(seed):
    draw = np.random.default_rng(seed)
    replicated, centers = draw.normal(size=(2, 4)), draw.normal(size=(5, E))
    shards = np.array_split(centers, 2)
    before = [[torch.tensor(replicated[r]), None, torch.tensor(shards[r])] for r in range(2)]
    after = [joined_gradients(before, r, 3, has_centers=True) for r in range(3)]
    for number, rows in enumerate(np.array_split(centers, 3)):
        np.testing.assert_allclose(after[number][0], replicated.mean(0), rtol=1e-12)
        assert after[number][1] is None
        np.testing.assert_array_equal(after[number][2], rows)
    # Once they are the same on all ranks, no rounding changes them any more.
    assert torch.equal(mean_of([gradients[0] for gradients in after]), after[0][0])


def trained(config, stop):
    as_torchrun()
    return train(config, stop_after_step=stop).global_step


@pytest.fixture(scope="module")
def plain(faces, tmp_path_factory):
    """A network without BatchNorm: a straight run, and one that stopped after 2 steps of 9."""
    folder = tmp_path_factory.mktemp("plain")
    config = small_config(
        faces, folder / "straight", network="test_plain", num_classes=7, batch_size=12,
        num_epoch=3, checkpoint_every=2, keep_checkpoints=3,
    )  # fmt: skip
    train(config)
    stopped = dataclasses.replace(config, output=str(folder / "stopped"))
    train(stopped, stop_after_step=2)
    return config, dataclasses.replace(stopped, resume="auto")


def end_of(config):
    read = torch.load(checkpoint_path(config.output), weights_only=True)
    return {**read["state_dict_backbone"], "centers": read["state_dict_softmax_fc"]["weight"]}


def test_other_ranks_end_where_one_does(plain, tmp_path):
    """One rank to step 2, two to step 4, one to the end."""
    straight, stopped = plain
    config = dataclasses.replace(stopped, output=str(tmp_path / "run"))
    shutil.copytree(stopped.output, config.output)
    two = dataclasses.replace(config, batch_size=6)
    assert run_ranks(trained, 2, tmp_path, two, 4, timeout=300) == [4, 4]
    assert checkpoint_path(config.output, 1).is_file()
    assert train(config).global_step == 9
    assert not checkpoint_path(config.output, 1).exists()
    expected, found = end_of(straight), end_of(config)
    for name, tensor in expected.items():
        assert (tensor - found[name]).abs().max() < 1e-5, name


def test_another_global_batch_is_refused_with_a_way_that_works(plain):
    _, stopped = plain
    content = torch.load(checkpoint_path(stopped.output), weights_only=True)
    content["config"].update(ranks=2, batch_size=12)
    output = stopped.output + "_two"
    for number in range(2):
        checkpoint_path(output, number).parent.mkdir(exist_ok=True)
        torch.save(content, checkpoint_path(output, number))
    config = dataclasses.replace(stopped, output=output, num_classes=14)
    with pytest.raises(CheckpointError, match="set batch_size to 24, or") as error:
        train(config)
    assert "\n" not in str(error.value)
    checkpoint_path(output, 1).unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint .*checkpoint_gpu_1\.pt"):
        train(config)


def hosts(content):
    """What arcface_torch's own loop would have written in its place, at the end of an epoch."""
    keys = (
        "epoch",
        "global_step",
        "state_dict_backbone",
        "state_dict_softmax_fc",
        "state_optimizer",
    )
    scheduler = {"last_epoch": content["global_step"], "total_iters": 9, "warmup_iters": 0}
    return {**{key: content[key] for key in keys}, "state_lr_scheduler": scheduler}


def test_a_checkpoint_of_arcface_torch_is_taken_over(plain, tmp_path, caplog):
    """At the end of an epoch a network without random numbers goes on as it would have."""
    straight, _ = plain
    config = dataclasses.replace(straight, output=str(tmp_path / "run"), resume=True)
    shutil.copytree(straight.output, config.output)
    path = checkpoint_path(config.output)
    former = torch.load(checkpoint_path(former_folder(config.output, 6)), weights_only=True)
    assert (former["epoch"], former["batch"]) == (2, 0)
    torch.save(hosts(former), path)
    assert train(config).global_step == 9
    assert "is arcface_torch's: going on at epoch 2" in caplog.text
    assert_same_state(end_of(straight), end_of(config))


@pytest.mark.parametrize("stale", [True, False])
def test_what_losses_shard_in_arcface_torch_is_joined(tmp_path, stale):
    """Of as many files as its checkpoint says, whatever a kill left beside them."""
    one = {**whole(7, "sgd"), "epoch": 1, "state_lr_scheduler": {}}
    parts = divided([one], 2, 7)
    for number, part in enumerate([*parts, parts[1]] if stale else parts):
        said = {"cakd": {"ranks": 2}} if stale else {}
        torch.save({**part, **said}, checkpoint_path(tmp_path, number))
    content, _ = newest_whole(tmp_path, [CENTERS])
    for key in ("state_dict_backbone", "state_dict_softmax_fc", "state_optimizer"):
        assert_same_state(dict(content[key]), dict(one[key]))


def test_another_global_batch_than_arcface_torch_s_is_refused(plain, tmp_path):
    config = dataclasses.replace(plain[0], output=str(tmp_path / "run"), resume=True)
    shutil.copytree(plain[0].output, config.output)
    path = checkpoint_path(config.output)
    former = hosts(torch.load(path, weights_only=True))
    kept = {"scaler": {}, "ranks": 1, "settings": {"batch_size": "24"}}
    torch.save({**former, "cakd": kept}, path)
    with pytest.raises(CheckpointError, match="set batch_size to 24, or"):
        train(config)


def test_what_is_neither_is_refused(plain, tmp_path):
    config = dataclasses.replace(plain[0], output=str(tmp_path), resume=True)
    torch.save({"global_step": 3, "epoch": 1}, checkpoint_path(tmp_path))
    with pytest.raises(CheckpointError, match="neither this loop's checkpoint nor"):
        train(config)
