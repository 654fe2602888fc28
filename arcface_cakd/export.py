"""A backbone as an ONNX file that is known to compute the same."""

import contextlib
import copy
import ctypes
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from arcface_cakd.backbones import FaceBackbone, OnnxModel
from arcface_cakd.backbones.onnx_pixels import normalises_itself
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.files import atomic_path
from arcface_cakd.landmarks import CROP_SIZE

# Names of the graph's input and output; arcface_torch's exports call their input "data" too.
INPUT, OUTPUT = "data", "embedding"
_TRACED_BATCH = 2


class ExportError(ArcfaceCakdError):
    """A backbone that could not be exported, or whose export computes something else."""


@dataclass(frozen=True)
class ExportReport:
    """An ONNX file, and how near it comes to torch on the CPU in float32.

    Attributes:
        path: the file.
        size: in bytes.
        opset: of the file.
        exporter: which of torch's exporters made it: "torchscript" or "dynamo".
        batches: batch sizes at which it was compared.
        cosine: the lowest cosine between an embedding of the file's and torch's.
        max_abs_diff: the largest difference of one element.
        relative_error: the largest |onnx - torch| / |torch| of an embedding.
    """

    path: str
    size: int
    opset: int
    exporter: str
    batches: tuple[int, ...]
    cosine: float
    max_abs_diff: float
    relative_error: float


def export_onnx(
    backbone: nn.Module,
    path: str | os.PathLike,
    opset: int = 17,
    batch_check: Sequence[int] = (1, 3),
    tolerance: float = 1e-4,
) -> ExportReport:
    """Write a backbone as one ONNX file with a dynamic batch, after comparing it with torch.

    The graph takes "data", float32 (N, 3, 112, 112) in [-1, 1], RGB, and gives "embedding",
    float32 (N, E), not normalised: what ``insightface.model_zoo.get_model`` expects, whose own
    preprocessing then leads to the same embeddings. It holds the backbone in eval mode and in
    float32, whatever its precision in training. The backbone itself is left as it is.

    Args:
        backbone: maps images (B, 3, 112, 112) to embeddings (B, E).
        path: where to; ends in ``.onnx``. What stood there stays if the export fails.
        opset: of the ONNX operators. Where torch has its dynamo exporter only, and that cannot
            write a model at this opset, the file has the next one that it can: see the report.
        batch_check: batch sizes at which onnxruntime and torch are compared.
        tolerance: the largest |onnx - torch| / |torch| that an embedding may have.

    Raises:
        ExportError: none of torch's exporters gives a file with the same embeddings, embeddings
            that are not finite, or a place that cannot be written.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ExportError(f"output {path} must end in .onnx: that is how insightface finds it")
    model = copy.deepcopy(backbone).cpu().float().eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, FaceBackbone):
            module.amp_dtype = None
    expected = _references(model, batch_check)
    failures = []
    for exporter, write in _EXPORTERS.items():
        try:
            with atomic_path(path) as partial:
                found_opset = _write_whole(write, model, partial, opset)
                errors = _compare(partial, expected, tolerance)
                size = partial.stat().st_size
        except OSError as error:
            raise ExportError(f"output {path} cannot be written: {error.strerror}") from error
        except Exception as error:  # the exporters raise nearly anything
            failures.append(f"{exporter}: {' '.join(str(error).split())[:200]}")
            continue
        return ExportReport(str(path), size, found_opset, exporter, tuple(batch_check), **errors)
    raise ExportError(
        f"{type(backbone).__name__} cannot be exported to {path}: {'; '.join(failures)}"
    )


def _export_torchscript(model: nn.Module, example: Tensor, file: str, opset: int) -> None:
    # dynamo=False is the older exporter, the default before torch 2.9: it needs no onnxscript,
    # is quick, and writes the opset that is asked for.
    torch.onnx.export(
        model,
        (example,),
        file,
        dynamo=False,
        opset_version=opset,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
    )


def _export_dynamo(model: nn.Module, example: Tensor, file: str, opset: int) -> None:
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise ExportError("needs the package onnxscript: pip install onnxscript") from None
    torch.onnx.export(
        model,
        (example,),
        file,
        dynamo=True,
        verbose=False,
        opset_version=opset,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
    )


_EXPORTERS = {"torchscript": _export_torchscript, "dynamo": _export_dynamo}


def _write_whole(write, model: nn.Module, partial: Path, opset: int) -> int:
    """Export to one file at ``partial``; its opset."""
    import onnx

    example = _faces(_TRACED_BATCH)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        file = os.path.join(folder, "model.onnx")
        write(model, example, file, opset)
        graph = onnx.load(file)  # with what an exporter may have put beside it
    onnx.save(graph, partial)
    found = next(entry.version for entry in graph.opset_import if entry.domain == "")
    if normalises_itself(graph.graph):
        raise ExportError("insightface would take its first nodes for a normalisation of pixels")
    return found


def _compare(
    file: Path, expected: dict[int, tuple[Tensor, Tensor]], tolerance: float
) -> dict[str, float]:
    """The differences of a file's embeddings to the expected ones.

    Raises:
        ExportError: they are larger than ``tolerance``, or a batch size does not run.
    """
    exported = OnnxModel(file, pixels="normalised")
    cosine, max_abs_diff, relative_error = 1.0, 0.0, 0.0
    for batch, (images, reference) in expected.items():
        found = exported.run(images)
        if found.shape != reference.shape:
            raise ExportError(
                f"gives {tuple(found.shape)} for {batch} images, not {tuple(reference.shape)}"
            )
        found, reference = found.double(), reference.double()
        difference = found - reference
        error = float((difference.norm(dim=1) / reference.norm(dim=1)).max())
        if not error <= tolerance:  # also where it is NaN
            raise ExportError(
                f"its embeddings differ from torch's by {error:.1e} of their length at batch "
                f"{batch}; at most {tolerance:.0e} is allowed"
            )
        relative_error = max(relative_error, error)
        max_abs_diff = max(max_abs_diff, float(difference.abs().max()))
        cosine = min(cosine, float(nn.functional.cosine_similarity(found, reference).min()))
    return {
        "cosine": cosine,
        "max_abs_diff": max_abs_diff,
        "relative_error": relative_error,
    }


def _references(model: nn.Module, batches: Sequence[int]) -> dict[int, tuple[Tensor, Tensor]]:
    """Images and torch's embeddings of them, by batch size."""
    references = {}
    for batch in batches:
        images = _faces(batch, seed=batch)
        with torch.no_grad():
            embeddings = model(images)
        if not torch.isfinite(embeddings).all():
            raise ExportError(
                f"{type(model).__name__} gives embeddings that are not finite: its weights come "
                "from a run that diverged"
            )
        references[batch] = images, embeddings
    return references


def _faces(batch: int, seed: int = 0) -> Tensor:
    """Images (B, 3, 112, 112) in [-1, 1] that differ as photographs do, in coarse structure."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 7, 7, generator=generator) * 2 - 1
    images = nn.functional.interpolate(coarse, size=CROP_SIZE, mode="bilinear")
    noise = torch.randn(images.shape, generator=generator) * 0.05
    return (images + noise).clamp(-1, 1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings, whose causes are compared afterwards, and prints.

    Where it fails, the older exporter prints the whole graph on stdout.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), _silent_stdout():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _silent_stdout() -> Iterator[None]:
    """Nothing on the process's stdout: the older exporter prints from C++, past ``sys.stdout``."""
    try:
        kept = os.dup(1)
    except OSError:  # there is none
        yield
        return
    sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        ctypes.CDLL(None).fflush(None)  # what C++ has not written yet
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
