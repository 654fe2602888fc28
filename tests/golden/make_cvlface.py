"""What CVLface's own recognisers are and compute: writes cvlface.json beside this file.

    CVLFACE=<checkout> python tests/golden/make_cvlface.py

The checkout is github.com/mk-minchul/CVLface at d3d09c93e53c5d5db9ec5c5fa96e5d77fe7a78d8.

Weights come from the names of the state-dict keys, as in make_backbones.py.
"""

import importlib
import json
import os
import runpy
import sys
import types
from pathlib import Path

import torch

GOLDEN = Path(__file__).with_name("cvlface.json")
MODELS = "cvlface/research/recognition/code/run_v1/models"
backbones = runpy.run_path(str(Path(__file__).with_name("make_backbones.py")))


def architecture(folder):
    """CVLface's ``models/<folder>/<file>``, without its counter of operations."""
    counter = types.ModuleType("fvcore.nn")
    counter.flop_count = None
    sys.modules.setdefault("fvcore", types.ModuleType("fvcore"))
    sys.modules.setdefault("fvcore.nn", counter)
    path = Path(os.environ["CVLFACE"]) / MODELS / folder
    package = f"cvlface_{path.parent.name}"  # whose __init__.py, not run, would want more
    sys.modules[package] = types.ModuleType(package)
    sys.modules[package].__path__ = [str(path.parent)]
    return importlib.import_module(f"{package}.{path.stem}")


def networks():
    """CVLface's networks by our names, made as its ``from_config`` makes them."""
    vit = architecture("vit/vit.py").VisionTransformer
    shape = dict(img_size=112, patch_size=8, num_classes=512, embed_dim=512, norm_layer="ln")
    shape |= dict(drop_path_rate=0.1, mask_ratio=0.0)
    yield "cvlface_vit_s", lambda: vit(depth=12, mlp_ratio=5, num_heads=8, **shape)
    yield "cvlface_vit_b", lambda: vit(depth=24, mlp_ratio=3, num_heads=16, **shape)
    swin = architecture("swin/swin/names.py")
    yield "cvlface_swin_s", swin.swin_v2_s
    yield "cvlface_swin_b", swin.swin_v2_b
    resnet = architecture("iresnet/model.py")
    yield "cvlface_ir18", lambda: resnet.IR_18(input_size=(112, 112), output_dim=512)
    yield "cvlface_ir50", lambda: resnet.IR_50(input_size=(112, 112), output_dim=512)
    yield "cvlface_ir101", lambda: resnet.IR_101(input_size=(112, 112), output_dim=512)
    insightface = architecture("iresnet_insightface/model.py")
    yield "r18", insightface.iresnet18
    yield "r50", insightface.iresnet50
    yield "r100", insightface.iresnet100


def without_repeats(model):
    """A ViT cut to two blocks, which are enough for its embedding: of all others the keys count."""
    del getattr(model, "blocks", [])[2:]
    return model


def record(model):
    """Keys, and the embedding where the parameters are those of ``seeded_state``."""
    state = model.state_dict()
    tables = {k: v for k, v in state.items() if "relative_" in k}
    found = {
        "num_keys": len(state),
        "keys": backbones["digest"](sorted(f"{k} {tuple(v.shape)}" for k, v in state.items())),
    }
    without_repeats(model)
    model.load_state_dict(backbones["seeded_state"](model) | tables)
    with torch.no_grad():
        found["embedding"] = model.eval()(backbones["images"](2))[:, :8].tolist()
    return found


if __name__ == "__main__":
    GOLDEN.write_text(
        json.dumps({name: record(make()) for name, make in networks()}, indent=1) + "\n"
    )
