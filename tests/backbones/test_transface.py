"""TransFace's gate: what it computes, with prompts and without."""

import runpy
from pathlib import Path

import pytest
import torch

from arcface_cakd.backbones import WeightsError, copy_weights
from arcface_cakd.backbones.transface import TransFace
from arcface_cakd.prompting import AdaptablePrompts

make = runpy.run_path(str(Path(__file__).parents[1] / "golden" / "make_backbones.py"))


@pytest.fixture(scope="module")
def transface():
    torch.manual_seed(5)
    model = TransFace(24, 32, 2, num_heads=4, patch_size=28, mask_ratio=0.0).eval()
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    return model.requires_grad_(False)


def test_the_gate_weighs_tokens_before_the_head(transface):
    """The published order, in numpy-like float64 steps: tokens flat, gate, tokens, flat."""
    images = make["images"](3)
    features = transface.forward_features(images)
    state = {k: v.double() for k, v in transface.state_dict().items()}
    tokens = features.tokens.double()
    hidden = (tokens.reshape(3, -1) @ state["senet.0.weight"].T).clamp(min=0)
    gates = 1 / (1 + (-(hidden @ state["senet.2.weight"].T)).exp())
    x = (tokens * gates[:, :, None]).reshape(3, -1)
    for linear, norm in (("feature.0", "feature.1"), ("feature.2", "feature.3")):
        x = x @ state[f"{linear}.weight"].T
        x = (x - state[f"{norm}.running_mean"]) / (state[f"{norm}.running_var"] + 2e-5).sqrt()
        x = x * state[f"{norm}.weight"] + state[f"{norm}.bias"]
    torch.testing.assert_close(features.embedding.double(), x, rtol=1e-4, atol=1e-4)
    assert gates.std() > 0.05


def test_prompts_reach_the_gate_through_patches_alone(transface):
    images = make["images"](2)
    plain = transface.forward_features(images)
    prompts = AdaptablePrompts(transface, num_tokens=3)
    prompted = prompts(transface, images)
    assert prompted.prompts.shape == (2, 3, 32) and prompted.tokens.shape == plain.tokens.shape
    assert not torch.allclose(prompted.embedding, plain.embedding, atol=1e-3)
    final = prompted.tokens.transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(transface.head(final), prompted.embedding)
    prompted.embedding.sum().backward()
    assert all(p.grad.any() for p in prompts.parameters())


def test_weights_without_the_gate_are_refused(transface):
    state = {k: v for k, v in transface.state_dict().items() if "senet" not in k}
    with pytest.raises(WeightsError, match=r"2 missing \(senet.0.weight, senet.2.weight\)"):
        copy_weights(transface, state, "weights")
