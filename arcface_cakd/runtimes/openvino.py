"""``.xml`` and ``.bin`` by OpenVINO."""

import re

import numpy as np
import torch
from torch import Tensor

from arcface_cakd.runtimes.base import ExportedModel


class OpenVinoModel(ExportedModel):
    """An OpenVINO model with a dynamic batch."""

    RUNTIME, PACKAGE = "OpenVINO", "openvino"
    BESIDE = (".bin",)
    BEGINNING = re.compile(rb"(<\?xml[^>]*>\s*)?<net\s")

    def _load(self, threads: int) -> None:
        import openvino

        # By default the plugin may compute in bfloat16 where the processor has it.
        settings: dict[str, object] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._model = openvino.Core().compile_model(str(self.path), "CPU", settings)

    def __call__(self, images: Tensor) -> Tensor:
        pixels = np.ascontiguousarray(images.detach().to("cpu", torch.float32).numpy())
        return torch.from_numpy(np.array(self._model(pixels)[0], dtype=np.float32))

    def _embed(self, face: np.ndarray) -> np.ndarray:
        return self(torch.from_numpy(face)[None])[0].numpy()
