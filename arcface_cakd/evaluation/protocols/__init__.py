"""Protocols by name: each reads a data set's own layout and judges a model on it.

A protocol is a file here, a subclass of ``Protocol`` that registers in ``PROTOCOLS``.
"""

from arcface_cakd.evaluation.protocols.base import Protocol
from arcface_cakd.evaluation.protocols.bins import BinPairs

__all__ = ["BinPairs", "Protocol"]
