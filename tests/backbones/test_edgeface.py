"""EdgeFace: timm's EdgeNeXt, low rank, the layouts of its files, what its last map covers."""

import runpy
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from arcface_cakd.backbones import (
    BackboneError,
    WeightsError,
    build_teacher,
    copy_weights,
    get_model,
    start_from,
)
from arcface_cakd.prompting import AdaptablePrompts
from arcface_cakd.prompting.route import PromptingError

make = runpy.run_path(str(Path(__file__).parents[1] / "golden" / "make_backbones.py"))


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_a_plain_timm_model(seed):
    torch.manual_seed(seed)
    plain = timm.create_model("edgenext_xx_small", num_classes=24).eval()
    if not hasattr(plain, "forward_intermediates"):
        pytest.skip("timm 1.0.9 does not give an EdgeNeXt's maps")
    for parameter in plain.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)  # layer scales start at 1e-6
    model = get_model("edgeface_xxs", num_features=24).eval()
    copy_weights(model, plain.state_dict(), "weights")
    images = make["images"](2)
    with torch.no_grad():
        expected, maps = plain.forward_intermediates(images)
        features = model.forward_features(images, stages=True)
        torch.testing.assert_close(features.embedding, plain(images), rtol=0, atol=1e-5)
        torch.testing.assert_close(model.body(images)[0], expected, rtol=0, atol=1e-5)
    for ours, theirs in zip(features.stages, maps, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    tokens = maps[2].flatten(2).transpose(1, 2)
    torch.testing.assert_close(features.tokens, tokens, rtol=0, atol=1e-5)
    assert [m.shape[-1] for m in maps] == [28, 14, 7, 3]


def test_low_rank_layers_multiply_to_those_of_a_plain_one():
    torch.manual_seed(2)
    model = get_model("edgeface_xs_gamma_06", num_features=24).double().eval()
    plain = timm.create_model("edgenext_x_small", num_classes=24).double().eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    state = {k.removeprefix("trunk."): v for k, v in model.state_dict().items()}
    for key in [k for k in state if k.endswith(".linear1.weight")]:
        place = key.removesuffix(".linear1.weight")
        second = state.pop(f"{place}.linear2.weight")
        state[f"{place}.weight"] = second @ state.pop(key)
        state[f"{place}.bias"] = state.pop(f"{place}.linear2.bias")
    plain.load_state_dict(state)
    images = make["images"](2).double()
    with torch.no_grad():
        torch.testing.assert_close(model(images), plain(images), rtol=0, atol=1e-9)


@pytest.mark.parametrize("prefix", ["model.", "", "trunk.", "module.model."])
def test_layouts_of_its_files(prefix, tmp_path):
    torch.manual_seed(3)
    plain = timm.create_model("edgenext_xx_small", num_classes=40).eval()
    torch.save({prefix + k: v for k, v in plain.state_dict().items()}, tmp_path / "edgeface.pt")
    teacher = build_teacher(512, network="edgeface_xxs", weights=str(tmp_path / "edgeface.pt"))
    student = get_model("edgeface_xxs", num_features=40).eval()
    start_from(student, str(tmp_path / "edgeface.pt"))
    images = make["images"](1)
    with torch.no_grad():
        expected = plain(images)
        assert torch.equal(teacher(images), expected)
        assert torch.equal(student(images), expected)
    assert (teacher.grid, teacher.token_dim, teacher.extent) == ((7, 7), 88, 112.0)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:TypedStorage")
def test_a_dynamically_quantised_file(tmp_path):
    """The layout of edgeface_xxs_q.pt, made by hand; numpy multiplies steps and scale."""
    torch.manual_seed(4)
    plain = timm.create_model("edgenext_xx_small", num_classes=16).eval()
    linears = {n for n, m in plain.named_modules() if isinstance(m, nn.Linear)}
    assert len(linears) > 10
    state = {}
    for key, value in plain.state_dict().items():
        place, _, what = key.rpartition(".")
        if place not in linears:
            state[f"model.{key}"] = value
        elif what == "weight":
            scale = float(value.abs().max()) / 127
            packed = torch.quantize_per_tensor(value, scale, 0, torch.qint8)
            steps = packed.int_repr().numpy().astype("float32")
            value.copy_(torch.from_numpy(steps * torch.tensor(scale).item()))
            state[f"model.{place}.scale"] = torch.tensor(1.0)
            state[f"model.{place}.zero_point"] = torch.tensor(0)
            state[f"model.{place}._packed_params.dtype"] = torch.qint8
            bias = plain.get_submodule(place).bias
            parts = (packed, None if bias is None else bias.detach())
            state[f"model.{place}._packed_params._packed_params"] = parts
    torch.save(state, tmp_path / "q.pt")
    teacher = build_teacher(512, network="edgeface_xxs", weights=str(tmp_path / "q.pt"))
    assert teacher.embedding_size == 16
    with torch.no_grad():
        found, expected = teacher(make["images"](2)), plain(make["images"](2))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_last_stage_covers_less_of_the_crop():
    model = get_model("edgeface_xxs", num_features=8).eval()
    model.take_tokens_from(3)
    assert (model.grid, model.token_dim, model.extent) == ((3, 3), 168, 96.0)
    images = make["images"](2)
    outside = images.clone()
    outside[:, :, 96:] = outside[:, :, :, 96:] = 1.0
    kernels = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 2]
    for conv in kernels:  # what is left are patches and their merging, and attention
        nn.init.zeros_(conv.weight)
        if conv.kernel_size[0] == 4:
            nn.init.normal_(conv.weight)
    channels = [m for n, m in model.named_modules() if n.endswith("xca")]
    assert channels
    for attention in channels:
        attention.forward = lambda x: torch.zeros_like(x)
    with torch.no_grad():
        seen = model.forward_features(images).tokens
        assert torch.equal(model.forward_features(outside).tokens, seen)
        outside[:, :, 95] = -1.0
        assert not torch.equal(model.forward_features(outside).tokens, seen)


def test_others_weights_and_settings_are_refused_in_one_line(tmp_path):
    torch.save(get_model("edgeface_xxs").state_dict(), tmp_path / "xxs.pt")
    with pytest.raises(WeightsError, match=r"network 'edgeface_xs': weights .* do not fit"):
        build_teacher(512, network="edgeface_xs", weights=str(tmp_path / "xxs.pt"))
    with pytest.raises(BackboneError, match="'edgeface_s' has no dropout: leave"):
        get_model("edgeface_s", dropout=0.1)
    teacher = build_teacher(8, network="edgeface_xxs", weights="random", stage=3)
    with pytest.raises(PromptingError, match=r"EdgeNeXt is neither: .* cakd.prompts=None"):
        AdaptablePrompts(teacher)


@pytest.mark.parametrize(
    ("network", "plain"),
    [("edgeface_xxs", "edgenext_xx_small"), ("timmface_vit_ti8", "vit_tiny_patch16_224")],
)
def test_classifiers_of_imagenet_are_no_teachers(tmp_path, network, plain):
    """Their layer behind the trunk has the place of the embedding's."""
    path = tmp_path / "w.pt"
    torch.save(timm.create_model(plain, num_classes=1000).state_dict(), path)
    with pytest.raises(WeightsError, match="have 1000 outputs, as classifiers of ImageNet have"):
        build_teacher(512, network=network, weights=str(path))


def test_a_face_model_as_wide_as_a_classifier_is_one(tmp_path):
    path = tmp_path / "w.pt"
    torch.save(get_model("vit_mini", num_features=1000).state_dict(), path)
    assert build_teacher(512, network="vit_mini", weights=str(path)).embedding_size == 1000
