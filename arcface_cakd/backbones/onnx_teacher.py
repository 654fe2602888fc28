"""A teacher of which there is an ONNX file only: embeddings, and nothing within reach behind them.

Such are insightface's released recognisers, and what ``arcface-cakd export`` writes.
"""

import logging
import os

import torch
from torch import Tensor

from arcface_cakd.backbones.base import BackboneError, FaceBackbone
from arcface_cakd.backbones.onnx_model import OnnxModel
from arcface_cakd.backbones.onnx_pixels import Pixels
from arcface_cakd.features import FaceFeatures

logger = logging.getLogger("arcface_cakd")

ONNX = "onnx:"
_GPU = "CUDAExecutionProvider"


class OnnxTeacher(FaceBackbone):
    """A face recognition model in an ONNX file, as a frozen backbone without pixel features.

    It has no parameters and gives no gradient. It computes in the file's own precision, where the
    images are: on a GPU if this onnxruntime can, else on the CPU, which one warning says.

    Args:
        path: the file. Where it takes batches of one size only, others are cut and filled up to
            it: one of size 1 gets its images one by one.
        pixels: "raw" or "normalised", what the graph takes; None: see ``OnnxModel``.

    Attributes:
        batch: images of one run; None for as many as come.

    Raises:
        OnnxError: no such file, not a face recognition model for 112 x 112 images, or one that
            does not run.
    """

    token_dim = None
    grid = None
    stage_dims = ()

    def __init__(self, path: str | os.PathLike, pixels: Pixels | None = None):
        super().__init__()
        self.path = path
        self._device = torch.device("cpu")
        self._model = OnnxModel(path, threads=torch.get_num_threads(), pixels=pixels)
        self.batch = self._model.batch
        self.embedding_size = self._model.embedding_size
        if pixels is not None:
            # In the state dict, so that whoever digests the teacher's weights knows it for another.
            self.register_buffer("raw_pixels", torch.tensor(pixels == "raw"))

    def forward_features(self, images: Tensor, stages: bool = False) -> FaceFeatures:
        """Images (B, 3, 112, 112) in [-1, 1] to features that hold an embedding (B, E) alone."""
        if images.device != self._device:
            self._move(images.device)
        return FaceFeatures(self._embed(images).to(images.device), tokens=None, grid=None)

    def body(self, images: Tensor):
        """There is none to reach: raises BackboneError."""
        raise BackboneError(f"{ONNX}{self.path} gives embeddings only, no pixel features")

    def head(self, final: Tensor):
        """There is none to reach: raises BackboneError."""
        raise BackboneError(f"{ONNX}{self.path} gives embeddings only, and takes no pixel features")

    def close(self) -> None:
        """Free what onnxruntime holds of the file; the network runs no more."""
        self.__dict__.pop("_model", None)

    def _embed(self, images: Tensor) -> Tensor:
        return self._model(images)

    def _move(self, device: torch.device) -> None:
        import onnxruntime

        providers: list[str | tuple[str, dict]] = ["CPUExecutionProvider"]
        if device.type == "cuda" and _GPU in onnxruntime.get_available_providers():
            providers.insert(0, (_GPU, {"device_id": device.index or 0}))
        self._model.move(providers)
        if device.type == "cuda" and _GPU not in self._model.providers:
            logger.warning(
                "%s%s runs on the CPU, which is slow: this onnxruntime cannot use the GPU; "
                "install onnxruntime-gpu",
                ONNX,
                self.path,
            )
        self._device = device
