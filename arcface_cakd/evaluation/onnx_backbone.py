"""An exported model in the place of a backbone."""

import os
from pathlib import Path

import torch
from torch import Tensor

from arcface_cakd.evaluation.errors import EvaluationError


class OnnxBackbone:
    """A face recognition model in an ONNX file, run by onnxruntime.

    ``model(images)`` maps (B, 3, 112, 112) float32 in [-1, 1], RGB, on the CPU, to embeddings
    (B, E) float32. A graph that normalises its input itself (old mxnet exports) is recognised
    as the ``insightface`` package recognises it, and gets 0..255.

    Args:
        path: the file.
        device: "cpu" or "cuda". None: the GPU where onnxruntime has its provider.

    Attributes:
        dynamic_batch: whether it takes batches of any size.

    Raises:
        EvaluationError: no such file, one that onnxruntime cannot load, inputs or outputs that
            are not those of a face recognition model, or no GPU provider for "cuda".
    """

    def __init__(self, path: str | os.PathLike, device: str | None = None):
        import onnx
        import onnxruntime

        self.path = Path(path)
        if not self.path.is_file():
            raise EvaluationError(f"model {path}: no such file")
        provider = _provider(device, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: they are raised as well
        try:
            graph = onnx.load(self.path, load_external_data=False).graph
            self._session = onnxruntime.InferenceSession(
                os.fspath(self.path), options, providers=[provider]
            )
        except Exception as error:  # each library has a family of its own
            reason = " ".join(str(error).split())[:200]
            raise EvaluationError(
                f"model {path} is not an ONNX file that loads: {reason}"
            ) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or list(inputs[0].shape[1:]) != [3, 112, 112]:
            raise EvaluationError(
                f"model {path} is not a face recognition model: it must have one input "
                f"(N, 3, 112, 112) and one output, and has inputs {[i.shape for i in inputs]} "
                f"and {len(outputs)} outputs"
            )
        self._input = inputs[0].name
        self._batch = inputs[0].shape[0]
        self.dynamic_batch = not isinstance(self._batch, int)
        self._raw_pixels = normalises_itself(graph)

    def __call__(self, images: Tensor) -> Tensor:
        if not self.dynamic_batch and len(images) != self._batch:
            raise EvaluationError(
                f"model {self.path} takes batches of {self._batch} only, got {len(images)}: "
                "export it with a dynamic batch, or evaluate it with a batch size of 1"
            )
        if self._raw_pixels:
            images = (images + 1) * 127.5
        (embeddings,) = self._session.run(None, {self._input: images.contiguous().numpy()})
        return torch.from_numpy(embeddings)


def normalises_itself(graph) -> bool:
    """Whether ``insightface`` takes an ONNX graph for one that expects pixels in 0..255.

    Its rule: among the names of the first eight nodes one starts with Sub or _minus, and one
    with Mul or _mul.
    """
    names = [node.name for node in graph.node[:8]]
    subtracts = any(name.startswith(("Sub", "_minus")) for name in names)
    multiplies = any(name.startswith(("Mul", "_mul")) for name in names)
    return subtracts and multiplies


def _provider(device: str | None, available: list[str]) -> str:
    gpu = "CUDAExecutionProvider"
    if device is not None and torch.device(device).type == "cuda" and gpu not in available:
        raise EvaluationError(
            "this onnxruntime has no CUDA provider: use --device cpu, or install onnxruntime-gpu"
        )
    wants_gpu = device is None or torch.device(device).type == "cuda"
    return gpu if wants_gpu and gpu in available else "CPUExecutionProvider"
