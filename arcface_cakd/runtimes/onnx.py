"""``.onnx`` by onnxruntime."""

import torch
from torch import Tensor

from arcface_cakd.backbones import OnnxError, OnnxModel
from arcface_cakd.runtimes.base import ExportedModel, RuntimeProblem


class OnnxExported(ExportedModel):
    """An ONNX file; batches go through it whole, where it takes them."""

    RUNTIME, PACKAGE = "onnxruntime", "onnxruntime"

    def _load(self, threads: int) -> None:
        try:
            self._model = OnnxModel(self.path, threads=threads)
        except OnnxError as error:
            raise RuntimeProblem(str(error)) from error

    def __call__(self, images: Tensor) -> Tensor:
        try:
            return self._model(images)
        except OnnxError as error:
            raise RuntimeProblem(str(error)) from error

    def _embed(self, face):
        return self(torch.from_numpy(face)[None])[0].numpy()
