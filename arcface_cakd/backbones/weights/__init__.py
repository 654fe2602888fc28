"""The weights of networks: files, and how they come into networks and out of them."""

from arcface_cakd.backbones.weights.description import (
    ModelDescription,
    TrainingSet,
    read_description,
)
from arcface_cakd.backbones.weights.errors import WeightsError
from arcface_cakd.backbones.weights.files import read_weights
from arcface_cakd.backbones.weights.networks import (
    check_network,
    copy_weights,
    embedding_size_of,
    load_weights,
    save_model,
    save_weights,
    start_from,
)

__all__ = [
    "ModelDescription",
    "TrainingSet",
    "WeightsError",
    "check_network",
    "copy_weights",
    "embedding_size_of",
    "load_weights",
    "read_description",
    "read_weights",
    "save_model",
    "save_weights",
    "start_from",
]
