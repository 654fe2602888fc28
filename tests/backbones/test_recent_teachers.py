"""EdgeFace, TransFace and timm-face are what their own code and its figures say."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from helpers.recipes import on_meta

from arcface_cakd.backbones import copy_weights, get_model
from arcface_cakd.backbones.transface import TransFace

GOLDEN = Path(__file__).parents[1] / "golden"
make = runpy.run_path(str(GOLDEN / "make_backbones.py"))
golden = json.loads((GOLDEN / "recent_teachers.json").read_text())
small = runpy.run_path(str(GOLDEN / "make_recent_teachers.py"))["SMALL_TRANSFACE"]
COMPUTED = [name for name, found in golden.items() if "embedding" in found]
PREFIX = {"edgeface": "model.", "transface": ""}  # of all keys in their files


def published(name, like):
    """Keys of their files for our own ones, written down apart from the code under test."""
    prefix = PREFIX[name.partition("_")[0]]
    return {prefix + key.removeprefix("trunk."): value for key, value in like.items()}


def network(name):
    return TransFace(512, mask_ratio=0.0, **small) if name == "transface" else get_model(name)


@pytest.mark.parametrize("name", golden)
def test_keys_and_shapes(name):
    model = network(name) if name == "transface" else on_meta(name, 512)
    named = published(name, {k: tuple(v.shape) for k, v in model.state_dict().items()})
    assert len(named) == golden[name]["num_keys"]
    assert make["digest"](sorted(f"{k} {v}" for k, v in named.items())) == golden[name]["keys"]


@pytest.mark.parametrize("name", COMPUTED)
def test_embeddings(name):
    model = network(name).eval()
    copy_weights(model, make["seeded_tensors"](published(name, model.state_dict())), "weights")
    with torch.no_grad():
        found = model(make["images"](2))[:, :8]
    torch.testing.assert_close(found, torch.tensor(golden[name]["embedding"]), rtol=0, atol=1e-5)


# Of its README (M), for E = 512; timm-face says the number itself.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("edgeface_xxs", 1.24e6),
        ("edgeface_xs_gamma_06", 1.77e6),
        ("edgeface_s_gamma_05", 3.65e6),
        ("edgeface_base", 18.23e6),
        ("timmface_vit_s8", 21_640_832),
        ("timmface_vit_ti8", 5_512_640),
    ],
)
def test_as_many_parameters_as_published(name, parameters):
    found = sum(p.numel() for p in on_meta(name, 512).parameters())
    assert abs(found - parameters) <= (0 if isinstance(parameters, int) else 5e3)
