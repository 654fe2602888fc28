"""An exported model in the place of a backbone."""

import os

import torch
from torch import Tensor

from arcface_cakd.backbones.onnx_model import OnnxError, OnnxModel
from arcface_cakd.backbones.onnx_pixels import Pixels
from arcface_cakd.evaluation.errors import EvaluationError


class OnnxBackbone:
    """A face recognition model in an ONNX file, run by onnxruntime.

    ``model(images)`` maps (B, 3, 112, 112) float32 in [-1, 1], RGB, on the CPU, to embeddings
    (B, E) float32, whatever batches the file itself takes, see ``OnnxModel``.

    Args:
        path: the file.
        device: "cpu" or "cuda". None: the GPU where onnxruntime has its provider.
        pixels: "raw" or "normalised", what the graph takes; None: see ``OnnxModel``.

    Attributes:
        dynamic_batch: whether the file takes batches of any size.

    Raises:
        EvaluationError: no such file, one that onnxruntime cannot load, inputs or outputs that
            are not those of a face recognition model, or no GPU provider for "cuda".
    """

    def __init__(
        self, path: str | os.PathLike, device: str | None = None, pixels: Pixels | None = None
    ):
        import onnxruntime

        provider = _provider(device, onnxruntime.get_available_providers())
        try:
            self._model = OnnxModel(path, [provider], pixels=pixels)
        except OnnxError as error:
            raise EvaluationError(str(error)) from error
        self.path = self._model.path
        self.dynamic_batch = self._model.batch is None

    def __call__(self, images: Tensor) -> Tensor:
        try:
            return self._model(images)
        except OnnxError as error:
            raise EvaluationError(str(error)) from error


def _provider(device: str | None, available: list[str]) -> str:
    gpu = "CUDAExecutionProvider"
    if device is not None and torch.device(device).type == "cuda" and gpu not in available:
        raise EvaluationError(
            "this onnxruntime has no CUDA provider: use --device cpu, or install onnxruntime-gpu"
        )
    wants_gpu = device is None or torch.device(device).type == "cuda"
    return gpu if wants_gpu and gpu in available else "CPUExecutionProvider"
