"""What EdgeFace's and TransFace's own networks are and compute: writes recent_teachers.json here.

    EDGEFACE=<checkout> TRANSFACE=<checkout> python tests/golden/make_recent_teachers.py

The checkouts are github.com/otroshi/edgeface at cfcae62a98f3643b564bf3281afcb3f1929e65f8
(BSD-3-Clause) and the folder face_module/TransFace of github.com/modelscope/facechain
(Apache-2.0) at ffee56c1fd936f46e6157055c7b0bff278a76064.

Weights come from the names of the state-dict keys, as in make_backbones.py.
"""

import importlib.util
import json
import os
import runpy
import sys
import warnings
from pathlib import Path

import torch

GOLDEN = Path(__file__).with_name("recent_teachers.json")
EDGEFACE = ("edgeface_xxs", "edgeface_base", "edgeface_xs_gamma_06", "edgeface_s_gamma_05")
TRANSFACE = {
    "transface_s": dict(embed_dim=512, depth=12),
    "transface_b": dict(embed_dim=512, depth=24),
    "transface_l": dict(embed_dim=768, depth=24),
}
# A TransFace that costs the suite no time.
SMALL_TRANSFACE = dict(patch_size=28, embed_dim=64, depth=2, num_heads=4)
# The others differ from one of these in depth or width alone.
COMPUTED = ("edgeface_xxs", "edgeface_xs_gamma_06", "transface")
backbones = runpy.run_path(str(Path(__file__).with_name("make_backbones.py")))


def module(checkout, path, name):
    """A file of a checkout, as a module or a package."""
    file = Path(os.environ[checkout]) / path
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=[str(file.parent)]
    )
    loaded = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def networks():
    """Their networks by our names."""
    edgeface = module("EDGEFACE", "backbones/__init__.py", "edgeface_backbones").get_model
    for name in EDGEFACE:
        yield name, lambda name=name: edgeface(name)
    vit = module("TRANSFACE", "backbones/vit.py", "transface_vit").VisionTransformer
    shape = dict(img_size=112, patch_size=9, num_classes=512, num_heads=8, mask_ratio=0.0)
    for name, size in TRANSFACE.items():
        yield name, lambda size=size: vit(**shape, **size)
    yield "transface", lambda: vit(**{**shape, **SMALL_TRANSFACE})


def record(name, model):
    """Keys, and of some the embedding where the parameters are those of ``seeded_state``."""
    state = model.state_dict()
    found = {
        "num_keys": len(state),
        "keys": backbones["digest"](sorted(f"{k} {tuple(v.shape)}" for k, v in state.items())),
    }
    if name in COMPUTED:
        model.load_state_dict(backbones["seeded_state"](model))
        with torch.no_grad():
            embedding = model.eval()(backbones["images"](2))
        if isinstance(embedding, tuple):  # TransFace's, before two figures on its tokens
            embedding = embedding[0]
        found["embedding"] = embedding[:, :8].tolist()
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of an autocast for GPUs, and of timm's former modules
    GOLDEN.write_text(
        json.dumps({name: record(name, make()) for name, make in networks()}, indent=1) + "\n"
    )
