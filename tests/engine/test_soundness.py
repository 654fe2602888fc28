"""A state that cannot go on is not kept, and to look at it moves nothing."""

import dataclasses

import pytest
import torch
from helpers.engine_runs import assert_same_state, small_cakd, small_config

from arcface_cakd.engine import DivergenceError, checkpoint_path, train
from arcface_cakd.engine.builders import build_run
from arcface_cakd.engine.random_state import random_state
from arcface_cakd.engine.soundness import unsoundness


@pytest.mark.parametrize("lr", [1e6, 1e12])
def test_a_doomed_state_is_not_saved(faces, tmp_path, lr):
    """What is there when it ends can go on with a lower rate, as the message advises."""
    config = small_config(faces, tmp_path, num_epoch=1, lr=lr, checkpoint_every=1)
    with pytest.raises(DivergenceError, match=r"diverged at step \d+: .*lower lr") as error:
        train(config)
    assert "\n" not in str(error.value)
    if checkpoint_path(tmp_path).exists():
        kept = torch.load(checkpoint_path(tmp_path), weights_only=True)
        assert all(bool(t.isfinite().all()) for t in kept["state_dict_backbone"].values())
        train(dataclasses.replace(config, lr=1e-3, resume=True), stop_after_step=4)


def a_run(faces, tmp_path, **settings):
    torch.manual_seed(1)
    run = build_run(small_config(faces, tmp_path / "out", **settings), torch.device("cpu"))
    batch = next(iter(run.loader))
    return run, batch


def everything(run):
    return {
        "model": dict(run.model.state_dict()),
        "centers": {} if run.partial_fc is None else dict(run.partial_fc.state_dict()),
        "sampling": None if run.partial_fc is None else run.partial_fc.rng_state(),
        "random": random_state(run.device),
    }


SETTINGS = {
    "sampled, with dropout": dict(network="test_tiny_dropout", sample_rate=0.5),
    "adaface": dict(adaface=dict()),
    "distilling": dict(
        cakd=small_cakd(losses=[dict(name="adadistill"), dict(name="crd", queue_size=8)])
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_to_look_moves_nothing(faces, tmp_path, name):
    run, batch = a_run(faces, tmp_path, **SETTINGS[name])
    run.terms(*batch)  # a step before, as there always is
    before = {k: v for k, v in everything(run).items()}
    before["model"] = {k: v.clone() for k, v in before["model"].items()}
    before["centers"] = {k: v.clone() for k, v in before["centers"].items()}
    assert unsoundness(run, batch, loss=50.0) is None
    assert_same_state(before, everything(run))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_names_what_is_not_finite(faces, tmp_path, value):
    run, batch = a_run(faces, tmp_path)
    with torch.no_grad():
        run.student.fc.weight[3, 7] = value
    assert unsoundness(run, batch, 10.0) == "not finite after it: fc.weight"


def test_names_the_optimizers_state(faces, tmp_path):
    run, batch = a_run(faces, tmp_path)
    parameter = run.optimizer.param_groups[0]["params"][0]
    run.optimizer.state[parameter]["momentum_buffer"] = torch.full_like(parameter, float("inf"))
    assert "the optimizer's momentum_buffer" in unsoundness(run, batch, 10.0)


def test_finite_weights_whose_next_pass_is_not(faces, tmp_path):
    run, batch = a_run(faces, tmp_path)
    with torch.no_grad():
        run.student.fc.weight.fill_(1e38)
    found = unsoundness(run, batch, 10.0)
    assert found is not None and found.startswith("not finite in the next forward pass: margin")


def test_a_loss_that_leaps(faces, tmp_path):
    run, batch = a_run(faces, tmp_path, margin_scale=64.0)
    loss = float(run.terms(*batch)["margin"].detach())
    assert unsoundness(run, batch, loss) is None
    assert unsoundness(run, batch, loss / 9) is None
    found = unsoundness(run, batch, loss / 11)
    assert found is not None and "the loss of its batch went from" in found


@pytest.mark.parametrize("steps", [2, 20, None])
def test_a_weight_that_rises_is_no_leap(faces, tmp_path, steps):
    """The loss of a batch is held against what it was by the same weights."""
    loss = dict(name="embedding_cosine", weight=1e4, schedule=dict(kind="warmup", steps=steps))
    entry = small_cakd(prompts=None, urfm=None, losses=[loss], margin_weight=0)
    train(small_config(faces, tmp_path, num_epoch=1, lr=1e-6, checkpoint_every=1, cakd=entry))
