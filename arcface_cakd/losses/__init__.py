"""Distillation losses, one file each; importing this package registers them."""

from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch, LossError
from arcface_cakd.losses.embedding_cosine_loss import EmbeddingCosineLoss, embedding_cosine_loss
from arcface_cakd.losses.preservation import Preservation
from arcface_cakd.losses.schedule import WeightSchedule
from arcface_cakd.losses.urfm_attention_loss import URFMAttentionLoss, urfm_attention_loss
from arcface_cakd.losses.urfm_feature_loss import URFMFeatureLoss, urfm_feature_loss

__all__ = [
    "DistillationLoss",
    "EmbeddingCosineLoss",
    "FeatureDims",
    "LossBatch",
    "LossError",
    "Preservation",
    "URFMAttentionLoss",
    "URFMFeatureLoss",
    "WeightSchedule",
    "embedding_cosine_loss",
    "urfm_attention_loss",
    "urfm_feature_loss",
]
