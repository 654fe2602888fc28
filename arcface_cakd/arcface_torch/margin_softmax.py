"""The margin softmax of a patched arcface_torch: AdaFace, and class centres of another run."""

import logging
from typing import Any, cast

from torch import Tensor, nn

from arcface_cakd.arcface_torch.user_errors import exiting_on_user_error
from arcface_cakd.config import ConfigError, check_centers, check_settings
from arcface_cakd.distributed import all_gather, failing_together
from arcface_cakd.partial_fc import AdaFace, MarginHead
from arcface_cakd.partial_fc import start_centers as start_from


def margin(margin_loss: nn.Module, cfg: Any) -> nn.Module:
    """The margin that the host's Partial FC applies: its own, or AdaFace where ``cfg.adaface``
    asks for it. Its statistics ride in the checkpoint as part of Partial FC.

    Args:
        margin_loss: the host's ``CombinedMarginLoss``, whose scale and filter AdaFace takes over.
        cfg: the host's config.
    """
    given = cfg.get("adaface")
    if given is None:
        return margin_loss
    with exiting_on_user_error():
        settings = check_settings(AdaFace, given, "config.adaface")
    s, threshold = (getattr(margin_loss, name) for name in ("s", "interclass_filtering_threshold"))
    made = AdaFace(s, threshold, **settings)
    logging.info("%r in place of margin_list", made)
    return made


def observe(partial_fc: nn.Module, local_embeddings: Tensor) -> None:
    """Tell AdaFace, if it is the margin, the norms of the embeddings that Partial FC is to see.

    Args:
        partial_fc: the host's ``PartialFC_V2``.
        local_embeddings: (B, E) of this rank, not normalised.
    """
    softmax = partial_fc.margin_softmax
    if isinstance(softmax, AdaFace):
        norms = local_embeddings.detach().float().norm(dim=1, keepdim=True)
        softmax.observe(all_gather(norms))


def start_centers(partial_fc: nn.Module, cfg: Any) -> None:
    """Start the class centres from ``cfg.init_centers``, and with ``cfg.freeze_centers`` keep them
    there. A mistake ends the program with one line; a collective, where either is asked for.

    Args:
        partial_fc: the host's ``PartialFC_V2``, before a checkpoint is loaded.
        cfg: the host's config.
    """
    pattern, freeze = cfg.get("init_centers"), cfg.get("freeze_centers") or False
    if pattern is None and not freeze:
        return
    with exiting_on_user_error(), failing_together():
        if not isinstance(freeze, bool):
            raise ConfigError(f"config.freeze_centers must be True or False, got {freeze!r}")
        check_centers("config", init_centers=pattern, freeze_centers=freeze)
        if not cfg.resume:
            start_from(cast(MarginHead, partial_fc), cfg.num_classes, pattern)
    # After the optimiser was made: what has no gradient it leaves alone.
    partial_fc.get_parameter("weight").requires_grad_(not freeze)
