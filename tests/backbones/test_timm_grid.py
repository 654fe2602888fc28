"""timm models of several kinds as face backbones, and those that cannot be."""

import pytest
import torch
from torch import nn

from arcface_cakd.backbones import BackboneError, get_model
from arcface_cakd.backbones.timm_grid import TimmGrid, build
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.registry import UnknownNameError

KINDS = {
    "vit_tiny_patch16_224": ({"depth": 5}, (7, 7)),  # a class token
    "vit_little_patch16_reg4_gap_256": ({"depth": 2, "embed_dim": 64, "num_heads": 2}, (7, 7)),
    "swin_tiny_patch4_window7_224": ({"depths": (1, 2, 1, 1), "embed_dim": 24}, (4, 4)),
    "convnext_atto": ({}, (3, 3)),  # no img_size, (B, C, H, W)
    "mixer_s32_224": ({}, (3, 3)),
    "resnet10t": ({}, (4, 4)),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_that_yield_a_grid(name):
    torch.manual_seed(0)
    settings, grid = KINDS[name]
    model = build(name, num_features=24, **settings)
    assert all(module.training for module in model.modules())
    model.eval()
    images = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        features = model.forward_features(images, stages=True)
        assert torch.equal(model(images), features.embedding)
    assert features.embedding.shape == (2, 24)
    assert features.tokens.shape == (2, grid[0] * grid[1], model.token_dim)
    assert features.grid == model.grid == grid
    assert tuple(stage.shape[1] for stage in features.stages) == model.stage_dims


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("vit_tiny_patch16_224", 1), ("vit_little_patch16_reg4_gap_256", 4)],
)
def test_class_and_register_tokens_are_no_part_of_the_grid(name, prefix):
    torch.manual_seed(0)
    model = build(name, num_features=24, **KINDS[name][0]).eval()
    images = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        raw = model.trunk.forward_features(images)
        tokens = model.forward_features(images).tokens
    assert raw.shape[1] == 49 + prefix
    assert torch.equal(tokens, raw[:, prefix:])


def test_tokens_of_a_pooling_vit_are_normed():
    model = build("vit_little_patch16_reg4_gap_256", depth=1, embed_dim=64, num_heads=2).eval()
    with torch.no_grad():
        tokens = model.forward_features(torch.randn(1, 3, 112, 112)).tokens
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(1, 49), rtol=0, atol=1e-4)


def test_channels_last_models_keep_rows_rows():
    """A model whose map is (B, H, W, C) and tells the coordinates of each place."""

    class Places(nn.Module):
        output_fmt = "NHWC"

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward_features(self, images):
            rows, columns = torch.meshgrid(torch.arange(3.0), torch.arange(3.0), indexing="ij")
            return (self.scale * torch.stack([rows, columns], -1)).expand(len(images), -1, -1, -1)

    model = TimmGrid("places", Places(), num_features=8).eval()
    tokens = model.forward_features(torch.zeros(2, 3, 112, 112)).tokens
    expected = torch.tensor([[r, c] for r in range(3) for c in range(3)]).float()
    assert torch.equal(tokens, expected.expand(2, -1, -1))
    assert model.stage_dims == (2,)


def test_a_plain_transformer_has_four_stages_at_equal_steps():
    model = build("vit_tiny_patch16_224", num_features=8, depth=8).eval()
    images = torch.randn(1, 3, 112, 112)
    outputs = []
    for block in model.trunk.blocks:
        block.register_forward_hook(lambda _, __, out: outputs.append(out))
    with torch.no_grad():
        stages = model.forward_features(images, stages=True).stages
    assert len(stages) == 4
    for stage, output in zip(stages, outputs[1::2], strict=True):
        assert torch.equal(stage.flatten(2).transpose(1, 2), output[:, 1:])


def test_half_precision_body_gives_float32():
    model = build("resnet10t", num_features=8).eval()
    model.amp_dtype = torch.bfloat16
    with torch.no_grad():
        features = model.forward_features(torch.randn(2, 3, 112, 112), stages=True)
    assert {t.dtype for t in (features.tokens, features.embedding, *features.stages)} == {
        torch.float32
    }


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("pit_xs_224", {}, "cannot serve|single token"),  # only class tokens come out
        ("volo_d1_224", {}, "50 tokens"),  # a class token not told of
        ("maxvit_pico_rw_256", {}, "must be divisible by window"),
        ("vit_tiny_patch16_224", {"img_size": 96, "depth": 1}, "cannot serve"),
        ("vit_tiny_patch16_224", {"no_such_option": 1}, "no_such_option"),
    ],
)
def test_models_that_do_not_fit_are_refused_in_one_line(name, settings, words):
    with pytest.raises(BackboneError, match=words) as raised:
        build(name, **settings)
    assert isinstance(raised.value, ArcfaceCakdError)
    assert "\n" not in str(raised.value)
    assert f"'timm:{name}'" in str(raised.value)
    assert "choose a model" in str(raised.value)


def test_what_the_meta_device_cannot_compute_is_no_misfit(monkeypatch):
    def computing(name, **_):
        return nn.Linear(2, int(torch.linspace(1.0, 2.0, 2)[1].item()))

    monkeypatch.setattr("timm.create_model", computing)
    with torch.device("meta"), pytest.raises(RuntimeError, match="meta"):
        build("resnet10t")


def test_an_unknown_name_gets_timms_nearest():
    with pytest.raises(UnknownNameError, match=r"did you mean 'timm:vit_tiny_patch16_224'\?"):
        build("vit_tinny_patch16_224")
    with pytest.raises(UnknownNameError) as raised:
        build("0000")
    assert len(str(raised.value)) < 200


def test_a_hybrids_patches_are_of_its_convolutions_map():
    small = {"depth": 1, "embed_dim": 16, "num_heads": 2, "num_features": 8}
    network = get_model("timm:vit_small_r26_s32_224", **small)
    assert network.grid == (4, 4) and network.extent == 112  # 28 pixels each


@pytest.mark.parametrize("patch, extent", [(16, 112), (32, 96)])
def test_patches_that_do_not_tile_the_crop_cover_less_of_it(patch, extent):
    small = dict(patch_size=patch, embed_dim=32, depth=1, num_heads=2)
    assert get_model("timm:vit_tiny_patch16_224", num_features=8, **small).extent == extent
