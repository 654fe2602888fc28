"""A network as an ONNX graph in float32, by torch's exporters, known to compute the same."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from arcface_cakd.backbones import OnnxModel
from arcface_cakd.backbones.onnx_pixels import normalises_itself
from arcface_cakd.export.batch_norm import fold_batch_norms
from arcface_cakd.export.errors import ExportError
from arcface_cakd.export.parity import Reference, compare, faces
from arcface_cakd.silence import quiet

# Names of the graph's input and output; arcface_torch's exports call their input "data" too.
INPUT, OUTPUT = "data", "embedding"
_TRACED_BATCH = 2


def float32_graph(
    model: nn.Module, expected: Sequence[Reference], opset: int, tolerance: float
) -> tuple[Any, str, int]:
    """The ONNX graph of a model, its BatchNorms folded.

    Args:
        model: in eval mode and float32, on the CPU.
        expected: what its embeddings are held against.
        opset: of the ONNX operators; where torch has its dynamo exporter only, and that cannot
            write a model at this opset, the graph has the next one that it can.
        tolerance: the largest |onnx - torch| / |torch| that an embedding may have.

    Returns:
        an ``onnx.ModelProto`` with a dynamic batch, the exporter's name ("torchscript" or
        "dynamo"), and how many BatchNorms could not be folded.

    Raises:
        ExportError: no exporter gives a graph with the same embeddings; the message has the
            reason of each.
    """
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        for exporter, write in EXPORTERS.items():
            try:
                graph, left = _graph(write, model, Path(folder) / f"{exporter}.onnx", opset)
                file = save(graph, Path(folder) / "whole.onnx")
                compare(OnnxModel(file, pixels="normalised").run, expected, tolerance)
            except Exception as error:  # the exporters raise nearly anything
                failures.append(f"{exporter}: {' '.join(str(error).split())[:200]}")
                continue
            return graph, exporter, left
    raise ExportError("; ".join(failures))


def save(graph, file: Path) -> Path:
    """Write a graph to one file."""
    import onnx

    onnx.save(graph, file)
    return file


def opset_of(graph) -> int:
    """The opset of the ONNX operators in a graph."""
    return next(entry.version for entry in graph.opset_import if entry.domain == "")


def _graph(write, model: nn.Module, file: Path, opset: int):
    import onnx

    with quiet():
        write(model, faces(_TRACED_BATCH), str(file), opset)
    graph = onnx.load(_simplified(file))  # with what an exporter may have put beside it
    left = fold_batch_norms(graph)
    if normalises_itself(graph.graph):
        raise ExportError("insightface would take its first nodes for a normalisation of pixels")
    return graph, left


def _simplified(file: Path) -> Path:
    """The graph after onnxruntime's basic optimisations, which keep to ONNX's own operators.

    Constants are folded (a quantiser takes weights only where they are plain constants), and
    BatchNorm into the convolutions before it. Where another domain's operators came in, the
    graph as it was.
    """
    import onnx
    import onnxruntime

    simpler = file.with_suffix(".simpler.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = os.fspath(simpler)
    onnxruntime.InferenceSession(os.fspath(file), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(simpler)
    if any(node.domain not in ("", "ai.onnx") for node in graph.graph.node):
        return file
    used = [entry for entry in graph.opset_import if entry.domain == ""]
    del graph.opset_import[:]
    graph.opset_import.extend(used)
    return save(graph, simpler)


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


EXPORTERS = {"torchscript": _export_torchscript, "dynamo": _export_dynamo}
