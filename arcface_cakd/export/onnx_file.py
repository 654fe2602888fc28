"""``.onnx``: float32, float16, and int8 with QDQ nodes."""

from pathlib import Path
from typing import Any

from torch import nn

from arcface_cakd.export.formats import Format, Request
from arcface_cakd.export.int8 import quantised
from arcface_cakd.export.onnx_graph import float32_graph, opset_of, save
from arcface_cakd.silence import quiet

_FLOAT32_TOLERANCE = 1e-4
_OPSETS = range(9, 24)  # torch writes 7 and 8 too, but of most networks weights are inputs then
_INT8_OPSETS = range(13, 24)  # DequantizeLinear has no axis, and so no channels, before


def _write(model: nn.Module, file: Path, request: Request) -> dict[str, Any]:
    tolerance = min(request.tolerance, _FLOAT32_TOLERANCE)
    graph, exporter, left = float32_graph(model, request.expected, request.opset, tolerance)
    facts: dict[str, Any] = {"exporter": exporter, "batch_norms_left": left}
    if request.precision == "fp16":
        graph = _half(graph)
    elif request.precision == "int8":
        assert request.calibration is not None  # the format says that it needs them
        graph, facts["float_layers"] = quantised(graph, request.calibration)
    del graph.metadata_props[:]
    for key, value in request.about.items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, value
    save(graph, file)
    return {**facts, "opset": opset_of(graph)}


def _half(graph):
    """Weights and arithmetic in float16; the input and the embedding stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():  # it warns of weights that become 0; what that does is compared
        return convert_float_to_float16(graph, keep_io_types=True)


ONNX = Format(
    ".onnx",
    ("fp32", "fp16", "int8"),
    "onnx",
    _write,
    calibrated=("int8",),
    any_batch=True,
    opsets={"fp32": _OPSETS, "fp16": _OPSETS, "int8": _INT8_OPSETS},
)
