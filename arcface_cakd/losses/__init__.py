"""Distillation losses, one file each; importing this package registers them."""

from arcface_cakd.losses.adadistill_loss import AdaDistillLoss
from arcface_cakd.losses.arcdistill_loss import ArcDistillLoss
from arcface_cakd.losses.at_loss import ATLoss
from arcface_cakd.losses.base import DistillationLoss, FeatureDims, LossBatch, LossError
from arcface_cakd.losses.cakd_liu_loss import CAKDLiuLoss
from arcface_cakd.losses.cckd_loss import CCKDLoss
from arcface_cakd.losses.cosdistill_loss import CosDistillLoss
from arcface_cakd.losses.crd_loss import CRDLoss
from arcface_cakd.losses.dkd_loss import DKDLoss
from arcface_cakd.losses.ekd_loss import EKDLoss
from arcface_cakd.losses.embedding_cosine_loss import EmbeddingCosineLoss
from arcface_cakd.losses.embedding_l2_loss import EmbeddingL2Loss
from arcface_cakd.losses.fitnet_loss import FitNetLoss
from arcface_cakd.losses.fsp_loss import FSPLoss
from arcface_cakd.losses.gkd_loss import GKDLoss
from arcface_cakd.losses.iled_rpsd_loss import ILEDRPSDLoss
from arcface_cakd.losses.kd_loss import KDLoss
from arcface_cakd.losses.margin_distillation_loss import MarginDistillationLoss
from arcface_cakd.losses.mgd_loss import MGDLoss
from arcface_cakd.losses.ofa_kd_loss import OFAKDLoss
from arcface_cakd.losses.pat_loss import PATLoss
from arcface_cakd.losses.pkt_loss import PKTLoss
from arcface_cakd.losses.reviewkd_loss import ReviewKDLoss
from arcface_cakd.losses.rkd_loss import RKDLoss
from arcface_cakd.losses.scalekd_loss import ScaleKDLoss
from arcface_cakd.losses.schedule import WeightSchedule
from arcface_cakd.losses.shrinkteanet_loss import ShrinkTeaNetLoss
from arcface_cakd.losses.sp_loss import SPLoss
from arcface_cakd.losses.triplet_distillation_loss import TripletDistillationLoss
from arcface_cakd.losses.urfm_attention_loss import URFMAttentionLoss
from arcface_cakd.losses.urfm_feature_loss import URFMFeatureLoss
from arcface_cakd.losses.vid_loss import VIDLoss
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
    "GKDLoss",
    "ILEDRPSDLoss",
    "KDLoss",
    "LossBatch",
    "LossError",
    "MGDLoss",
    "MarginDistillationLoss",
    "OFAKDLoss",
    "PATLoss",
    "PKTLoss",
    "RKDLoss",
    "ReviewKDLoss",
    "SPLoss",
    "ScaleKDLoss",
    "ShrinkTeaNetLoss",
    "TripletDistillationLoss",
    "URFMAttentionLoss",
    "URFMFeatureLoss",
    "VIDLoss",
    "WeightSchedule",
    "WeightedLosses",
]
