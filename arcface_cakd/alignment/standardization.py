"""Standardises a backbone's tokens, so that what all faces share is not what two sides agree on."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_cakd.features import FaceFeatures
from arcface_cakd.precision import at_least_float32

Standardise = Literal["place", "channel"]
PromptTokens = Literal["none", "detached", "learned"]


class TokenStandardization(nn.Module):
    """Standardises tokens by statistics of the patches (ours).

    A Transformer's tokens are nearly all alike: of those of the demo's Swin, 98 % of the power is
    in their common mean, 1 % tells one image from another (``eval/token_statistics.py``). Two
    sides mapped from that agree on the mean and have nothing left to align. LayerNorm, which
    looks at one token, keeps the mean; a BatchNorm without scale and shift takes it out.

    In training mode mean and (biased) variance are those of the rank's batch, in evaluation mode
    running ones, which the state dict holds. A single image has no statistics per place: it is
    standardised by the running ones.

    Prompts, where they are tokens, are standardised by each channel's statistics over the
    patches of all places, and have no part in them: prompts are the same for every face, and
    would bring back the common mean, the more of it the more prompts there are.

    Args:
        token_dim: width C of the tokens.
        num_places: patches N.
        standardise: ``"place"``: each channel at each place, over the batch, which takes out what
            all faces have at that place; ``"channel"``: each channel over batch and places.
        prompt_tokens: whether prompts are tokens: ``"none"``, or as constants (``"detached"``),
            or such that losses reach them (``"learned"``).
    """

    def __init__(
        self,
        token_dim: int,
        num_places: int,
        standardise: Standardise = "place",
        prompt_tokens: PromptTokens = "none",
    ):
        super().__init__()
        self.by_place = standardise == "place"
        self.prompt_tokens = prompt_tokens
        width = token_dim * num_places if self.by_place else token_dim
        self.norm = nn.BatchNorm1d(width, affine=False)

    def forward(self, features: FaceFeatures) -> Tensor:
        """Tokens (B, N, C), then prompts (B, t, C) if they count, as one, at least float32."""
        tokens = at_least_float32(features.pixel_features[0])
        standardised = self._standardised(tokens)
        prompts = features.prompts
        if prompts is None or self.prompt_tokens == "none":
            return standardised
        if self.prompt_tokens == "detached":
            prompts = prompts.detach()
        mean, variance = self._of_channels(tokens)
        scaled = (at_least_float32(prompts) - mean) / (variance + self.norm.eps).sqrt()
        return torch.cat([standardised, scaled], dim=1)

    def _standardised(self, tokens: Tensor) -> Tensor:
        rows = tokens.flatten(1) if self.by_place else tokens.flatten(0, 1)
        if self.training and len(rows) == 1:
            norm = self.norm
            alone = F.batch_norm(rows, norm.running_mean, norm.running_var, eps=norm.eps)
            return alone.view_as(tokens)
        return self.norm(rows).view_as(tokens)

    def _of_channels(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of each channel over batch and places, (C,) each."""
        if self.training:
            rows = tokens.flatten(0, 1)
            return rows.mean(0), rows.var(0, correction=0)
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None and variance is not None  # the norm tracks them
        if not self.by_place:
            return mean, variance
        channels = tokens.shape[-1]
        mean, variance = mean.view(-1, channels), variance.view(-1, channels)
        return mean.mean(0), variance.mean(0) + mean.var(0, correction=0)
