"""Protocols of face verification: embeddings, the 10-fold protocol, ROC figures, pictures."""

from arcface_cakd.evaluation.embedding import embed
from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.evaluation.onnx_backbone import OnnxBackbone
from arcface_cakd.evaluation.plots import check_picture, plot_roc
from arcface_cakd.evaluation.roc import RocCurve, roc_curve
from arcface_cakd.evaluation.table import format_table, verification_table
from arcface_cakd.evaluation.verification import (
    VerificationResult,
    check_pairs,
    evaluate_set,
    pair_distances,
    verification_metrics,
)

__all__ = [
    "EvaluationError",
    "OnnxBackbone",
    "RocCurve",
    "VerificationResult",
    "check_pairs",
    "check_picture",
    "embed",
    "evaluate_set",
    "format_table",
    "pair_distances",
    "plot_roc",
    "roc_curve",
    "verification_metrics",
    "verification_table",
]
