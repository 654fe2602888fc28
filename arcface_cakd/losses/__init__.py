"""Distillation losses, one file each; importing this package registers them."""

from arcface_cakd.losses.adadistill_loss import AdaDistillLoss
from arcface_cakd.losses.arcdistill_loss import ArcDistillLoss, arcdistill_loss
from arcface_cakd.losses.at_loss import ATLoss, at_loss
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch, LossError
from arcface_cakd.losses.cakd_liu_loss import CAKDLiuLoss
from arcface_cakd.losses.cckd_loss import CCKDLoss, cckd_loss
from arcface_cakd.losses.cosdistill_loss import CosDistillLoss, cosdistill_loss
from arcface_cakd.losses.crd_loss import CRDLoss
from arcface_cakd.losses.dkd_loss import DKDLoss, dkd_loss
from arcface_cakd.losses.ekd_loss import EKDLoss
from arcface_cakd.losses.embedding_cosine_loss import EmbeddingCosineLoss, embedding_cosine_loss
from arcface_cakd.losses.embedding_l2_loss import EmbeddingL2Loss, embedding_l2_loss
from arcface_cakd.losses.fitnet_loss import FitNetLoss, fitnet_loss
from arcface_cakd.losses.fsp_loss import FSPLoss, fsp_loss
from arcface_cakd.losses.kd_loss import KDLoss, kd_loss
from arcface_cakd.losses.margin_distillation_loss import (
    MarginDistillationLoss,
    margin_distillation_loss,
)
from arcface_cakd.losses.mgd_loss import MGDLoss, mgd_loss
from arcface_cakd.losses.ofa_kd_loss import OFAKDLoss, ofa_kd_loss
from arcface_cakd.losses.pkt_loss import PKTLoss, pkt_loss
from arcface_cakd.losses.preservation import Preservation
from arcface_cakd.losses.reviewkd_loss import ReviewKDLoss, reviewkd_loss
from arcface_cakd.losses.rkd_loss import RKDLoss, rkd_loss
from arcface_cakd.losses.schedule import WeightSchedule
from arcface_cakd.losses.shrinkteanet_loss import ShrinkTeaNetLoss, shrinkteanet_loss
from arcface_cakd.losses.sp_loss import SPLoss, sp_loss
from arcface_cakd.losses.triplet_distillation_loss import (
    TripletDistillationLoss,
    triplet_distillation_loss,
)
from arcface_cakd.losses.urfm_attention_loss import URFMAttentionLoss, urfm_attention_loss
from arcface_cakd.losses.urfm_feature_loss import URFMFeatureLoss, urfm_feature_loss
from arcface_cakd.losses.vid_loss import VIDLoss, vid_loss
from arcface_cakd.losses.weighted import WeightedLosses

__all__ = [
    "ATLoss",
    "AdaDistillLoss",
    "ArcDistillLoss",
    "CAKDLiuLoss",
    "CCKDLoss",
    "CRDLoss",
    "CosDistillLoss",
    "DKDLoss",
    "DistillationLoss",
    "EKDLoss",
    "EmbeddingCosineLoss",
    "EmbeddingL2Loss",
    "FSPLoss",
    "FeatureDims",
    "FitNetLoss",
    "KDLoss",
    "LossBatch",
    "LossError",
    "MGDLoss",
    "MarginDistillationLoss",
    "OFAKDLoss",
    "PKTLoss",
    "Preservation",
    "RKDLoss",
    "ReviewKDLoss",
    "SPLoss",
    "ShrinkTeaNetLoss",
    "TripletDistillationLoss",
    "URFMAttentionLoss",
    "URFMFeatureLoss",
    "VIDLoss",
    "WeightSchedule",
    "WeightedLosses",
    "arcdistill_loss",
    "at_loss",
    "cckd_loss",
    "cosdistill_loss",
    "dkd_loss",
    "embedding_cosine_loss",
    "embedding_l2_loss",
    "fitnet_loss",
    "fsp_loss",
    "kd_loss",
    "margin_distillation_loss",
    "mgd_loss",
    "ofa_kd_loss",
    "pkt_loss",
    "reviewkd_loss",
    "rkd_loss",
    "shrinkteanet_loss",
    "sp_loss",
    "triplet_distillation_loss",
    "urfm_attention_loss",
    "urfm_feature_loss",
    "vid_loss",
]
