"""The random numbers of a process, as tensors and builtins."""

import random
from typing import Any

import numpy as np
import torch


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of torch's, Python's and numpy's global generators, and of a GPU's."""
    numpys = np.random.get_state()
    assert isinstance(numpys, tuple)  # it is a dict only where one asks for that
    name, keys, *rest = numpys
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": random.getstate(),
        # uint32 has no place in every torch version's files; the values fit int64.
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put the generators where ``random_state`` found them."""
    torch.set_rng_state(state["torch"].cpu())
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
