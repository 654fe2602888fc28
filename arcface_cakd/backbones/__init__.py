"""Networks for aligned face crops: students, teachers, and their weights.

Each gives ``FaceFeatures``: an embedding, and pixel features on a grid.
"""

# Importing an architecture's file registers its names.
from arcface_cakd.backbones import (  # noqa: F401
    cvlface,
    edgeface,
    iresnet,
    mobilefacenet,
    swin,
    timm_face,
    timm_grid,
    transface,
    vit,
)
from arcface_cakd.backbones.base import BackboneError, FaceBackbone
from arcface_cakd.backbones.digest import source_digest, weights_digest
from arcface_cakd.backbones.factory import get_model
from arcface_cakd.backbones.onnx_model import OnnxError, OnnxModel
from arcface_cakd.backbones.onnx_teacher import OnnxTeacher
from arcface_cakd.backbones.teacher import build_teacher
from arcface_cakd.backbones.weights import (
    ModelDescription,
    TrainingSet,
    WeightsError,
    copy_weights,
    embedding_size_of,
    load_weights,
    read_description,
    save_model,
    save_weights,
    start_from,
)

__all__ = [
    "BackboneError",
    "FaceBackbone",
    "ModelDescription",
    "OnnxError",
    "OnnxModel",
    "OnnxTeacher",
    "TrainingSet",
    "WeightsError",
    "build_teacher",
    "copy_weights",
    "embedding_size_of",
    "get_model",
    "load_weights",
    "read_description",
    "save_model",
    "save_weights",
    "source_digest",
    "start_from",
    "weights_digest",
]
