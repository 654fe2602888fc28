"""Face recognition judged: embeddings, protocols, ROC figures, intervals, comparison, pictures."""

from arcface_cakd.evaluation.auc_comparison import auc_difference
from arcface_cakd.evaluation.comparison import (
    Estimate,
    difference,
    estimate,
    gap_closed,
    holm,
    smallest_detectable,
)
from arcface_cakd.evaluation.embedder import Embedder
from arcface_cakd.evaluation.embedding import embed
from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.evaluation.interval import Interval
from arcface_cakd.evaluation.onnx_backbone import OnnxBackbone
from arcface_cakd.evaluation.pair_scores import PairScores
from arcface_cakd.evaluation.plots import check_picture, plot_roc
from arcface_cakd.evaluation.resampling import (
    Bootstrap,
    Pairs,
    People,
    Resampled,
    accuracy,
    one_minus_auc,
    seed_shares,
    tar_at_one_percent,
)
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
    "Bootstrap",
    "Embedder",
    "Estimate",
    "EvaluationError",
    "Interval",
    "OnnxBackbone",
    "PairScores",
    "Pairs",
    "People",
    "Resampled",
    "RocCurve",
    "VerificationResult",
    "accuracy",
    "auc_difference",
    "check_pairs",
    "check_picture",
    "difference",
    "embed",
    "estimate",
    "evaluate_set",
    "format_table",
    "gap_closed",
    "holm",
    "one_minus_auc",
    "pair_distances",
    "plot_roc",
    "roc_curve",
    "seed_shares",
    "smallest_detectable",
    "tar_at_one_percent",
    "verification_metrics",
    "verification_table",
]
