"""What arcface_torch's own networks are and compute: writes backbones.json beside this file.

    ARCFACE_TORCH=<checkout>/recognition/arcface_torch python tests/golden/make_backbones.py
    ARCFACE_TORCH=... python tests/golden/make_backbones.py vits

The first makes the students' entries, the second those of the ViTs; what else the file holds
stays.

Weights come from the names of the state-dict keys, so that no weight file is needed. The tests
load ``seeded_state`` and ``record`` from here and run them on our networks.
"""

import hashlib
import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).with_name("backbones.json")
NETWORKS = ("mbf", "mbf_large", "r18", "r34", "r50", "r100")
VITS = (
    "vit_t",
    "vit_t_dp005_mask0",
    "vit_s",
    "vit_s_dp005_mask_0",
    "vit_b",
    "vit_b_dp005_mask_005",
    "vit_l_dp005_mask_005",
    "vit_h",
)
# The others would cost the suite too much time.
TRAINED = ("mbf", "mbf_large", "r18", "vit_t", "vit_t_dp005_mask0")
COMPUTED = (*NETWORKS, "vit_t", "vit_t_dp005_mask0")
NUM_FEATURES = 128


def host_get_model(arcface_torch):
    """arcface_torch's ``get_model``, without its folder on the import path."""
    folder = Path(arcface_torch) / "backbones"
    name = "arcface_torch_backbones"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_model


def seeded_state(model):
    """``seeded_tensors`` for a model's state dict."""
    return seeded_tensors(model.state_dict())


def seeded_tensors(like):
    """A state dict whose every tensor depends on its key alone; activations stay of order 1.

    Keys, shapes and dtypes are those of ``like``.
    """
    state = {}
    for key, value in like.items():
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little")
        uniform = np.random.RandomState(seed).random_sample(tuple(value.shape))
        if key.endswith("num_batches_tracked"):
            drawn = np.zeros(())
        elif key.endswith("running_var"):
            drawn = 0.5 + uniform
        elif value.dim() > 1:
            drawn = (2 * uniform - 1) * np.sqrt(3 / np.prod(value.shape[1:]))
        elif key.endswith("weight"):
            drawn = 0.2 + 0.8 * uniform
        else:
            drawn = 0.4 * uniform - 0.2
        state[key] = torch.from_numpy(drawn).to(value.dtype)
    return state


def images(count):
    """(count, 3, 112, 112) float32 in [-1, 1], always the same: patches of one colour each."""
    colours = np.random.RandomState(7).uniform(-1, 1, (count, 3, 7, 7))
    return torch.from_numpy(np.kron(colours, np.ones((16, 16))).astype(np.float32))


def digest(lines):
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def structure(model):
    """What a model is, whatever it holds."""
    state = model.state_dict()
    return {
        "keys": digest(f"{k} {tuple(v.shape)} {v.dtype}" for k, v in state.items()),
        "num_keys": len(state),
        "metadata": digest(f"{k} {sorted(v.items())}" for k, v in state._metadata.items()),
        "parameters": digest(
            f"{k} {tuple(p.shape)} {p.requires_grad}" for k, p in model.named_parameters()
        ),
    }


def without_stochastic_depth(model):
    """Its draws are not the same on every platform; those of masks are."""
    for block in getattr(model, "blocks", ()):
        block.drop_path = torch.nn.Identity()


def record(model, trained):
    """Everything that is compared, of a model that holds ``seeded_state``."""
    found = structure(model)
    with torch.no_grad():
        found["embedding"] = model.eval()(images(2))[:, :8].tolist()
    if trained:
        without_stochastic_depth(model)
        torch.manual_seed(7)
        batch = images(4)
        embedding = model.train()(batch)
        found["train_embedding"] = embedding[:, :8].tolist()
        steepness = torch.linspace(-1, 1, embedding.numel()).view_as(embedding)
        (embedding * steepness).sum().backward()
        learned = [(k, p) for k, p in model.named_parameters() if p.requires_grad]
        found["gradient_norms"] = {k: p.grad.norm().item() for k, p in learned[::12]}
        statistics = [(k, b) for k, b in model.named_buffers() if k.endswith("running_var")]
        found["running_var_sums"] = {k: b.sum().item() for k, b in statistics[::8]}
    return found


def main():
    get_model = host_get_model(os.environ["ARCFACE_TORCH"])
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    for name in VITS if sys.argv[1:] == ["vits"] else NETWORKS:
        model = get_model(name, dropout=0.0, fp16=False, num_features=NUM_FEATURES)
        if name in COMPUTED:
            model.load_state_dict(seeded_state(model))
            golden[name] = record(model, name in TRAINED)
        else:
            golden[name] = structure(model)
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
