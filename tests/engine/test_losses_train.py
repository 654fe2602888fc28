"""Every loss trains in the loop, under bfloat16."""

import math

import pytest
import torch
from helpers.engine_runs import small_cakd, small_config

from arcface_cakd.engine import train
from arcface_cakd.registry import LOSSES

STEPS, EVERY = 12, 4
SETTINGS = {"fsp": {"projection": True}, "reviewkd": {"mid_channels": 16}, "pat": {"dim": 16}}
BATCH = {"triplet_distillation": 12}  # of 6 identities: 4 images rarely hold a triplet


@pytest.fixture(scope="module")
def centers(tmp_path_factory):
    """A checkpoint with the class centres that a teacher would have left."""
    path = tmp_path_factory.mktemp("teacher") / "checkpoint_gpu_0.pt"
    weight = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
    torch.save({"state_dict_softmax_fc": {"weight": weight}, "global_step": 1}, path)
    return path


@pytest.mark.parametrize("name", LOSSES.names())
def test_a_dozen_steps_in_bfloat16_stay_finite(name, faces, centers, tmp_path):
    # Prompts and URFM where a loss reaches both. Only those need a Transformer.
    aligns = "alignment" in LOSSES.get(name).needs
    teacher = "swin_mini" if aligns else "test_tiny"
    cakd = small_cakd(
        teacher=dict(network=teacher, weights="random", centers=str(centers)),
        prompts=dict(num_tokens=2) if aligns else None,
        urfm=dict(num_centers=4, num_heads=2) if aligns else None,
        losses=[dict(name=name, weight=0.1, **SETTINGS.get(name, {}))],
    )
    config = small_config(
        faces,
        tmp_path,
        cakd=cakd,
        bf16=True,
        batch_size=BATCH.get(name, 4),
        num_epoch=STEPS,
        frequent=EVERY,
    )
    result = train(config, stop_after_step=STEPS)
    assert result.global_step == STEPS
    lines = [line for line in result.history if "terms" in line]
    assert [line["step"] for line in lines] == list(range(EVERY, STEPS + 1, EVERY))
    for line in lines:
        assert math.isfinite(line["terms"][name]) and math.isfinite(line["gradient_norms"][name])
    assert any(line["gradient_norms"][name] > 0 for line in lines)
