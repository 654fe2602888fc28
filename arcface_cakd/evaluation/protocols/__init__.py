"""Protocols by name: each reads a data set's own layout and judges a model on it.

A protocol is a file here, a subclass of ``Protocol`` that registers in ``PROTOCOLS``.
"""

from arcface_cakd.evaluation.protocols.all_pairs import AllPairs
from arcface_cakd.evaluation.protocols.base import Protocol
from arcface_cakd.evaluation.protocols.bins import BinPairs
from arcface_cakd.evaluation.protocols.ijb import TemplatePairs
from arcface_cakd.evaluation.protocols.ijb_1n import TemplateSearch
from arcface_cakd.evaluation.protocols.megaface import MegaFace
from arcface_cakd.evaluation.protocols.rfw import Rfw
from arcface_cakd.evaluation.protocols.tinyface import TinyFace

__all__ = [
    "AllPairs",
    "BinPairs",
    "MegaFace",
    "Protocol",
    "Rfw",
    "TemplatePairs",
    "TemplateSearch",
    "TinyFace",
]
