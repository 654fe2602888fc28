"""arcface_torch without our hooks goes on from checkpoints of ours, and with them from its own."""

import math

import pytest
import torch
from helpers.host import differences, side_by_side

from arcface_cakd.config import TrainConfig
from arcface_cakd.engine import train

# A network of arcface_torch's own, three steps an epoch.
SMALL = dict(network="mbf", num_classes=3, num_image=12, batch_size=4, verbose=100)


@pytest.fixture(scope="module")
def small(few_records):
    return dict(SMALL, rec=few_records)


def resumed(host, name, content, small):
    """A run that goes on from a checkpoint with this content."""
    output = host.folder / "work_dirs" / name
    output.mkdir(parents=True)
    torch.save(content, output / "checkpoint_gpu_0.pt")
    return host.train(name, resume=True, num_epoch=2, **small)


@pytest.fixture(scope="module")
def runs(host, mended_host, small):
    """A plain epoch in the patched host, and the next one without our hooks, and with them from
    what a plain host would have written."""
    first_run = host.train("taken_first", **small)
    first = first_run.checkpoint()
    plain = {key: value for key, value in first.items() if key != "cakd"}
    assert plain.keys() < first.keys()
    return first_run, *side_by_side(
        lambda: resumed(mended_host, "taken_without_hooks", first, small),
        lambda: resumed(host, "taken_with_hooks", plain, small),
    )


def test_the_next_epoch_is_one_and_the_same(runs):
    """Without our random state both draw by their seed, as a plain host does."""
    first_run, without, with_hooks = runs
    first = first_run.checkpoint()
    assert len(without.losses) == 3 and without.losses == with_hooks.losses
    assert torch.equal(
        without.records[0]["first"]["centers"], first["state_dict_softmax_fc"]["weight"]
    )
    ours = with_hooks.checkpoint()
    assert "holds no random state" in with_hooks.err + with_hooks.log
    assert ours.pop("cakd")
    assert not differences(without.checkpoint(), ours)
    assert without.checkpoint()["global_step"] == 6


def test_it_goes_on_from_one_of_the_built_in_loop(mended_host, small, tmp_path):
    own = dict(output=str(tmp_path), val_targets=(), save_all_states=True, num_workers=0)
    theirs = {name: mended_host.defaults[name] for name in ("embedding_size", "num_epoch", "lr")}
    config = TrainConfig(**{**small, **own, **theirs, "rec": str(small["rec"])})
    train(config)
    content = torch.load(tmp_path / "checkpoint_gpu_0.pt", weights_only=True)
    run = resumed(mended_host, "taken_ours", content, small)
    first = run.records[0]["first"]
    assert torch.equal(first["centers"], content["state_dict_softmax_fc"]["weight"])
    assert len(run.losses) == 3 and all(map(math.isfinite, run.losses))
    after = run.checkpoint()
    assert after["global_step"] == 6 and after["state_lr_scheduler"]["last_epoch"] == 6
    # BatchNorm counts on, from what our three steps left it at.
    counts = [
        {n: int(t) for n, t in kept["state_dict_backbone"].items() if n.endswith("batches_tracked")}
        for kept in (content, after)
    ]
    assert set(counts[0].values()) == {3} and set(counts[1].values()) == {6}
