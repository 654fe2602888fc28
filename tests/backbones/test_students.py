"""The students are arcface_torch's: against a golden file everywhere, and against the host."""

import json
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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
from arcface_cakd.registry import UnknownNameError

GOLDEN = Path(__file__).parents[1] / "golden"
make = runpy.run_path(str(GOLDEN / "make_backbones.py"))
golden = json.loads((GOLDEN / "backbones.json").read_text())

ARCFACE_TORCH = os.environ.get("ARCFACE_TORCH")
needs_host = pytest.mark.skipif(
    not ARCFACE_TORCH, reason="set ARCFACE_TORCH to a checkout's recognition/arcface_torch"
)


@pytest.fixture(scope="module")
def host_get_model():
    return make["host_get_model"](ARCFACE_TORCH)


def both(host_get_model, name, seed=0, **arguments):
    """The host's network and ours, each built from the same random state."""
    arguments = {"dropout": 0.0, "fp16": False, "num_features": 64, **arguments}
    torch.manual_seed(seed)
    host = host_get_model(name, **arguments)
    torch.manual_seed(seed)
    return host, get_model(name, **arguments)


class TestGolden:
    @pytest.mark.parametrize("name", make["NETWORKS"])
    def test_keys_order_metadata_and_outputs(self, name):
        model = get_model(name, num_features=make["NUM_FEATURES"])
        model.load_state_dict(make["seeded_state"](model))
        found = make["record"](model, name in make["TRAINED"])
        expected = golden[name]
        assert found.keys() == expected.keys()
        for part in ("num_keys", "keys", "metadata", "parameters"):
            assert found[part] == expected[part], part
        for part in ("embedding", "train_embedding"):
            if part in expected:
                close = torch.testing.assert_close
                close(torch.tensor(found[part]), torch.tensor(expected[part]), rtol=0, atol=5e-5)
        for part in ("gradient_norms", "running_var_sums"):
            if part in expected:
                assert found[part].keys() == expected[part].keys()
                scale = max(expected[part].values())
                assert found[part] == pytest.approx(expected[part], rel=1e-3, abs=1e-5 * scale)


@needs_host
class TestHost:
    @pytest.mark.parametrize("name", make["NETWORKS"])
    def test_weights_pass_both_ways(self, host_get_model, name, tmp_path):
        host, ours = both(host_get_model, name)
        theirs = host.state_dict()
        assert list(theirs) == list(ours.state_dict())
        assert theirs._metadata == ours.state_dict()._metadata
        assert [n for n, _ in host.named_parameters()] == [n for n, _ in ours.named_parameters()]
        assert [p.requires_grad for p in host.parameters()] == [
            p.requires_grad for p in ours.parameters()
        ]
        seeded = make["seeded_state"](host)
        host.load_state_dict(seeded)
        torch.save(host.state_dict(), tmp_path / "theirs.pt")
        load_weights(ours, tmp_path / "theirs.pt")
        save_weights(ours, tmp_path / "ours.pt")
        saved = torch.load(tmp_path / "ours.pt", weights_only=True)
        assert saved._metadata == host.state_dict()._metadata
        host.load_state_dict(saved, strict=True)
        for key, value in seeded.items():
            assert torch.equal(saved[key], value), key

    @pytest.mark.parametrize("name", make["NETWORKS"])
    def test_a_seed_gives_the_same_initial_weights(self, host_get_model, name):
        host, ours = both(host_get_model, name, seed=3)
        for key, value in host.state_dict().items():
            assert torch.equal(ours.state_dict()[key], value), key

    @pytest.mark.parametrize(("name", "dropout"), [("mbf", 0.0), ("r18", 0.0), ("r18", 0.4)])
    def test_outputs_statistics_and_gradients(self, host_get_model, name, dropout):
        networks = both(host_get_model, name, dropout=dropout)
        batch = make["images"](4)
        outputs = []
        for network in networks:
            network.load_state_dict(make["seeded_state"](network))
            torch.manual_seed(1)
            embedding = network.train()(batch)
            embedding.square().mul(torch.arange(64.0)).sum().backward()
            with torch.no_grad():
                outputs.append((embedding, network.eval()(batch)))
        for theirs, ours in zip(*outputs, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
        for theirs, ours in zip(*(n.buffers() for n in networks), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
        for theirs, ours in zip(*(n.parameters() for n in networks), strict=True):
            if theirs.requires_grad:
                torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("name", ["mbf", "r18"])
    def test_mixed_precision_has_the_same_borders(self, host_get_model, name, monkeypatch):
        """The host only knows CUDA's autocast; here it gets the CPU's, in bfloat16."""

        def autocast(enabled):
            return torch.autocast("cpu", torch.bfloat16, enabled=enabled)

        monkeypatch.setattr(torch.cuda.amp, "autocast", autocast)
        host, ours = both(host_get_model, name, fp16=True)
        ours.amp_dtype = torch.bfloat16
        batch = make["images"](4)
        torch.testing.assert_close(ours(batch), host(batch), rtol=1e-6, atol=1e-6)

    def test_the_golden_file_is_what_the_host_gives(self, tmp_path):
        script = tmp_path / "make_backbones.py"
        script.write_text((GOLDEN / "make_backbones.py").read_text())
        narrowed = script.read_text().replace(
            'NETWORKS = ("mbf", "mbf_large", "r18", "r34", "r50", "r100")', 'NETWORKS = ("mbf",)'
        )
        script.write_text(narrowed)
        subprocess.run([sys.executable, "-W", "ignore", str(script)], check=True)
        made = json.loads((tmp_path / "backbones.json").read_text())
        assert made.keys() == {"mbf"}
        assert made["mbf"]["keys"] == golden["mbf"]["keys"]
        torch.testing.assert_close(
            torch.tensor(made["mbf"]["embedding"]),
            torch.tensor(golden["mbf"]["embedding"]),
            rtol=0,
            atol=1e-4,
        )


class TestInitialisation:
    def test_mobilefacenet_is_he_normal_by_fan_out(self):
        layers = [m for m in get_model("mbf").modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert len(layers) > 40
        for layer in layers:
            fan_out = layer.weight.shape[0] * math.prod(layer.weight.shape[2:])
            if layer.weight.numel() > 4000:
                assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.06)

    @pytest.mark.parametrize("name", ["r18", "r10_narrow"])
    def test_iresnet_is_normal_of_a_tenth(self, name):
        model = get_model(name)
        convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        assert len(convolutions) == {"r18": 1 + 2 * 8 + 4, "r10_narrow": 1 + 2 * 4 + 4}[name]
        for layer in convolutions:
            if layer.weight.numel() > 4000:
                assert layer.weight.std().item() == pytest.approx(0.1, rel=0.06)
        assert torch.equal(model.features.weight, torch.ones(512))
        assert not model.features.weight.requires_grad


def test_dropout_spares_the_tokens():
    model = get_model("r10_narrow", dropout=0.9).train()
    features = model.forward_features(make["images"](2))
    assert (features.tokens == 0).float().mean() < 0.01
    torch.manual_seed(0)
    one = model(make["images"](2))
    torch.manual_seed(1)
    assert not torch.equal(one, model(make["images"](2)))


def test_mobilefacenet_leaves_mixed_precision_before_its_last_convolution():
    model = get_model("mbf", num_features=8).eval()
    model.amp_dtype = torch.bfloat16
    seen = {}
    for name, layer in (("last stage", model.layers[-1]), ("conv_sep", model.conv_sep.layers[0])):
        layer.register_forward_hook(lambda _, args, out, name=name: seen.update({name: out.dtype}))
    model(make["images"](1))
    assert seen == {"last stage": torch.bfloat16, "conv_sep": torch.float32}


class Toy(FaceBackbone):
    def __init__(self, num_features):
        super().__init__()
        self.embedding_size, self.token_dim = num_features, 3
        self.grid, self.stage_dims = (7, 7), ()
        self.linear = nn.Linear(3, num_features)

    def body(self, images):
        return nn.functional.avg_pool2d(images, 16), ()

    def head(self, final):
        return self.linear(final.mean((2, 3)))


@pytest.fixture
def registered(monkeypatch):
    def register(name, factory):
        BACKBONES.names()  # filled, so that what monkeypatch takes out again is this entry alone
        monkeypatch.setitem(BACKBONES._components, name, factory)

    return register


class TestGetModel:
    def test_arguments_reach_a_registered_factory(self, registered):
        seen = {}

        def factory(dropout, fp16, num_features):
            seen.update(dropout=dropout, fp16=fp16, num_features=num_features)
            return Toy(num_features)

        registered("toy", factory)
        model = get_model("toy", dropout=0.25, fp16=True, num_features=9)
        assert seen == {"dropout": 0.25, "fp16": True, "num_features": 9}
        assert model(make["images"](2)).shape == (2, 9)

    def test_extra_arguments_reach_a_factory_that_takes_them(self, registered):
        def factory(dropout, fp16, num_features, depth):
            model = Toy(num_features)
            model.depth = depth
            return model

        registered("toy", factory)
        assert get_model("toy", depth=3).depth == 3
        with pytest.raises(BackboneError, match=r"'toy'.*depht"):
            get_model("toy", depht=3)

    def test_timm_names_are_handed_on_without_their_prefix(self, monkeypatch):
        from arcface_cakd.backbones import timm_grid

        def build(*args, **kwargs):
            return SimpleNamespace(args=args, kwargs=kwargs)

        monkeypatch.setattr(timm_grid, "build", build)
        given = get_model("timm:vit_tiny", dropout=0.1, num_features=7, patch_size=8)
        assert given.args == ("vit_tiny",) and given.built_as == "timm:vit_tiny"
        assert given.kwargs == {"dropout": 0.1, "fp16": False, "num_features": 7, "patch_size": 8}

    @pytest.mark.parametrize(("name", "near"), [("r101", "r10"), ("mbf_lrage", "mbf_large")])
    def test_an_unknown_name_gets_the_nearest(self, name, near):
        with pytest.raises(UnknownNameError, match=f"{name}.*did you mean '{near}"):
            get_model(name)

    @pytest.mark.parametrize("width", [0, -1, 2.5, "512", True, None])
    def test_widths_that_are_none(self, width):
        with pytest.raises(BackboneError, match="'r18': num_features"):
            get_model("r18", num_features=width)

    @pytest.mark.parametrize("dropout", [-0.1, 1.0, math.nan])
    def test_dropout_out_of_range(self, dropout):
        with pytest.raises(BackboneError, match="'r18': dropout"):
            get_model("r18", dropout=dropout)

    @pytest.mark.parametrize("name", ["mbf", "mbf_large"])
    def test_mobilefacenet_has_no_dropout(self, name):
        with pytest.raises(BackboneError, match=f"'{name}' has no dropout"):
            get_model(name, dropout=0.1)

    @pytest.mark.parametrize("name", ["mbf", "mbf_large", "r18", "r10_narrow"])
    def test_fp16_is_the_precision_of_the_body(self, name):
        assert get_model(name, num_features=8).amp_dtype is None
        assert get_model(name, fp16=True, num_features=8).amp_dtype is torch.float16

    def test_something_else_than_a_backbone(self, registered):
        registered("odd", lambda dropout, fp16, num_features: nn.Linear(3, num_features))
        with pytest.raises(BackboneError, match="'odd' is a Linear, not a FaceBackbone"):
            get_model("odd")

    def test_a_factory_with_other_arguments(self, registered):
        registered("odd", lambda width: Toy(width))
        with pytest.raises(BackboneError, match="'odd' cannot be built with dropout, fp16"):
            get_model("odd")

    def test_a_backbone_that_does_not_say_its_shapes(self, registered):
        def factory(dropout, fp16, num_features):
            model = Toy(num_features)
            del model.grid, model.stage_dims
            return model

        registered("odd", factory)
        with pytest.raises(BackboneError, match="'odd' does not set grid, stage_dims"):
            get_model("odd")


def test_float64_is_kept():
    model = get_model("r10_narrow", num_features=8).double().eval()
    features = model.forward_features(make["images"](1).double(), stages=True)
    assert features.embedding.dtype == features.tokens.dtype == torch.float64


def test_autocast_around_a_float32_network_does_nothing():
    model = get_model("r10_narrow", num_features=8).eval()
    plain = model(make["images"](1))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(make["images"](1)), plain)
