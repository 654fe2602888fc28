"""CVLface's recognisers: keys, shapes and embeddings of its own code, in a golden file."""

import json
import re
import runpy
from pathlib import Path

import pytest
import torch
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    SwinTransformer,
    SwinTransformerBlockV2,
)

from arcface_cakd.backbones import WeightsError, build_teacher, copy_weights, get_model
from arcface_cakd.backbones.cvlface import CvlfaceViT
from arcface_cakd.prompting import AdaptablePrompts

GOLDEN = Path(__file__).parents[1] / "golden"
make = runpy.run_path(str(GOLDEN / "make_backbones.py"))
without_repeats = runpy.run_path(str(GOLDEN / "make_cvlface.py"))["without_repeats"]
golden = json.loads((GOLDEN / "cvlface.json").read_text())
# The others differ from one of these in depth or width alone, and would cost the suite time.
COMPUTED = ("cvlface_vit_s", "cvlface_vit_b", "cvlface_swin_s", "cvlface_ir18", "r18")
UNITS = {
    "cvlface_ir18": (2, 2, 2, 2),
    "cvlface_ir50": (3, 4, 14, 3),
    "cvlface_ir101": (3, 13, 30, 3),
}
OUTER = dict(conv1="input_layer.0", bn1="input_layer.1", prelu="input_layer.2")
OUTER |= dict(bn2="output_layer.0", fc="output_layer.3", features="output_layer.4")
INNER = ["bn1", "conv1", "bn2", "prelu", "conv2", "bn3"]


def theirs(name, key):
    """CVLface's key for ours, written down apart from the code under test."""
    if name not in UNITS:
        return key
    unit = re.fullmatch(r"layer(\d)\.(\d+)\.(\w+)\.(?:(\d)\.)?(\w+)", key)
    if unit is None:
        layer, _, what = key.partition(".")
        return f"{OUTER[layer]}.{what}"
    stage, index, layer, part, what = unit.groups()
    place = sum(UNITS[name][: int(stage) - 1]) + int(index)
    inner = f"shortcut_layer.{part}" if part else f"res_layer.{INNER.index(layer)}"
    return f"body.{place}.{inner}.{what}"


def in_cvlface(name, model):
    """A state dict in CVLface's keys and shapes for this network."""
    own = model.state_dict()
    if "swin" not in name:
        return {theirs(name, key): value for key, value in own.items()}
    with torch.device("meta"):
        swin = SwinTransformer(
            [4, 4],
            model.stage_dims[0],
            [4, 6, 8],
            [4, 8, 16],
            [7, 7],
            block=SwinTransformerBlockV2,
            downsample_layer=PatchMergingV2,
        )
    # CVLface's list of layers is flat, where torchvision has one of stages and mergings.
    flat = ["0"]
    for i, part in enumerate(swin.features[1:], 1):
        flat += [f"{i}.{j}" for j in range(len(part))] if i % 2 else [f"{i}"]
    state = {k: v for k, v in own.items() if k.startswith("feature.")}
    for key, value in swin.state_dict().items():
        if key.startswith("norm."):
            state[key] = value
        for place, part in enumerate(flat):
            if key.startswith(f"features.{part}."):
                state[key.replace(f"features.{part}.", f"features.{place}.")] = value
    return state


def published(name, model):
    """What CVLface would save for this network, with values that depend on its keys alone."""
    return make["seeded_tensors"](in_cvlface(name, model))


@pytest.mark.parametrize("name", golden)
def test_keys_and_shapes(name):
    try:
        with torch.device("meta"):
            model = get_model(name, num_features=512)
    except RuntimeError:  # timm 1.0.9 computes with numbers while it builds
        model = get_model(name, num_features=512)
    named = {key: tuple(value.shape) for key, value in in_cvlface(name, model).items()}
    assert len(named) == golden[name]["num_keys"]
    assert make["digest"](sorted(f"{k} {v}" for k, v in named.items())) == golden[name]["keys"]


@pytest.mark.parametrize("name", COMPUTED)
def test_embeddings(name, monkeypatch):
    def undrawn(tensor, *_, **__):  # seeded numbers follow
        return tensor

    for draw in ("trunc_normal_", "kaiming_uniform_", "uniform_", "normal_"):
        monkeypatch.setattr(torch.nn.init, draw, undrawn)
    monkeypatch.setattr("timm.layers.trunc_normal_", undrawn)
    model = without_repeats(get_model(name, num_features=512).eval())
    state = {f"net.{key}": value for key, value in published(name, model).items()}
    copy_weights(model, state, "weights")
    with torch.no_grad():
        found = model(make["images"](2))[:, :8]
    torch.testing.assert_close(found, torch.tensor(golden[name]["embedding"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["cvlface_ir18", "cvlface_swin_s"])
def test_our_own_files_stay_as_they_are(name):
    state = get_model(name, num_features=8).state_dict()
    again = get_model(name, num_features=9).from_published(state)
    assert again.keys() == state.keys()
    assert all(again[key] is state[key] for key in state)


def test_a_folder_makes_a_teacher_of_its_own_width(tmp_path):
    model = get_model("cvlface_ir18", num_features=512)
    (tmp_path / "pretrained_model").mkdir()
    (tmp_path / "pretrained_model" / "model.yaml").write_text("color_space: 'RGB'\n")
    state = {f"net.{k}": v for k, v in published("cvlface_ir18", model).items()}
    torch.save(state, tmp_path / "pretrained_model" / "model.pt")
    teacher = build_teacher(64, network="cvlface_ir18", weights=str(tmp_path))
    assert teacher.embedding_size == 512
    with torch.no_grad():
        found = teacher(make["images"](2))[:, :8]
    expected = torch.tensor(golden["cvlface_ir18"]["embedding"])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name, other", [("cvlface_ir18", "cvlface_ir50"), ("r18", "cvlface_ir18")])
def test_those_of_another_network_are_refused_by_the_names_in_the_file(name, other):
    with torch.device("meta"):
        wrong, model = get_model(other), get_model(name)
    state = in_cvlface(other, wrong)
    with pytest.raises(WeightsError, match=r"unexpected \(input_layer\.0\.weight, "):
        copy_weights(model, state, "weights")


@pytest.mark.parametrize("key", ["keypoint_linear.weight", "blocks.0.attn.rpe_k.lookup_table"])
def test_networks_with_landmarks_or_relative_positions_are_refused_in_one_line(key):
    with torch.device("meta"):
        model = CvlfaceViT(8, 2, 8, mlp_ratio=3)
    state = {**model.state_dict(), key: torch.zeros(2, 2)}
    with pytest.raises(WeightsError, match=r"KP-RPE, iRPE\), which no network here has") as error:
        copy_weights(model, {f"model.net.{k}": v for k, v in state.items()}, "weights")
    assert "\n" not in str(error.value) and key in str(error.value)


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return CvlfaceViT(8, 2, 8, mlp_ratio=3).eval().requires_grad_(False)


def test_its_swin_takes_prompts():
    model = get_model("cvlface_swin_s", num_features=8).eval().requires_grad_(False)
    features = AdaptablePrompts(model, num_tokens=2)(model, make["images"](1))
    assert features.prompts.shape == (1, 2, 512)
    assert features.tokens.shape == (1, 49, 512)


class TestViT:
    def test_its_patches_cover_the_crop(self, vit):
        assert (vit.grid, vit.extent, vit.token_dim) == ((14, 14), 112.0, 512)

    def test_a_mask_token_of_its_training_is_left_out(self, vit):
        before = {k: v.clone() for k, v in vit.state_dict().items()}
        copy_weights(vit, {**before, "mask_token": torch.ones(1, 1, 512)}, "weights")
        assert vit.state_dict().keys() == before.keys()

    def test_takes_prompts(self, vit):
        images = make["images"](2)
        plain = vit.forward_features(images)
        none = AdaptablePrompts(vit, num_tokens=0)(vit, images)
        torch.testing.assert_close(none.tokens, plain.tokens)
        prompts = AdaptablePrompts(vit, num_tokens=3)
        prompted = prompts(vit, images)
        assert prompted.prompts.shape == (2, 3, 512)
        assert prompted.tokens.shape == plain.tokens.shape
        assert not torch.allclose(prompted.tokens, plain.tokens, atol=1e-3)
        prompted.embedding.sum().backward()
        assert all(p.grad.any() for p in prompts.parameters())
