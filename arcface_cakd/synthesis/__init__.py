"""Procedural faces: pictures of people who never were, with everything about them known."""

from arcface_cakd.synthesis.dataset import PROTOCOLS, SynthesisError, synthesize
from arcface_cakd.synthesis.histogram import histogram_baseline

__all__ = ["PROTOCOLS", "SynthesisError", "histogram_baseline", "synthesize"]
