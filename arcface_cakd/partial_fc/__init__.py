"""Margin softmax over class centres that are sharded over the ranks."""

from arcface_cakd.partial_fc.adaface import AdaFace
from arcface_cakd.partial_fc.centers import FROM_DATA, load_centers, start_centers
from arcface_cakd.partial_fc.errors import PartialFCError
from arcface_cakd.partial_fc.margin import ArcFace, CombinedMarginLoss, CosFace
from arcface_cakd.partial_fc.margin_head import MarginHead
from arcface_cakd.partial_fc.sharded import PartialFC, shard_of

__all__ = [
    "FROM_DATA",
    "AdaFace",
    "ArcFace",
    "CombinedMarginLoss",
    "CosFace",
    "MarginHead",
    "PartialFC",
    "PartialFCError",
    "load_centers",
    "shard_of",
    "start_centers",
]
