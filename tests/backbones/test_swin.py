"""Swin at 112 x 112: shapes, sizes, head, precision."""

import pytest
import torch
from torch import nn

from arcface_cakd.backbones.heads import FlattenHead
from arcface_cakd.backbones.swin import Swin, swin_b, swin_mini, swin_s, swin_t


def _tiny(**settings) -> Swin:
    return Swin(8, (2, 2, 2), (1, 2, 4), patch_size=4, num_features=16, **settings)


@pytest.fixture(scope="module")
def mini() -> Swin:
    torch.manual_seed(0)
    return swin_mini(num_features=64).eval()


@pytest.mark.parametrize(
    ("factory", "timm_name"),
    [
        (swin_t, "swin_tiny_patch4_window7_224"),
        (swin_s, "swin_small_patch4_window7_224"),
        (swin_b, "swin_base_patch4_window7_224"),
    ],
)
def test_the_named_sizes_are_timms_own_at_112(factory, timm_name, monkeypatch):
    import timm
    from timm.models.swin_transformer import SwinTransformer

    for draw in ("trunc_normal_", "kaiming_uniform_", "uniform_"):  # numbers do not matter here
        monkeypatch.setattr(nn.init, draw, lambda tensor, *_, **__: tensor)
    monkeypatch.setattr(SwinTransformer, "init_weights", lambda *_, **__: None)
    model = factory(num_features=32)
    same = timm.create_model(timm_name, num_classes=0, img_size=112, patch_size=2, window_size=7)
    ours = {key: value.shape for key, value in model.trunk.state_dict().items()}
    assert ours == {key: value.shape for key, value in same.state_dict().items()}
    grids = [tuple(stage.output_resolution) for stage in model.trunk.layers]
    assert grids == [(56, 56), (28, 28), (14, 14), (7, 7)]
    windows = {block.window_size for stage in model.trunk.layers for block in stage.blocks}
    assert windows == {(7, 7)}
    assert (model.grid, model.token_dim) == ((7, 7), model.stage_dims[-1])
    drops = [
        block.drop_path1.drop_prob
        for stage in model.trunk.layers
        for block in stage.blocks
        if not isinstance(block.drop_path1, nn.Identity)
    ]
    assert drops == sorted(drops) and drops[-1] == pytest.approx(0.1)


def test_swin_t_gives_features_on_the_grids_it_names():
    model = swin_t(num_features=32).eval()
    with torch.no_grad():
        features = model.forward_features(torch.randn(1, 3, 112, 112), stages=True)
    assert features.embedding.shape == (1, 32)
    assert features.tokens.shape == (1, 49, 768)
    shapes = [tuple(stage.shape) for stage in features.stages]
    assert shapes == [(1, 96, 56, 56), (1, 192, 28, 28), (1, 384, 14, 14), (1, 768, 7, 7)]


def test_mini_has_three_stages_and_a_body_of_about_half_a_million(mini):
    with torch.no_grad():
        features = mini.forward_features(torch.randn(2, 3, 112, 112), stages=True)
    sides = [stage.shape[-1] for stage in features.stages]
    assert sides == [28, 14, 7]
    assert [stage.shape[1] for stage in features.stages] == list(mini.stage_dims)
    assert features.tokens.shape == (2, 49, mini.token_dim)
    assert 4e5 < sum(p.numel() for p in mini.trunk.parameters()) < 7e5


def test_features_are_those_of_timms_forward(mini):
    images = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        features = mini.forward_features(images)
        final = mini.trunk.forward_features(images)  # (B, H, W, C)
        embedding = mini.feature(final.permute(0, 3, 1, 2))
    assert torch.equal(features.tokens, final.flatten(1, 2))
    assert torch.equal(features.embedding, embedding)
    assert torch.equal(mini(images), embedding)


def test_head_is_flatten_linear_norm_linear_norm():
    torch.manual_seed(3)
    head = FlattenHead(4, (2, 3), embedding_size=5, hidden=7).double().eval()
    for norm in (head[3], head[5]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    state = {key: value.numpy() for key, value in head.state_dict().items()}
    final = torch.randn(6, 4, 2, 3, dtype=torch.float64)

    def normed(x, name):
        x = (x - state[f"{name}.running_mean"]) / (state[f"{name}.running_var"] + 2e-5) ** 0.5
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    expected = final.numpy().reshape(6, 24) @ state["0.weight"].T
    expected = normed(normed(expected, "1") @ state["2.weight"].T, "3")
    torch.testing.assert_close(head(final), torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_dropout_acts_on_the_head_in_training_only():
    head = FlattenHead(4, (2, 2), 5, dropout=1.0)
    flattened = []
    head[2].register_forward_pre_hook(lambda _, inputs: flattened.append(inputs[0]))
    head(torch.ones(2, 4, 2, 2))
    head.eval()(torch.ones(2, 4, 2, 2))
    assert torch.equal(flattened[0], torch.zeros(2, 16))
    assert torch.equal(flattened[1], torch.ones(2, 16))


def test_every_parameter_learns():
    model = _tiny()
    model(torch.randn(4, 3, 112, 112)).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_half_precision_body_gives_float32_that_is_close():
    torch.manual_seed(0)
    model = _tiny().eval()
    images = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        full = model.forward_features(images, stages=True)
        model.amp_dtype = torch.bfloat16
        half = model.forward_features(images, stages=True)
    for tensor in (half.embedding, half.tokens, *half.stages):
        assert tensor.dtype == torch.float32
    assert not torch.equal(half.tokens, full.tokens)
    torch.testing.assert_close(half.tokens, full.tokens, rtol=0, atol=0.1)
    assert _tiny(fp16=True).amp_dtype == torch.float16
