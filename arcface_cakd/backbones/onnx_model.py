"""A face recognition model in an ONNX file."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from arcface_cakd.backbones.base import BackboneError
from arcface_cakd.backbones.onnx_pixels import Pixels, normalises_itself, pixels_by_embeddings
from arcface_cakd.landmarks import CROP_SIZE

logger = logging.getLogger("arcface_cakd")


class OnnxError(BackboneError):
    """An ONNX file that is no face recognition model, or does not run; the message names it."""


class OnnxModel:
    """A session of onnxruntime on a face recognition model.

    ``model(images)`` maps (B, 3, 112, 112) float32 in [-1, 1], RGB, to embeddings (B, E) float32
    on the CPU. Where the file takes batches of one size only, images are cut and filled up to it.

    Args:
        path: the file. Its input and output are float32, float16 or float64.
        providers: where to run it, as onnxruntime's ``InferenceSession`` takes them.
        threads: of one run on the CPU; 0 leaves that to onnxruntime.
        pixels: "raw" for a graph that normalises its input itself, and gets 0..255; "normalised"
            for one that gets [-1, 1]. None: as the ``insightface`` package tells it, by the names
            of the first nodes; where embeddings of a few pictures say otherwise, a warning does.

    Attributes:
        batch: the only batch size that the file takes; None for any.
        embedding_size: E.
        pixels: what it gets.
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
        pixels: Pixels | None = None,
    ):
        import onnx

        self.path = Path(path)
        if not self.path.is_file():
            raise OnnxError(f"model {path}: no such file")
        self._threads = threads
        try:
            graph = onnx.load(self.path, load_external_data=False).graph
            self.move(providers)
        except Exception as error:  # each library has a family of its own
            raise OnnxError(
                f"model {path} is not an ONNX file that loads: {_one_line(error)}"
            ) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if (
            len(inputs) != 1
            or len(outputs) != 1
            or list(inputs[0].shape[1:]) != [3, CROP_SIZE, CROP_SIZE]
            or inputs[0].type not in _DTYPES
        ):
            found = [f"{i.type.removeprefix('tensor')} {i.shape}" for i in inputs]
            raise OnnxError(
                f"model {path} is not a face recognition model: it must have one float input "
                f"(N, 3, 112, 112) and one output, and has inputs {', '.join(found)} "
                f"and {len(outputs)} outputs"
            )
        self._input, self._dtype = inputs[0].name, _DTYPES[inputs[0].type]
        self.batch = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else None
        if self.batch is not None and not 1 <= self.batch <= _LARGEST_BATCH:
            raise OnnxError(
                f"model {path} takes batches of {self.batch} images, which must be 1 to "
                f"{_LARGEST_BATCH}: export it anew"
            )
        self.pixels: Pixels = "normalised"
        face = torch.linspace(-1, 1, 3 * CROP_SIZE**2).view(1, 3, CROP_SIZE, CROP_SIZE)
        embedding = self(face)
        if embedding.dim() != 2 or not embedding.numel():
            raise OnnxError(
                f"model {path} is not a face recognition model: its output must be (N, E), and is "
                f"{tuple(embedding.shape)} for one image"
            )
        self.embedding_size = embedding.shape[1]
        if self.batch is None and not self._takes_two(face, embedding):
            logger.info("%s takes one image at a time, whatever it declares", path)
            self.batch = 1
        self.pixels = pixels or self._pixels_of(graph)

    def __call__(self, images: Tensor) -> Tensor:
        size = self.batch or len(images)
        parts = []
        for part in images.split(size):
            filled = torch.cat([part, part[-1:].expand(size - len(part), -1, -1, -1)])
            found = self.run(filled)
            if found.dim() < 1 or len(found) != len(filled):
                raise OnnxError(
                    f"model {self.path} gives {tuple(found.shape)} for {len(filled)} images: its "
                    "output must be (N, E)"
                )
            parts.append(found[: len(part)])
        return torch.cat(parts)

    def run(self, images: Tensor) -> Tensor:
        """The embeddings of one batch as it is, whatever ``batch`` says.

        Raises:
            OnnxError: it does not run on a batch of this size, or gives no numbers.
        """
        images = images.detach().to("cpu", torch.float32)
        if self.pixels == "raw":
            images = (images + 1) * 127.5
        try:
            values = images.to(self._dtype).contiguous().numpy()
            (embeddings,) = self._session.run(None, {self._input: values})
        except Exception as error:
            raise OnnxError(
                f"model {self.path} does not run on {tuple(images.shape)}: {_one_line(error)}"
            ) from error
        kind = getattr(getattr(embeddings, "dtype", None), "kind", type(embeddings).__name__)
        if kind not in ("f", "i", "u"):
            raise OnnxError(
                f"model {self.path} is not a face recognition model: its output must be numbers "
                f"(N, E), and is of kind {kind!r}"
            )
        return torch.from_numpy(embeddings.astype("float32"))

    def move(self, providers: Sequence[str | tuple[str, dict]]) -> None:
        """Run it elsewhere from now on, see ``providers``."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its errors are raised as well
        options.intra_op_num_threads = self._threads
        self._session = onnxruntime.InferenceSession(
            os.fspath(self.path), options, providers=list(providers)
        )
        self.providers = self._session.get_providers()

    def _takes_two(self, face: Tensor, embedding: Tensor) -> bool:
        """Whether batches work as declared: exporters have written graphs where they do not."""
        try:
            both = self.run(torch.cat([face, -face]))
        except OnnxError:
            return False
        scale = embedding.abs().max()
        return both.shape == (2, self.embedding_size) and bool(
            (both[:1] - embedding).abs().max() <= 1e-3 * scale
        )

    def _pixels_of(self, graph) -> Pixels:
        by_names: Pixels = "raw" if normalises_itself(graph) else "normalised"
        found = pixels_by_embeddings(self)
        if found not in (None, by_names):
            logger.warning(
                "%s: its embeddings say that it takes pixels as %s, and by the names of its nodes "
                "it gets %s: set pixels (of cakd.teacher, or --pixels) to %s if that is so, or "
                "to %s to have it as it is",
                self.path,
                _RANGES[found or by_names],
                _RANGES[by_names],
                found,
                by_names,
            )
        return by_names


_DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(double)": torch.float64,
}
_LARGEST_BATCH = 4096  # that a file may insist on: one image is filled up to it
_RANGES = {"raw": "0..255", "normalised": "[-1, 1]"}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
