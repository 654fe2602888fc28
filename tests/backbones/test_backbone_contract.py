"""What every registered backbone promises, checked on each of them.

All are built on the meta device, where shapes and graphs cost nothing; those that a CPU runs in
a moment also compute.
"""

import copy
import functools

import pytest
import torch
from torch import nn

from arcface_cakd import BACKBONES
from arcface_cakd.backbones import (
    BackboneError,
    FaceBackbone,
    get_model,
    load_weights,
    save_weights,
)

NAMES = BACKBONES.names()
WIDTH = 48  # no network's default, so that a network that ignores it is seen
BATCH = 3


@functools.cache
def on_meta(name, fp16=False):
    try:
        with torch.device("meta"):
            return get_model(name, fp16=fp16, num_features=WIDTH)
    except RuntimeError:  # timm 1.0.9 computes with numbers while it builds
        return get_model(name, fp16=fp16, num_features=WIDTH).to("meta")


SMALL = [n for n in NAMES if sum(p.numel() for p in on_meta(n).parameters()) < 4e6]
# Of those that differ in width alone, one is enough.
SMALL = [n for n in SMALL if n not in ("edgeface_xs", "edgeface_s_gamma_05")]


def images(count=BATCH, seed=0, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 14, 14, generator=generator) * 2 - 1
    return nn.functional.interpolate(coarse, size=(112, 112)).to(device)


def assert_promised_shapes(model, features):
    height, across = features.grid
    assert model.embedding_size == WIDTH
    assert features.embedding.shape == (BATCH, WIDTH)
    assert features.grid == model.grid
    assert model.map_shape == (model.token_dim, model.grid)
    assert features.tokens.shape == (BATCH, height * across, model.token_dim)
    assert features.prompts is None
    assert len(features.stages) == len(model.stage_dims)
    for stage, channels in zip(features.stages, model.stage_dims, strict=True):
        assert stage.shape[:2] == (BATCH, channels)
    sides = [stage.shape[-1] for stage in features.stages]
    assert sides == sorted(sides, reverse=True)
    for tensor in (features.embedding, features.tokens, *features.stages):
        assert tensor.dtype is torch.float32


def calibrate(model):
    """BatchNorm statistics of a real batch: at initial ones a deep network overflows in eval."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(images(8, seed=9))
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


@pytest.fixture(scope="module", params=SMALL)
def small(request):
    torch.manual_seed(0)
    model = get_model(request.param, num_features=WIDTH)
    model.registered_name = request.param
    return calibrate(model)


def test_the_networks_of_the_contract_are_registered():
    students = {"mbf", "mbf_large", "r18", "r34", "r50", "r100", "r10_narrow", "r10_mini"}
    teachers = {"swin_t", "swin_s", "swin_b", "swin_mini", "vit_mini"}
    # Under all names that arcface_torch has for its ViTs.
    teachers |= {"vit_t", "vit_t_dp005_mask0", "vit_s", "vit_s_dp005_mask_0", "vit_h"}
    teachers |= {"vit_b", "vit_b_dp005_mask_005", "vit_l_dp005_mask_005"}
    teachers |= {f"cvlface_{kind}" for kind in ("vit_s", "vit_b", "swin_s", "swin_b")}
    teachers |= {f"cvlface_ir{depth}" for depth in (18, 50, 101)}
    teachers |= {f"edgeface_{size}" for size in ("xxs", "xs", "s", "base")}
    teachers |= {"edgeface_xs_gamma_06", "edgeface_s_gamma_05"}
    teachers |= {"transface_s", "transface_b", "transface_l"}
    teachers |= {"timmface_vit_s8", "timmface_vit_ti8"}
    assert students | teachers <= set(NAMES)
    assert {"mbf", "r10_narrow", "r10_mini", "swin_mini", "vit_mini"} <= set(SMALL)


@pytest.mark.parametrize("name", NAMES)
class TestEvery:
    def test_shapes_and_graph(self, name):
        model = on_meta(name).train()
        assert isinstance(model, FaceBackbone)
        features = model.forward_features(images(device="meta"), stages=True)
        assert_promised_shapes(model, features)
        features.embedding.sum().backward()
        unreached = [k for k, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert unreached == []

    def test_precision_is_what_was_asked_for(self, name):
        assert on_meta(name).amp_dtype is None
        assert on_meta(name, fp16=True).amp_dtype is torch.float16

    def test_a_width_of_nothing(self, name):
        with pytest.raises(BackboneError, match=f"'{name}': num_features must be 1 or more"):
            get_model(name, num_features=0)


class TestComputed:
    def test_forward_is_the_embedding_of_the_features(self, small):
        with torch.no_grad():
            features = small.forward_features(images(), stages=True)
            assert torch.equal(small(images()), features.embedding)
            assert small.forward_features(images()).stages == ()
        assert_promised_shapes(small, features)
        for tensor in (features.embedding, features.tokens, *features.stages):
            assert tensor.isfinite().all()
            assert tensor.std() > 0

    def test_tokens_are_a_map_row_by_row(self, small):
        with torch.no_grad():
            final, maps = small.body(images())
            if small.token_stage is not None:  # another one than the head reads
                final = maps[small.token_stage]
            tokens = small.forward_features(images()).tokens
        height, across = small.grid
        for row in range(height):
            for column in range(across):
                expected = final[:, :, row, column]
                torch.testing.assert_close(tokens[:, row * across + column], expected)

    def test_the_head_turns_the_tokens_into_the_embedding(self, small):
        with torch.no_grad():
            if small.token_stage is not None:
                small = copy.deepcopy(small)
                small.take_tokens_from(len(small.stage_dims) - 1)
            features = small.forward_features(images())
            final = features.tokens.transpose(1, 2).unflatten(2, features.grid)
            torch.testing.assert_close(small.head(final), features.embedding)

    def test_eval_repeats_itself_and_moves_nothing(self, small):
        before = {k: v.clone() for k, v in small.state_dict().items()}
        with torch.no_grad():
            torch.manual_seed(1)
            first = small(images())
            torch.manual_seed(2)
            assert torch.equal(small(images()), first)
        for key, value in small.state_dict().items():
            assert torch.equal(value, before[key]), key

    def test_eval_sees_each_image_alone(self, small):
        with torch.no_grad():
            together = small(images())
            alone = torch.cat([small(image[None]) for image in images()])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(together[0], together[1], atol=1e-2)

    def test_bfloat16_narrows_the_body_and_nothing_that_is_returned(self, small, monkeypatch):
        with torch.no_grad():
            full = small.forward_features(images(), stages=True)
            monkeypatch.setattr(small, "amp_dtype", torch.bfloat16)
            narrow = small.forward_features(images(), stages=True)
        assert_promised_shapes(small, narrow)
        assert not torch.equal(narrow.tokens, full.tokens)
        for ours, theirs in (
            (narrow.embedding, full.embedding),
            (narrow.tokens, full.tokens),
            *zip(narrow.stages, full.stages, strict=True),
        ):
            assert (ours - theirs).norm() / theirs.norm() < 0.1

    def test_the_head_runs_in_full_precision(self, small, monkeypatch):
        seen = []
        head = small.head

        def watched(final):
            seen.append((final.dtype, torch.is_autocast_enabled("cpu")))
            return head(final)

        monkeypatch.setattr(small, "head", watched)
        monkeypatch.setattr(small, "amp_dtype", torch.bfloat16)
        with torch.no_grad():
            small(images())
        assert seen == [(torch.float32, False)]

    def test_gradients_are_finite_and_somewhere_not_zero(self, small):
        small.train().zero_grad()
        generator = torch.Generator().manual_seed(3)
        embedding = small(images(6))
        (embedding * torch.randn(embedding.shape, generator=generator)).sum().backward()
        for key, parameter in small.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, key
                assert parameter.grad.isfinite().all(), key
                assert parameter.grad.any(), key
        small.zero_grad()
        small.eval()

    def test_weights_round_trip(self, small, tmp_path):
        save_weights(small, tmp_path / "model.pt")
        torch.manual_seed(4)
        other = get_model(small.registered_name, num_features=WIDTH).eval()
        load_weights(other, tmp_path / "model.pt")
        with torch.no_grad():
            assert torch.equal(other(images()), small(images()))
