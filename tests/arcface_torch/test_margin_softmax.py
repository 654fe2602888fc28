"""The hooks of the margin softmax, without a host."""

import pytest
import torch
from easydict import EasyDict as edict
from torch import nn

from arcface_cakd import arcface_torch as cakd
from arcface_cakd.partial_fc import AdaFace, PartialFC
from arcface_cakd.partial_fc.margin import CombinedMarginLoss


def cfg(**changes):
    return edict(resume=False, num_classes=6, **changes)


def test_a_config_without_adaface_keeps_the_hosts_margin():
    own = CombinedMarginLoss(64.0, 1.0, 0.5, 0.0)
    assert cakd.margin(own, cfg()) is own
    cakd.observe(PartialFC(own, 4, 6), torch.randn(3, 4))


def test_adaface_takes_over_scale_and_filter_and_is_told_the_norms():
    made = cakd.margin(CombinedMarginLoss(30.0, 1.0, 0.5, 0.0, 0.3), cfg(adaface=edict(m=0.2)))
    assert isinstance(made, AdaFace)
    assert (made.s, made.m, made.interclass_filtering_threshold) == (30.0, 0.2, 0.3)
    head = nn.Module()
    head.margin_softmax = made.train()
    embeddings = 9 * torch.randn(5, 4)
    cakd.observe(head, embeddings)
    told, expected = made._quality, AdaFace(m=0.2)
    expected.observe(embeddings.norm(dim=1, keepdim=True))
    torch.testing.assert_close(told, expected._quality)
    torch.testing.assert_close(made.batch_mean, expected.batch_mean)


def test_centers_start_and_freeze(tmp_path):
    path = tmp_path / "checkpoint_gpu_0.pt"
    centers = torch.randn(6, 4)
    torch.save({"state_dict_softmax_fc": {"weight": centers}, "global_step": 1}, path)
    head = PartialFC(CombinedMarginLoss(64.0, 1.0, 0.5, 0.0), 4, 6)
    before = head.weight.clone()
    cakd.start_centers(head, cfg())
    assert torch.equal(head.weight, before) and head.weight.requires_grad
    cakd.start_centers(head, cfg(init_centers=str(path)))
    assert torch.equal(head.weight, centers) and head.weight.requires_grad
    head.weight.data.zero_()
    resumed = cfg(init_centers=str(path), freeze_centers=True) | {"resume": True}
    cakd.start_centers(head, edict(resumed))
    assert not head.weight.any() and not head.weight.requires_grad


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(freeze_centers=True), "set init_centers"),
        (dict(freeze_centers="yes", init_centers="x"), "must be True or False"),
        (dict(init_centers="nowhere_*.pt"), "no such file"),
    ],
)
def test_a_mistake_ends_the_program_with_one_line(changes, said, capsys):
    head = PartialFC(CombinedMarginLoss(64.0, 1.0, 0.5, 0.0), 4, 6)
    with pytest.raises(SystemExit):
        cakd.start_centers(head, cfg(**changes))
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_misspelt_setting_of_adaface_ends_the_program(capsys):
    with pytest.raises(SystemExit):
        cakd.margin(CombinedMarginLoss(64.0, 1.0, 0.5, 0.0), cfg(adaface=edict(t_alpa=0.1)))
    assert "did you mean 't_alpha'?" in capsys.readouterr().err
