"""int8 by onnxruntime's static quantisation; layers that cost too much stay in float."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arcface_cakd.backbones import OnnxModel
from arcface_cakd.data import as_batch
from arcface_cakd.export.errors import ExportError
from arcface_cakd.export.onnx_graph import INPUT, save
from arcface_cakd.progress import track
from arcface_cakd.silence import quiet

# What is heavy; the rest (PReLU, sums, BatchNorm that could not be folded) costs accuracy in
# int8 and gains nothing.
_QUANTISED = ("Conv", "Gemm", "MatMul")
# Of a student on real faces (r10_mini, 1,484 pairs to choose by) 0.9965 cost 0.74 points of
# accuracy, and 0.9989 cost 0.20.
MEAN_COSINE = 0.998
_JUDGES = 4  # one face of so many is kept from calibration, to judge layers by
_TO_RANK = 32  # faces that layers are ranked with, one after the other


def quantised(graph, faces: np.ndarray):
    """An ONNX graph in int8, with QDQ nodes, weights per channel.

    Ranges of activations are those of most of the faces; the others say how near the embeddings
    come to those in float. Where that is not near enough, each layer is quantised alone, and
    those that cost the most stay in float: one, two, four, ... of them until it is. Near enough
    is a mean cosine of ``MEAN_COSINE``.

    Args:
        graph: an ``onnx.ModelProto`` in float32.
        faces: uint8 (N, 112, 112, 3) RGB, such as the network was trained for.

    Returns:
        the quantised ``onnx.ModelProto`` and the names of the layers that are in float.

    Raises:
        ExportError: half of the layers in float do not suffice.
    """
    judges = np.zeros(len(faces), dtype=bool)
    judges[::_JUDGES] = True
    ranges, judging = faces[~judges], faces[judges]
    layers = [node.name for node in graph.graph.node if node.op_type in _QUANTISED]
    with tempfile.TemporaryDirectory() as folder:
        work = _Quantiser(graph, Path(folder))
        expected = work.embeddings(graph, judging)
        whole = work.quantise(ranges, layers)
        cosine = _mean_cosine(work.embeddings(whole, judging), expected)
        if cosine >= MEAN_COSINE:
            return whole, ()
        costs = _costs(work, layers, ranges[:_TO_RANK], judging, expected)
        ranked = sorted(layers, key=costs.__getitem__, reverse=True)
        count = 1
        while count <= len(layers) // 2:
            kept = ranked[:count]
            part = work.quantise(ranges, [layer for layer in layers if layer not in kept])
            cosine = _mean_cosine(work.embeddings(part, judging), expected)
            if cosine >= MEAN_COSINE:
                return part, tuple(kept)
            count *= 2
    raise ExportError(
        f"in int8 its embeddings keep a mean cosine of {cosine:.4f} to those in float, with half "
        f"of its layers in float; {MEAN_COSINE} is asked for: give more faces to --calibrate, "
        "such as it was trained on, or use --precision fp16"
    )


def _costs(work, layers: Sequence[str], ranges, judging, expected) -> dict[str, float]:
    """What each layer takes from the mean cosine when it alone is quantised."""
    return {
        layer: 1 - _mean_cosine(work.embeddings(work.quantise(ranges, [layer]), judging), expected)
        for layer in track(layers, "ranking layers", unit="layers")
    }


class _Quantiser:
    """Quantises layers of one graph."""

    def __init__(self, graph, folder: Path):
        from onnxruntime.quantization.shape_inference import quant_pre_process

        self._folder = folder
        self._source = folder / "prepared.onnx"
        with quiet():
            quant_pre_process(
                str(save(graph, folder / "float.onnx")),
                str(self._source),
                skip_optimization=True,  # it has been done
                skip_symbolic_shape=True,
            )

    def quantise(self, faces: np.ndarray, layers: Sequence[str]):
        import onnx
        from onnxruntime.quantization import (
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )

        file = self._folder / "int8.onnx"
        with quiet():
            quantize_static(
                str(self._source),
                str(file),
                _reader(faces),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTISED),
                nodes_to_quantize=list(layers),
                per_channel=True,
                # 7 bits of weights: x86 processors without VNNI add pairs of products in 16 bits,
                # which 8 bits overflow. That cost 0.54 of the 0.74 points above.
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        return onnx.load(file)

    def embeddings(self, graph, faces: np.ndarray) -> np.ndarray:
        """(N, E) of all faces."""
        run = OnnxModel(save(graph, self._folder / "judged.onnx"), pixels="normalised")
        return run(as_batch(faces)).numpy()


def _reader(faces: np.ndarray):
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self):
            self._left = iter(range(0, len(faces), _TO_RANK))

        def get_next(self):
            start = next(self._left, None)
            if start is None:
                return None
            return {INPUT: as_batch(faces[start : start + _TO_RANK]).numpy()}

    return Reader()


def _mean_cosine(found: np.ndarray, expected: np.ndarray) -> float:
    found, expected = (rows.astype(np.float64) for rows in (found, expected))
    length = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(np.mean((found * expected).sum(axis=1) / length))
