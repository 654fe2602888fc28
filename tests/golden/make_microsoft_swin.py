"""What Microsoft's own Swin v1 and v2 are and compute: writes microsoft_swin.json beside this file.

    SWIN_TRANSFORMER=<checkout> python tests/golden/make_microsoft_swin.py

The checkout is github.com/microsoft/Swin-Transformer at f82860bfb5225915aca09c3227159ee9e1df874d.

Weights come from the names of the state-dict keys, as in make_backbones.py; buffers are
Microsoft's.
"""

import importlib.util
import json
import os
import runpy
from pathlib import Path

import torch

GOLDEN = Path(__file__).with_name("microsoft_swin.json")
backbones = runpy.run_path(str(Path(__file__).with_name("make_backbones.py")))
SHAPE = dict(patch_size=4, embed_dim=32, depths=(2, 2, 2), num_heads=(1, 2, 4), window_size=7)
NETWORKS = {
    "v1": ("swin_transformer", "SwinTransformer"),
    "v2": ("swin_transformer_v2", "SwinTransformerV2"),
}


def original(file, name):
    path = Path(os.environ["SWIN_TRANSFORMER"]) / "models" / f"{file}.py"
    spec = importlib.util.spec_from_file_location(file, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)(img_size=112, num_classes=10, **SHAPE)


def some_tokens(tokens):
    """Of tokens (B, 49, C) each eighth, in eight channels."""
    return tokens[:, ::8, :8].tolist()


def record(model):
    """Keys with shapes, and the tokens before pooling where the model holds seeded weights."""
    buffers = dict(model.named_buffers())
    state = backbones["seeded_state"](model)
    model.load_state_dict({k: buffers.get(k, v) for k, v in state.items()})
    with torch.no_grad():
        x = model.eval().patch_embed(backbones["images"](2))
        for layer in model.layers:
            x = layer(x)
        tokens = model.norm(x)
    return {
        "keys": {key: " ".join(map(str, value.shape)) for key, value in state.items()},
        "tokens": some_tokens(tokens),
    }


if __name__ == "__main__":
    found = {version: record(original(*where)) for version, where in NETWORKS.items()}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
