"""Class centres of another run: started from, and kept."""

import dataclasses

import pytest
import torch
from helpers.engine_runs import small_cakd, small_config

from arcface_cakd.config import ConfigError, load_config
from arcface_cakd.engine import CheckpointError, checkpoint_path, train
from arcface_cakd.engine.builders import build_optimizer, build_partial_fc
from arcface_cakd.partial_fc import AdaFace, PartialFCError


@pytest.fixture(scope="module")
def first(faces, tmp_path_factory):
    """A run whose centres others take over, and these (6, 16)."""
    folder = tmp_path_factory.mktemp("first")
    result = train(small_config(faces, folder, num_epoch=1, save_all_states=True))
    return checkpoint_path(result.output), centers(result)


def centers(result):
    return torch.load(checkpoint_path(result.output))["state_dict_softmax_fc"]["weight"]


def student(result):
    state = torch.load(checkpoint_path(result.output))["state_dict_backbone"]
    return state.get("fc.weight", state.get("student.fc.weight"))


def settings(first, **changes):
    return dict(num_epoch=1, save_all_states=True, init_centers=str(first[0])) | changes


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("distills", [False, True])
def test_frozen_centers_stay_and_teach_the_student(first, faces, tmp_path, optimizer, distills):
    changes = dict(optimizer=optimizer, lr=0.01, freeze_centers=True, seed=5)
    if distills:
        changes["cakd"] = small_cakd(urfm=None, prompts=None)
    config = small_config(faces, tmp_path, **settings(first, **changes))
    before = build_partial_fc(dataclasses.replace(config), 6)
    assert torch.equal(before.weight, first[1]) and not before.weight.requires_grad
    one = student(train(config, stop_after_step=1))
    result = train(dataclasses.replace(config, force=True))
    assert torch.equal(centers(result), first[1])
    assert not torch.equal(student(result), one)
    margins = [line["margin"] for line in result.history]
    assert margins[-1] < margins[0]


def test_centers_that_are_not_frozen_start_there_and_move(first, faces, tmp_path):
    config = small_config(faces, tmp_path, **settings(first, lr=1e-4))
    found = centers(train(config, stop_after_step=1))
    assert not torch.equal(found, first[1])
    torch.testing.assert_close(found, first[1], rtol=0, atol=1e-2)


def test_a_resumed_run_needs_the_file_no_more(first, faces, tmp_path):
    copied = tmp_path / "checkpoint_gpu_0.pt"
    copied.write_bytes(first[0].read_bytes())
    changes = dict(init_centers=str(copied), freeze_centers=True)
    config = small_config(faces, tmp_path / "run", **settings(first, **changes))
    train(config, stop_after_step=4)
    copied.unlink()
    result = train(dataclasses.replace(config, resume=True))
    assert result.global_step == 9 and torch.equal(centers(result), first[1])


def test_centers_of_something_else_are_refused(first, faces, tmp_path):
    for changes, said in (
        (dict(embedding_size=8), "6 class centres of width 16, but this run has 6 of width 8"),
        (dict(num_classes=7), "6 class centres of width 16, but this run has 7 of width 16"),
        (dict(init_centers=str(tmp_path / "none_*.pt")), "no such file"),
    ):
        with pytest.raises(PartialFCError, match=said) as error:
            train(small_config(faces, tmp_path / "run", **settings(first, **changes)))
        assert "\n" not in str(error.value)
        assert not (tmp_path / "run").exists()


def test_freezing_random_centers_is_refused(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(
        "from easydict import EasyDict as edict\nconfig = edict(rec='x', freeze_centers=True)\n"
    )
    with pytest.raises(ConfigError, match=r"freeze_centers would keep random .* set init_centers"):
        load_config(path)
    assert load_config(path, ["init_centers=some_*.pt"]).freeze_centers


def test_adaface_is_chosen_by_the_config(tmp_path, faces, caplog):
    path = tmp_path / "config.py"
    path.write_text(
        f"from easydict import EasyDict as edict\nconfig = edict(rec={str(faces)!r}, "
        "margin_scale=32, adaface=edict(m=0.3))\n"
    )
    config = load_config(path)
    with caplog.at_level("INFO", logger="arcface_cakd"):
        margin = build_partial_fc(config, 6).margin_softmax
    assert isinstance(margin, AdaFace)
    assert (margin.s, margin.m, margin.h, margin.t_alpha) == (32.0, 0.3, 0.333, 0.01)
    assert "in place of margin_list" in caplog.text
    assert type(build_partial_fc(load_config(path, ["adaface=None"]), 6).margin_softmax) is not (
        AdaFace
    )


@pytest.mark.parametrize("before", [None, {"m": 0.3, "h": 0.333, "t_alpha": 0.5}])
def test_a_checkpoint_of_another_margin_is_refused(faces, tmp_path, before):
    config = small_config(faces, tmp_path, save_all_states=True, adaface=before)
    train(config, stop_after_step=1)
    other = {"m": 0.3, "h": 0.333, "t_alpha": 0.5} if before is None else None
    with pytest.raises(CheckpointError, match="set adaface back"):
        train(dataclasses.replace(config, resume=True, adaface=other))


def stepped(config, fused):
    """The centres after some steps."""
    centers = build_partial_fc(config, 6)
    optimizer = build_optimizer(config, torch.nn.Linear(2, 2), centers)
    group = optimizer.param_groups[-1]
    assert group["name"] == "partial_fc" and bool(group["fused"]) == (config.optimizer == "sgd")
    group["fused"] = fused
    for step in range(4):
        group["lr"] = 0.1 / (step + 1)
        draws = torch.Generator().manual_seed(step)
        centers.weight.grad = torch.randn(centers.weight.shape, generator=draws)
        optimizer.step()
    return centers.weight.detach()


def test_on_a_cpu_centers_are_stepped_in_one_pass_with_the_numbers_of_torchs_loop(faces, tmp_path):
    config = small_config(faces, tmp_path, momentum=0.9, weight_decay=5e-4, optimizer="sgd")
    assert torch.equal(stepped(config, True), stepped(config, False))
    adamw = dataclasses.replace(config, optimizer="adamw")
    assert not torch.equal(stepped(adamw, None), stepped(config, False))
