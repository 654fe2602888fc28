"""timm-face's ViTs: the models that it trains, its two layouts, prompts."""

import runpy
from pathlib import Path

import pytest
import timm
import torch

from arcface_cakd.backbones import load_weights
from arcface_cakd.backbones.timm_face import ClassTokenViT, TimmFaceViT
from arcface_cakd.prompting import AdaptablePrompts

make = runpy.run_path(str(Path(__file__).parents[1] / "golden" / "make_backbones.py"))
KINDS = {
    TimmFaceViT: ("vit_small_patch16_224", {"class_token": False, "global_pool": "avg"}),
    ClassTokenViT: ("vit_tiny_patch16_224", {}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["hub", "checkpoint"])
def test_equals_the_model_that_it_trains(kind, layout, tmp_path):
    torch.manual_seed(6)
    name, settings = KINDS[kind]
    settings = {**settings, "depth": 4}  # enough blocks
    plain = timm.create_model(name, num_classes=20, img_size=112, patch_size=8, **settings).eval()
    state = plain.state_dict()
    if layout == "checkpoint":  # of its train.py: TimmFace's own keys, under AdaFace
        state = {f"backbone.{k}": v for k, v in state.items()}
        state |= {"weight": torch.zeros(7, 20), "loss.norm_mean": torch.tensor(20.0)}
        state = {"model": state, "ema": {}}
    torch.save(state, tmp_path / "model.pt")
    teacher = kind(name, 20, 0.0, False, **settings).eval()
    load_weights(teacher, tmp_path / "model.pt")
    images = make["images"](2)
    with torch.no_grad():
        features = teacher.forward_features(images, stages=True)
        torch.testing.assert_close(features.embedding, plain(images), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(teacher(images), features.embedding)
        tokens = plain.forward_features(images)[:, plain.num_prefix_tokens :]
    torch.testing.assert_close(features.tokens, tokens)
    assert (teacher.grid, teacher.extent) == ((14, 14), 112.0)
    assert [tuple(m.shape[2:]) for m in features.stages] == 4 * [(14, 14)]


def test_prompts_in_the_one_that_pools_its_patches():
    torch.manual_seed(7)
    name, settings = KINDS[TimmFaceViT]
    teacher = TimmFaceViT(name, 20, 0.0, False, depth=4, **settings).eval().requires_grad_(False)
    images = make["images"](1)
    plain = teacher.forward_features(images)
    prompted = AdaptablePrompts(teacher, num_tokens=2, places=(2,))(teacher, images)
    assert prompted.prompts.shape == (1, 2, 384) and prompted.tokens.shape == plain.tokens.shape
    mean = prompted.tokens.mean(1)
    expected = teacher.trunk.head(teacher.trunk.fc_norm(mean))
    torch.testing.assert_close(prompted.embedding, expected)
    assert not torch.allclose(prompted.tokens, plain.tokens, atol=1e-4)


def test_prompts_in_the_other_reach_its_class_token():
    torch.manual_seed(8)
    name, settings = KINDS[ClassTokenViT]
    teacher = ClassTokenViT(name, 20, 0.0, False, depth=4, **settings).eval().requires_grad_(False)
    images = make["images"](2)
    plain = teacher.forward_features(images)
    prompts = AdaptablePrompts(teacher, num_tokens=3, places=(1, 3))
    prompted = prompts(teacher, images)
    # The same in timm's own blocks: class token, prompts, patches.
    trunk = teacher.trunk
    x = trunk._pos_embed(trunk.patch_embed(images))
    x = trunk.blocks[0](x)
    for place, others in ((1, (1, 2)), (3, (3,))):
        fresh = prompts.prompts[str(place)].expand(2, -1, -1)
        x = torch.cat([x[:, :1], fresh, x[:, -196:]], dim=1)
        for block in others:
            x = trunk.blocks[block](x)
    x = trunk.norm(x)
    torch.testing.assert_close(prompted.embedding, trunk.head(x[:, 0]))
    torch.testing.assert_close(prompted.tokens, x[:, 4:])
    torch.testing.assert_close(prompted.prompts, x[:, 1:4])
    assert not torch.allclose(prompted.embedding, plain.embedding, atol=1e-4)
    prompted.embedding.sum().backward()
    assert all(p.grad.any() for p in prompts.parameters())
