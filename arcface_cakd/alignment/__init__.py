"""Alignment of student and teacher: URFM, facial positional encoding, anchoring."""

from arcface_cakd.alignment.anchoring import Anchoring
from arcface_cakd.alignment.diagnosis import alignment_figures
from arcface_cakd.alignment.local_features import Alignment, LocalFeatures
from arcface_cakd.alignment.pif import PIFSettings, piecewise_index
from arcface_cakd.alignment.rank import effective_rank
from arcface_cakd.alignment.urfm import URFM

__all__ = [
    "URFM",
    "Alignment",
    "Anchoring",
    "LocalFeatures",
    "PIFSettings",
    "alignment_figures",
    "effective_rank",
    "piecewise_index",
]
