"""A face recognition model in an ONNX file."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from arcface_cakd.backbones.base import BackboneError
from arcface_cakd.landmarks import CROP_SIZE


class OnnxError(BackboneError):
    """An ONNX file that is no face recognition model, or does not run; the message names it."""


class OnnxModel:
    """A session of onnxruntime on a face recognition model.

    ``model(images)`` maps (B, 3, 112, 112) float32 in [-1, 1], RGB, to embeddings (B, E) float32
    on the CPU. A graph that normalises its input itself (old mxnet exports) is recognised as the
    ``insightface`` package recognises it, and gets 0..255.

    Args:
        path: the file.
        providers: where to run it, as onnxruntime's ``InferenceSession`` takes them.
        threads: of one run on the CPU; 0 leaves that to onnxruntime.

    Attributes:
        batch: the only batch size that the file declares to take; None for any.
        providers: those that it runs on, which onnxruntime may have cut down.

    Raises:
        OnnxError: no such file, one that onnxruntime cannot load, or inputs or outputs that are
            not those of a face recognition model.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        providers: Sequence[str | tuple[str, dict]] = ("CPUExecutionProvider",),
        threads: int = 0,
    ):
        import onnx
        import onnxruntime

        self.path = Path(path)
        if not self.path.is_file():
            raise OnnxError(f"model {path}: no such file")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its errors are raised as well
        options.intra_op_num_threads = threads
        try:
            graph = onnx.load(self.path, load_external_data=False).graph
            self._session = onnxruntime.InferenceSession(
                os.fspath(self.path), options, providers=list(providers)
            )
        except Exception as error:  # each library has a family of its own
            raise OnnxError(
                f"model {path} is not an ONNX file that loads: {_one_line(error)}"
            ) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if (
            len(inputs) != 1
            or len(outputs) != 1
            or list(inputs[0].shape[1:]) != [3, CROP_SIZE, CROP_SIZE]
            or inputs[0].type != "tensor(float)"
        ):
            found = [f"{i.type.removeprefix('tensor')} {i.shape}" for i in inputs]
            raise OnnxError(
                f"model {path} is not a face recognition model: it must have one float input "
                f"(N, 3, 112, 112) and one output, and has inputs {', '.join(found)} "
                f"and {len(outputs)} outputs"
            )
        self._input = inputs[0].name
        self.batch = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else None
        self.providers = self._session.get_providers()
        self._raw_pixels = normalises_itself(graph)

    def __call__(self, images: Tensor) -> Tensor:
        images = images.detach().to("cpu", torch.float32)
        if self._raw_pixels:
            images = (images + 1) * 127.5
        try:
            (embeddings,) = self._session.run(None, {self._input: images.contiguous().numpy()})
        except Exception as error:
            raise OnnxError(
                f"model {self.path} does not run on {tuple(images.shape)}: {_one_line(error)}"
            ) from error
        return torch.from_numpy(embeddings).float()


def normalises_itself(graph) -> bool:
    """Whether ``insightface`` takes an ONNX graph for one that expects pixels in 0..255.

    Its rule: among the names of the first eight nodes one starts with Sub or _minus, and one
    with Mul or _mul.
    """
    names = [node.name for node in graph.node[:8]]
    subtracts = any(name.startswith(("Sub", "_minus")) for name in names)
    multiplies = any(name.startswith(("Mul", "_mul")) for name in names)
    return subtracts and multiplies


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
