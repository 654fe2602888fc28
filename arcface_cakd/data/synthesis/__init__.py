"""Procedural faces: pictures of people who never were, with everything about them known."""

from arcface_cakd.data.synthesis.dataset import SynthesisError, synthesize
from arcface_cakd.data.synthesis.histogram import histogram_baseline

__all__ = ["SynthesisError", "histogram_baseline", "synthesize"]
