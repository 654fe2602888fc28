"""A timm trunk's weights for images, patches or windows of another size."""

import logging
import sys
from collections.abc import Callable, Mapping

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
    the keys of Microsoft's Swin to timm's. A trunk that fits already is left alone; what one lacks
    after all that is for strict loading to say. Not every timm model has a loader that resamples:
    weights of others, such as mixers, LeViT or CaiT, are for one image size.

    Args:
        model: with a timm model as its ``trunk``; others get their state back.
        state: keys as the model's, ``trunk.`` first.
        source: what to call the weights in the log.
    """
    given = {k.removeprefix(TRUNK): v for k, v in state.items() if k.startswith(TRUNK)}
    trunk = getattr(model, "trunk", None)
    if not given or trunk is None:
        return dict(state)
    rest = {k: v for k, v in state.items() if not k.startswith(TRUNK)}
    return rest | with_prefix(fitting(given, trunk, source))


def with_prefix(trunk: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A trunk's state dict under the keys that it has in a model."""
    return {TRUNK + key: value for key, value in trunk.items()}


def fitting(
    given: dict[str, Tensor],
    trunk: nn.Module,
    source: str,
    complete: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> dict[str, Tensor]:
    """``complete`` of a trunk's weights, or of what timm's loader makes of them.

    Whichever fits; where neither does, that of which more does, so that strict loading names what
    is wrong and not what another size or layout accounts for.

    Args:
        given: the weights, under the trunk's keys or others that timm's loader knows.
        trunk: a timm model.
        source: what to call the weights in the log.
        complete: what to do with the weights before they are held against the trunk's.
    """
    as_given = complete(given)
    faults = _faults(as_given, trunk)
    if not faults:
        return as_given
    converted = complete(_converted(given, trunk))
    left = _faults(converted, trunk)
    if left >= faults:
        return as_given
    if not left:
        changed = [k for k, v in converted.items() if k not in as_given or as_given[k] is not v]
        logger.info("%s: %d keys of the trunk renamed or resampled", source, len(changed))
    return converted


def _converted(given: dict[str, Tensor], trunk: nn.Module) -> dict[str, Tensor]:
    """What timm's own loader makes of weights; themselves where it has nothing to say."""
    convert = getattr(sys.modules.get(type(trunk).__module__), "checkpoint_filter_fn", None)
    if convert is None:
        return given
    marked = dict(given)
    if _ORIGINAL_SWIN not in given:
        # Older timm takes a Swin's state dict without a classifier for an original one.
        marked.setdefault(_CLASSIFIER, torch.zeros(0))
    try:
        with torch.no_grad():
            converted = convert(marked, trunk)
    except Exception:  # shapes of something else entirely fail in ways of their own
        return given
    return {k: v for k, v in converted.items() if k != _CLASSIFIER or v.numel()}


def _faults(given: Mapping[str, Tensor], trunk: nn.Module) -> int:
    """How many keys are missing, unexpected, or of another shape."""
    own = trunk.state_dict()
    shared = given.keys() & own.keys()
    return len(given.keys() ^ own.keys()) + sum(given[k].shape != own[k].shape for k in shared)
