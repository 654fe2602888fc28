"""What is wrong with weights."""

from arcface_cakd.backbones.base import BackboneError


class WeightsError(BackboneError):
    """Weights that cannot be had or do not fit; the message names the source and the keys."""
