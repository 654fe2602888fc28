"""The real arcface_torch, patched, trains a config without ``cakd``."""

import math
import re

import pytest
import torch
from helpers.host import side_by_side

LONG = {"network": "mbf", "batch_size": 4, "frequent": 5, "verbose": 20, "val_targets": ["lfw"]}


@pytest.fixture(scope="module", params=[1, 2], ids=["1 process", "2 processes"])
def plain(request, host, mended_host):
    """42 steps with both sets of patches, and as far as the third epoch without ``cakd``'s."""
    processes, epochs = request.param, 3 * request.param
    settings = {"processes": processes, "num_epoch": epochs, **LONG}
    stopped = {"STOP_BEFORE_EPOCH": "2"}
    return side_by_side(
        lambda: host.train(f"plain_{processes}", **settings),
        lambda: mended_host.train(f"plain_{processes}", env=stopped, **settings),
    )


def test_trains_validates_and_saves(plain):
    run, _ = plain
    assert len(run.losses) == 42
    assert all(map(math.isfinite, run.losses))
    assert len(set(run.losses)) == 42
    accuracies = re.findall(r"\[lfw\]\[(\d+)\]Accuracy-Flip: ([\d.]+)", run.log)
    assert [int(step) for step, _ in accuracies] == [20, 40]
    assert all(0 <= float(accuracy) <= 1 for _, accuracy in accuracies)
    ranks = range(len(run.records))
    backbones = [run.checkpoint(rank)["state_dict_backbone"] for rank in ranks]
    assert [run.checkpoint(rank)["global_step"] for rank in ranks] == [42] * len(ranks)
    model = run.load("model.pt")
    assert all(torch.equal(model[name], value) for name, value in backbones[0].items())


def test_reads_the_labels_that_records_hold_as_arrays(plain):
    run, _ = plain
    seen = sorted(label for record in run.records for batch in record["labels"] for label in batch)
    epochs = len(seen) // 56
    assert seen == sorted([identity for identity in range(8) for _ in range(7)] * epochs)


def test_losses_of_a_config_without_cakd_are_those_of_the_host(plain):
    run, before = plain
    for record, expected in zip(run.records, before.records, strict=True):
        steps = len(expected["losses"])
        assert steps == (28 if len(run.records) == 1 else 14)
        assert record["losses"][:steps] == expected["losses"]


@pytest.fixture(scope="module")
def swin(host):
    """A Swin as the network to train, on the host's own item path and on ours."""
    return side_by_side(
        lambda: host.train("swin", network="swin_mini"),
        lambda: host.train("swin_fast", network="swin_mini", fast_items=True),
    )


def test_a_network_of_ours_trains_as_a_teacher(swin):
    run, _ = swin
    assert len(set(run.losses)) == 7
    assert all(map(math.isfinite, run.losses))
    assert "trunk.patch_embed.proj.weight" in run.load("model.pt")


def test_the_faster_items_give_the_same_losses(swin):
    run, fast = swin
    assert run.records[0]["dataset"] == "MXFaceDataset"
    assert fast.records[0]["dataset"] == "FaceItems"
    assert fast.losses == run.losses
