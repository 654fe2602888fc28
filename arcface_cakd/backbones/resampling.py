"""A timm trunk's weights for images, patches or windows of another size."""

import logging
import sys
from collections.abc import Mapping

import torch
from torch import Tensor, nn

logger = logging.getLogger("arcface_cakd")

TRUNK = "trunk."
# Where an original Swin checkpoint has its first patch merging, and timm's layout has none.
_ORIGINAL_SWIN = "layers.0.downsample.reduction.weight"
_CLASSIFIER = "head.fc.weight"


def resampled(model: nn.Module, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """A state dict whose trunk fits the model's, by the resampling of timm's own loaders.

    It resizes patch embeddings, position embeddings and tables of relative positions, and renames
    the keys of Microsoft's Swin to timm's. A trunk that fits already is left alone, and so is one
    that would not fit then either: what it lacks is for strict loading to say.

    Args:
        model: with a timm model as its ``trunk``; others get their state back.
        state: keys as the model's, ``trunk.`` first.
        source: what to call the weights in the log.
    """
    state = dict(state)
    trunk = getattr(model, "trunk", None)
    convert = getattr(sys.modules.get(type(trunk).__module__), "checkpoint_filter_fn", None)
    given = {k.removeprefix(TRUNK): v for k, v in state.items() if k.startswith(TRUNK)}
    if convert is None or not given or _fits(given, trunk):
        return state
    marked = dict(given)
    if _ORIGINAL_SWIN not in given:
        # Older timm takes a Swin's state dict without a classifier for an original one.
        marked[_CLASSIFIER] = torch.zeros(0)
    try:
        with torch.no_grad():
            converted = convert(marked, trunk)
    except Exception:  # shapes of something else entirely fail in ways of their own
        return state
    converted.pop(_CLASSIFIER, None)
    if not _fits(converted, trunk):
        return state
    changed = [k for k, v in converted.items() if k not in given or given[k].shape != v.shape]
    logger.info("%s: %d keys of the trunk renamed or resampled", source, len(changed))
    rest = {k: v for k, v in state.items() if not k.startswith(TRUNK)}
    return rest | {TRUNK + key: value for key, value in converted.items()}


def _fits(given: Mapping[str, Tensor], trunk: nn.Module) -> bool:
    own = trunk.state_dict()
    return given.keys() == own.keys() and all(given[k].shape == own[k].shape for k in own)
