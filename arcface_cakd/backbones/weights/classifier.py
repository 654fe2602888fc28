"""Weights of a whole classifier, timm's or Microsoft's, as a start for a face model's trunk."""

import copy
import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from arcface_cakd.backbones.weights.resampling import TRUNK, fitting, with_prefix

logger = logging.getLogger("arcface_cakd")


def with_own_head(
    model: nn.Module, classifier: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """A classifier's weights as a state dict of ``model``, whose face head is its own.

    What the same timm model has with a classifier and the trunk has not is left out: the
    classifier, and what stands between the tokens and it, such as ``fc_norm``, ``attn_pool``.
    What only the trunk has stays as it is in the model: the last norm of the tokens, in ViTs whose
    classifier norms the mean of the tokens instead. The weights of that norm are left out too: the
    norm of a mean is not the mean of norms, so no norm of tokens ever had them.

    Args:
        model: with a timm model, built without classifier, as its ``trunk``.
        classifier: keys of timm's model, or of Microsoft's Swin; sizes are resampled.
        source: what to call the weights in the log.

    Returns:
        keys as the model's; those that fit nowhere are among them, for strict loading to name.
    """
    bare = model.get_submodule("trunk")
    own = bare.state_dict()
    whole = _keys_with_classifier(model)
    # No matrix among them: that would be random, and is missing.
    added = {k: v for k, v in own.items() if k not in whole and v.dim() == 1}

    def trunk_of(given: dict[str, Tensor]) -> dict[str, Tensor]:
        there = {k: v for k, v in given.items() if k in own or k not in whole}
        return added | there

    trunk = fitting(dict(classifier), bare, source, trunk_of)
    kept = [key for key, value in added.items() if trunk[key] is value]
    if kept:
        logger.info("%s: not in them, and left as it was: %s", source, ", ".join(kept))
    head = {k: v for k, v in model.state_dict().items() if not k.startswith(TRUNK)}
    return head | with_prefix(trunk)


def _keys_with_classifier(model: nn.Module) -> set[str]:
    """The keys of the model's trunk, built with a classifier."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):  # names only
                return set(_classifier(model).state_dict())
        except Exception:  # timm 1.0.9 computes with numbers while it builds
            return set(_classifier(model).state_dict())


def _classifier(model: nn.Module) -> nn.Module:
    build = getattr(model, "build_classifier", None)
    if build is not None:
        return build()
    trunk = copy.deepcopy(model.get_submodule("trunk"))
    reset = getattr(trunk, "reset_classifier", None)
    if reset is not None:
        reset(1)
    return trunk
