"""The ViTs are arcface_torch's: against a golden file everywhere, and against the host."""

import json
import math
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from arcface_cakd.backbones import get_model, load_weights, save_weights
from arcface_cakd.backbones.vit import StochasticDepth, VisionTransformer

GOLDEN = Path(__file__).parents[1] / "golden"
make = runpy.run_path(str(GOLDEN / "make_backbones.py"))
golden = json.loads((GOLDEN / "backbones.json").read_text())
VITS = make["VITS"]

ARCFACE_TORCH = os.environ.get("ARCFACE_TORCH")
needs_host = pytest.mark.skipif(
    not ARCFACE_TORCH, reason="set ARCFACE_TORCH to a checkout's recognition/arcface_torch"
)
SHAPE = {"embed_dim": 16, "depth": 6, "num_heads": 2, "patch_size": 16}


def small(seed=0, **settings):
    torch.manual_seed(seed)
    settings = {**SHAPE, "drop_path": 0.0, **settings}
    model = VisionTransformer(12, **settings)
    model.load_state_dict(make["seeded_state"](model))
    return model


def as_in_arcface_torch(model):
    """arcface_torch lets its unused mask token require a gradient, which never comes."""
    model.mask_token.requires_grad_(True)
    return model


class TestGolden:
    @pytest.mark.parametrize("name", VITS)
    def test_keys_order_and_metadata(self, name):
        with torch.device("meta"):
            model = get_model(name, num_features=make["NUM_FEATURES"])
        found = make["structure"](as_in_arcface_torch(model))
        assert found == {part: golden[name][part] for part in found}

    @pytest.mark.parametrize("name", [name for name in VITS if name in make["COMPUTED"]])
    def test_outputs_and_gradients(self, name, monkeypatch):
        fill = torch.nn.init.zeros_  # seeded numbers follow: what is drawn before does not matter
        monkeypatch.setattr("timm.layers.trunc_normal_", lambda tensor, **_: fill(tensor))
        model = get_model(name, num_features=make["NUM_FEATURES"])
        model.load_state_dict(make["seeded_state"](model))
        found = make["record"](as_in_arcface_torch(model), name in make["TRAINED"])
        expected = golden[name]
        assert found.keys() == expected.keys()
        for part in ("embedding", "train_embedding"):
            if part in expected:
                close = torch.testing.assert_close
                close(torch.tensor(found[part]), torch.tensor(expected[part]), rtol=0, atol=1e-4)
        for part in ("gradient_norms", "running_var_sums"):
            if part in expected:
                assert found[part].keys() == expected[part].keys()
                scale = max(expected[part].values())
                assert found[part] == pytest.approx(expected[part], rel=1e-3, abs=1e-5 * scale)


@needs_host
@pytest.mark.filterwarnings("ignore")  # timm.models.layers, torch.cuda.amp, reentrant checkpoints
class TestHost:
    @pytest.fixture(scope="class")
    def host(self):
        get = make["host_get_model"](ARCFACE_TORCH)
        get("vit_t", num_features=8)  # imports the host's vit.py
        return sys.modules["arcface_torch_backbones.vit"], get

    @pytest.mark.parametrize("name", ["vit_t", "vit_t_dp005_mask0", "vit_s"])
    def test_a_seed_gives_the_same_weights_and_they_pass_both_ways(self, host, name, tmp_path):
        torch.manual_seed(3)
        theirs = host[1](name, dropout=0.0, fp16=False, num_features=64)
        torch.manual_seed(3)
        ours = get_model(name, num_features=64)
        assert theirs.state_dict()._metadata == ours.state_dict()._metadata
        for (key, value), (other_key, other) in zip(
            theirs.state_dict().items(), ours.state_dict().items(), strict=True
        ):
            assert key == other_key and torch.equal(value, other), key
        theirs.load_state_dict(make["seeded_state"](theirs))
        torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
        load_weights(ours, tmp_path / "theirs.pt")
        save_weights(ours, tmp_path / "ours.pt")
        saved = torch.load(tmp_path / "ours.pt", weights_only=True)
        theirs.load_state_dict(saved, strict=True)
        batch = make["images"](2)
        with torch.no_grad():
            torch.testing.assert_close(ours.eval()(batch), theirs.eval()(batch), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("checkpointing", [False, True])
    @pytest.mark.parametrize(("said", "mask_ratio"), [(0.0, 0.0), (0.1, 0.1), (0.05, 0.1)])
    def test_training_draws_the_same_masks_and_residuals(
        self, host, said, mask_ratio, checkpointing
    ):
        """Also that the host masks a tenth where its names say a twentieth."""
        shape = dict(SHAPE, img_size=112, num_classes=12, drop_path_rate=0.4, mask_ratio=said)
        theirs = host[0].VisionTransformer(**shape, using_checkpoint=checkpointing)
        theirs.load_state_dict(make["seeded_state"](theirs))
        ours = small(drop_path=0.4, mask_ratio=mask_ratio, checkpointing=checkpointing)
        batch = make["images"](6)
        embeddings = []
        for model in (theirs, ours):
            torch.manual_seed(5)
            embedding = model.train()(batch)
            steepness = torch.linspace(-1, 1, embedding.numel()).view_as(embedding)
            (embedding * steepness).sum().backward()
            embeddings.append(embedding)
        torch.testing.assert_close(*embeddings, rtol=1e-4, atol=1e-5)
        scale = max(p.grad.norm() for p in theirs.parameters() if p.grad is not None)
        for (key, one), other in zip(theirs.named_parameters(), ours.parameters(), strict=True):
            if one.grad is None:
                assert key == "mask_token" and not said and other.grad is None
                continue
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-5 * float(scale))

    def test_bfloat16_is_as_near_as_bfloat16_can_be(self, host, monkeypatch):
        """The host only knows CUDA's autocast; here it gets the CPU's."""

        def autocast(enabled):
            return torch.autocast("cpu", torch.bfloat16, enabled=enabled)

        monkeypatch.setattr(torch.cuda.amp, "autocast", autocast)
        theirs = host[0].VisionTransformer(**SHAPE, img_size=112, num_classes=12).eval()
        theirs.load_state_dict(make["seeded_state"](theirs))
        ours = small().eval()
        batch = make["images"](4)
        with torch.no_grad():
            full = ours(batch)
            ours.amp_dtype = torch.bfloat16
            narrow, expected = ours(batch), theirs(batch)
        error = (expected - full).norm()
        assert error > 0
        assert (narrow - expected).norm() < 1.5 * error
        assert error < 0.05 * full.norm()


# An independent reference: numpy, one image and one head at a time.


def _norm(state, key, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    return x * state[f"{key}.weight"] + state[f"{key}.bias"]


def reference_tokens(state, image, heads, patch, kept=None):
    """Tokens of one image (3, 112, 112) after the last norm, and after each block."""
    side, dim = 112 // patch, state["pos_embed"].shape[-1]
    kernel = state["patch_embed.proj.weight"].reshape(dim, -1)
    tokens = []
    for row in range(side):
        for column in range(side):
            top, left = row * patch, column * patch
            pixels = image[:, top : top + patch, left : left + patch].reshape(-1)
            tokens.append(kernel @ pixels + state["patch_embed.proj.bias"])
    x = np.stack(tokens) + state["pos_embed"][0]
    x = x if kept is None else x[kept]
    maps = []
    for i in range(sum(key.endswith("norm1.weight") for key in state)):
        block = f"blocks.{i}"
        normed = _norm(state, f"{block}.norm1", x)
        q, k, v = np.split(normed @ state[f"{block}.attn.qkv.weight"].T, 3, axis=1)
        out = np.empty_like(q)
        for head in np.split(np.arange(dim), heads):
            logits = q[:, head] @ k[:, head].T / math.sqrt(dim // heads)
            weights = np.exp(logits - logits.max(1, keepdims=True))
            out[:, head] = weights / weights.sum(1, keepdims=True) @ v[:, head]
        x = x + out @ state[f"{block}.attn.proj.weight"].T + state[f"{block}.attn.proj.bias"]
        hidden = _norm(state, f"{block}.norm2", x) @ state[f"{block}.mlp.fc1.weight"].T
        hidden = np.clip(hidden + state[f"{block}.mlp.fc1.bias"], 0, 6)
        x = x + hidden @ state[f"{block}.mlp.fc2.weight"].T + state[f"{block}.mlp.fc2.bias"]
        maps.append(x)
    return _norm(state, "norm", x), maps


@pytest.mark.parametrize("patch", [9, 16])
def test_features_equal_numpy(patch):
    model = small(patch_size=patch, mask_ratio=0.0).double().eval()
    with torch.no_grad():
        for block in model.blocks:  # so that ReLU6 also meets what is above 6
            block.mlp.fc1.weight.mul_(4)
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    images = make["images"](2).double()
    with torch.no_grad():
        features = model.forward_features(images, stages=True)
    side = 112 // patch
    assert features.grid == (side, side) and features.tokens.dtype == torch.float64
    for i, image in enumerate(images.numpy()):
        tokens, maps = reference_tokens(state, image, 2, patch)
        np.testing.assert_allclose(features.tokens[i], tokens, rtol=0, atol=1e-10)
        for stage, tap in zip(features.stages, (0, 2, 3, 5), strict=True):  # of 6 blocks
            expected = maps[tap].T.reshape(16, side, side)
            np.testing.assert_allclose(stage[i], expected, rtol=0, atol=1e-10)
        flat = state["feature.0.weight"] @ tokens.reshape(-1)
        for norm, linear in ((1, 2), (3, None)):
            flat = flat - state[f"feature.{norm}.running_mean"]
            flat = flat / np.sqrt(state[f"feature.{norm}.running_var"] + 2e-5)
            flat = flat * state[f"feature.{norm}.weight"] + state[f"feature.{norm}.bias"]
            flat = state[f"feature.{linear}.weight"] @ flat if linear else flat
        np.testing.assert_allclose(features.embedding[i], flat, rtol=0, atol=1e-10)


def test_masked_places_are_left_out_of_the_blocks_and_filled_after_them():
    model = small().double().train()
    images = make["images"](3).double()
    torch.manual_seed(11)
    features = model.forward_features(images, stages=True)
    torch.manual_seed(11)
    kept = torch.rand(3, 49).argsort(1)[:, :44].sort().values  # 44 = int(49 * 0.9)
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    masks = []
    for i, image in enumerate(images.numpy()):
        places = kept[i].numpy()
        gone = np.setdiff1d(np.arange(49), places)
        masks.append(tuple(gone))
        tokens, maps = reference_tokens(state, image, 2, 16, places)
        got = features.tokens[i].detach().numpy()
        np.testing.assert_allclose(got[places], tokens, rtol=0, atol=1e-10)
        np.testing.assert_array_equal(got[gone], np.tile(state["mask_token"][0], (5, 1)))
        last = features.stages[-1][i].detach().flatten(1).T.numpy()
        np.testing.assert_allclose(last[places], maps[-1], rtol=0, atol=1e-10)
        assert not last[gone].any()
    assert len(set(masks)) == 3  # each image has a mask of its own
    features.embedding.square().mul(torch.arange(12.0)).sum().backward()
    assert model.mask_token.grad.any()


def test_eval_masks_nothing_and_so_does_a_ratio_of_zero():
    images = make["images"](3)
    model = small().eval()
    plain = small(mask_ratio=0.0)
    assert not plain.mask_token.requires_grad
    with torch.no_grad():
        tokens = model.forward_features(images).tokens
        assert torch.equal(tokens, plain.train().forward_features(images).tokens)


def test_checkpointing_changes_memory_alone():
    images = make["images"](6)
    results = []
    for checkpointing in (False, True):
        model = small(checkpointing=checkpointing, drop_path=0.3).train()
        runs = []
        model.blocks[2].register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        torch.manual_seed(2)
        embedding = model(images)
        embedding.square().mul(torch.arange(12.0)).sum().backward()
        assert len(runs) == 1 + checkpointing
        results.append((embedding, [p.grad for p in model.parameters()]))
        runs.clear()
        model.eval()(images)
        assert len(runs) == 1
    (plain, gradients), (checkpointed, others) = results
    assert torch.equal(plain, checkpointed)
    assert all(torch.equal(one, other) for one, other in zip(gradients, others, strict=True))


def test_the_larger_ones_are_checkpointed_and_each_masks_as_it_should():
    shapes = {}
    for name in (*VITS, "vit_mini"):
        with torch.device("meta"):
            model = get_model(name)
        last = model.blocks[-1].drop_path
        drop = last.p if isinstance(last, StochasticDepth) else 0.0
        shapes[name] = (model.checkpointing, model.mask_ratio, drop)
    assert shapes == {
        "vit_t": (False, 0.1, 0.1),
        "vit_t_dp005_mask0": (False, 0.0, 0.05),
        "vit_s": (False, 0.1, 0.1),
        "vit_s_dp005_mask_0": (False, 0.0, 0.05),
        "vit_b": (True, 0.1, 0.1),
        "vit_b_dp005_mask_005": (True, 0.1, 0.05),
        "vit_l_dp005_mask_005": (True, 0.1, 0.05),
        "vit_h": (True, 0.0, 0.1),
        "vit_mini": (False, 0.0, 0.0),
    }


def test_stochastic_depth_drops_images_whole_and_keeps_the_mean():
    layer = StochasticDepth(0.25)
    x = torch.ones(4000, 2, 3)
    dropped = layer(x)
    per_image = dropped[:, 0, 0]
    assert torch.equal(dropped, per_image.view(-1, 1, 1).expand_as(x))
    assert sorted(set(per_image.tolist())) == pytest.approx([0, 4 / 3])
    assert per_image.mean().item() == pytest.approx(1, abs=0.04)
    assert layer.eval()(x) is x


def test_mini_is_for_cpus():
    model = get_model("vit_mini")
    head = sum(p.numel() for p in model.feature.parameters())
    assert sum(p.numel() for p in model.parameters()) - head < 3e5
    assert model.grid == (7, 7) and model.stage_dims == (64,) * 4 and model.taps == [0, 1, 2, 3]


def test_dropout_acts_in_training_and_spares_the_tokens():
    model = small(mask_ratio=0.0, dropout=0.5).train()
    images = make["images"](4)
    one, other = (model.forward_features(images) for _ in range(2))
    assert torch.equal(one.tokens, other.tokens)
    assert not torch.equal(one.embedding, other.embedding)
    model.eval()
    assert torch.equal(model(images), model(images))


def test_patches_are_embedded_and_residuals_added_in_full_precision():
    model = small().eval()
    model.amp_dtype = torch.bfloat16
    seen = {}

    def watch(name):
        return lambda _, args, out: seen.update({name: (args[0].dtype, out.dtype)})

    model.patch_embed.register_forward_hook(watch("patches"))
    model.blocks[1].register_forward_hook(watch("block"))
    model.blocks[1].attn.qkv.register_forward_hook(watch("qkv"))
    model.blocks[1].mlp.register_forward_hook(watch("mlp"))
    model(make["images"](1))
    full, narrow = torch.float32, torch.bfloat16
    assert seen["patches"] == seen["block"] == (full, full)
    assert seen["qkv"][1] == seen["mlp"][1] == narrow
