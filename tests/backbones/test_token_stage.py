"""Which stage a teacher's pixel features are of: ``cakd.teacher.stage``."""

import pytest
import timm
import torch

from arcface_cakd.backbones import BackboneError, build_teacher, get_model
from arcface_cakd.config import CakdConfig, ConfigError
from arcface_cakd.distiller import Distiller
from arcface_cakd.engine.errors import CheckpointError
from arcface_cakd.engine.fingerprint import check_fingerprint, fingerprint
from arcface_cakd.prompting import AdaptablePrompts
from arcface_cakd.prompting.route import PromptingError

# By network: where each stage's map leaves it, and whether with channels last.
PLACES = {
    "r10_narrow": ([f"layer{i}" for i in range(1, 5)], False),
    "mbf": ([f"layers.{i}" for i in (1, 3, 5, 7)], False),
    "swin_mini": ([f"trunk.layers.{i}" for i in range(3)], True),
    "timm:convnext_atto": ([f"trunk.stages.{i}" for i in range(4)], False),
    "edgeface_xxs": ([f"trunk.stages.{i}" for i in range(4)], False),
}


by_stage = pytest.mark.skipif(
    timm.__version__ == "1.0.9", reason="it counts the stem of a ConvNeXt as a stage"
)


def images(count=2):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, 3, 112, 112, generator=generator) * 2 - 1


def teacher(name, **settings):
    torch.manual_seed(0)
    return build_teacher(16, network=name, weights="random", **settings)


@pytest.mark.parametrize("name", PLACES)
@by_stage
def test_tokens_are_that_stages_map(name):
    places, channels_last = PLACES[name]
    model = teacher(name)
    seen = {}
    for place in places:
        model.get_submodule(place).register_forward_hook(
            lambda _, __, out, place=place: seen.update({place: out})
        )
    plain = model.forward_features(images())
    for stage, place in enumerate(places[:-1]):
        model.take_tokens_from(stage)
        features = model.forward_features(images())
        there = seen[place].permute(0, 3, 1, 2) if channels_last else seen[place]
        assert features.grid == model.grid == there.shape[2:]
        assert model.map_shape == (there.shape[1], model.grid)
        side = model.grid[1]
        for row, column in ((0, 0), (1, side - 1), (side - 1, 0)):
            expected = there[:, :, row, column]
            assert torch.equal(features.tokens[:, row * side + column], expected)
        assert torch.equal(features.embedding, plain.embedding)


@pytest.mark.parametrize("name", ["r10_narrow", "mbf", "swin_mini", "vit_mini"])
def test_the_last_stages_are_what_they_are_without_the_setting(name):
    plain = teacher(name)
    last = teacher(name, stage=len(plain.stage_dims) - 1)
    assert last.token_stage is None
    assert (last.map_shape, last.extent) == (plain.map_shape, plain.extent)
    features = last.forward_features(images())
    assert torch.equal(features.tokens, plain.forward_features(images()).tokens)


@pytest.mark.parametrize("name", ["vit_t_dp005_mask0", "timm:vit_tiny_patch16_224"])
def test_those_of_a_vit_are_what_blocks_leave(name):
    model = teacher(name, stage=1)
    blocks = model.get_submodule("trunk" if name.startswith("timm:") else "").blocks
    seen = []
    blocks[5].register_forward_hook(lambda _, __, out: seen.append(out))
    grid, extent = ((7, 7), 112) if name.startswith("timm:") else ((12, 12), 108)
    features = model.forward_features(images(1))
    prefix = seen[0].shape[1] - grid[0] * grid[1]
    assert torch.equal(features.tokens, seen[0][:, prefix:])
    assert (features.grid, model.grid, model.extent) == (grid, grid, extent)


@by_stage
@pytest.mark.parametrize(
    ("name", "extents"),
    [
        ("edgeface_xxs", (112, 112, 112, 96)),
        ("timm:convnext_atto", (112, 112, 112, 96)),
        ("timm:resnet10t", (112, 112, 112, 112, 112)),  # 7 to 4, with padding
        ("timm:mixer_s32_224", (96, 96, 96, 96)),  # patches of 32
        ("r10_narrow", (112, 112, 112, 112)),
    ],
)
def test_how_much_of_the_crop_a_stage_covers(name, extents):
    model = teacher(name)
    assert len(extents) == len(model.stage_dims)
    for stage, extent in enumerate(extents):
        model.take_tokens_from(stage)
        assert model.extent == extent


def test_the_modes_stay_as_they_were_and_nothing_is_drawn():
    model = get_model("r10_narrow", num_features=8).train()
    model.bn1.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    model.take_tokens_from(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training and model.layer1.training and not model.bn1.training


@pytest.mark.parametrize("stage", [3, 7])
def test_a_stage_that_there_is_not(stage):
    said = r"cakd.teacher.stage of 'swin_mini': .* 0 \(28 x 28\), 1 \(14 x 14\), 2 \(7 x 7\)"
    with pytest.raises(BackboneError, match=said) as error:
        teacher("swin_mini", stage=stage)
    assert "\n" not in str(error.value)


def test_a_negative_one_is_refused_before_anything_is_built():
    entry = {"teacher": {"network": "swin_mini", "weights": "random", "stage": -1}}
    with pytest.raises(ConfigError, match=r"cakd.teacher.stage .*at least 0"):
        CakdConfig.from_entry(entry)


def test_an_onnx_file_has_none():
    with pytest.raises(BackboneError, match=r"cakd.teacher.stage 1: 'onnx:a.onnx' gives embed"):
        build_teacher(16, network="onnx:a.onnx", stage=1)


@pytest.mark.parametrize("name", ["swin_mini", "vit_mini"])
def test_prompts_take_the_last_one_alone(name):
    with pytest.raises(PromptingError, match=r"cakd.teacher.stage 1: .*cakd.prompts=None") as error:
        AdaptablePrompts(teacher(name, stage=1), num_tokens=2)
    assert "\n" not in str(error.value)
    last = teacher(name, stage=len(teacher(name).stage_dims) - 1)
    prompts = AdaptablePrompts(last, num_tokens=2)
    assert prompts(last, images(1)).prompts.shape[1] == 2


def distiller(name="swin_mini", stage=None, **entry):
    entry = {
        "teacher": {"network": name, "weights": "random", "stage": stage},
        "prompts": None,
        "urfm": {"num_centers": 9},
        **entry,
    }
    config = CakdConfig.from_entry(entry)
    torch.manual_seed(0)
    built = build_teacher(16, **config.teacher)
    torch.manual_seed(1)
    student = get_model("r10_narrow", num_features=16)
    return Distiller(student, built, config, 3).train()


@pytest.mark.parametrize(
    ("name", "stage", "shape"),
    [
        ("swin_mini", 1, (196, 64)),
        ("r10_narrow", 2, (196, 64)),
        ("edgeface_xxs", None, (49, 88)),
        ("edgeface_xxs", 3, (9, 168)),
    ],
)
def test_urfm_and_losses_learn_from_it(name, stage, shape):
    losses = [{"name": n} for n in ("urfm_feature", "urfm_attention", "fitnet", "at", "cakd_liu")]
    built = distiller(name, stage, losses=losses)
    labels = torch.tensor([0, 1, 2, 0])
    built(images(4))
    assert built._pending.teacher.tokens.shape[1:] == shape
    terms = built.terms(labels)
    sum(terms.values()).backward()
    for term in terms.values():
        assert term.isfinite() and term > 0
    for parameter in built.student.layer1.parameters():
        assert parameter.grad is not None and parameter.grad.any()


def test_a_checkpoint_knows_it():
    plain, other = fingerprint(distiller()), fingerprint(distiller(stage=1))
    assert {k for k in plain if plain[k] != other[k]} == {"teacher.stage"}
    assert fingerprint(distiller(stage=2)) == plain
    for then, now in ((plain, other), (other, plain)):
        with pytest.raises(
            CheckpointError, match=r"has teacher.stage .*, the config .*set it back"
        ):
            check_fingerprint(then, now, "checkpoint.pt")
    older = {k: v for k, v in plain.items() if k != "teacher.stage"}
    check_fingerprint(older, plain, "checkpoint.pt")  # of a version that had no such setting
    with pytest.raises(CheckpointError, match=r"teacher\.stage None, the config 1"):
        check_fingerprint(older, other, "checkpoint.pt")
