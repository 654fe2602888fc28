"""int8 by static quantisation: what becomes int8, what may not, and which faces it is told."""

import numpy as np
import onnx
import pytest
import torch
from helpers.small_networks import SmallNetwork
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from arcface_cakd.export import ExportError, export_model, int8
from arcface_cakd.runtimes import open_exported


def pictures(count, seed=0):
    """Coarse ones, uint8 (N, 112, 112, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 14, 14, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def as_images(faces):
    return torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 127.5 - 1


class WithOutlier(SmallNetwork):
    """What one convolution reads has one channel that is ten thousand times the others."""

    def __init__(self):
        super().__init__()
        self.factors = torch.ones(1, 8, 1, 1)
        self.factors[0, -1] = 1e4
        self.pool.weight.data /= self.factors

    def forward(self, images):
        x = self.prelu(self.stem_norm(self.stem(images)))
        x = self.after(self.convolution(self.before(x))) + x
        x = self.last(self.pool(x * self.factors))
        return self.features(self.linear(x.flatten(1)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "model.onnx"
    report = export_model(SmallNetwork(), path, "int8", faces=pictures(48), opset=19)
    return path, report


def test_weights_are_int8_per_channel_and_embeddings_are_near(exported):
    path, report = exported
    graph = onnx.load(path).graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantised = {name: w for name, w in weights.items() if w.dtype == np.int8 and w.ndim > 1}
    # three convolutions and the linear layer
    assert sorted(w.shape for w in quantised.values()) == [
        (8, 3, 3, 3),
        (8, 8, 3, 3),
        (8, 8, 4, 4),
        (12, 392),
    ]
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in quantised:
            assert weights[node.input[1]].shape in ((8,), (12,))  # a scale for each output
    assert report.float_layers == ()
    assert 0.99 < report.cosine <= report.mean_cosine < 1

    faces = pictures(5, seed=3)
    with torch.no_grad():
        expected = SmallNetwork()(as_images(faces)).numpy()
    (by_definition,) = ReferenceEvaluator(onnx.load(path)).run(
        None, {"data": as_images(faces).numpy()}
    )
    for found in (open_exported(path)(as_images(faces)).numpy(), by_definition):
        cosine = (found * expected).sum(1) / (
            np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        )
        assert cosine.min() > 0.99


def test_a_layer_that_costs_too_much_stays_in_float(tmp_path):
    report = export_model(WithOutlier(), tmp_path / "m.onnx", "int8", faces=pictures(48))
    layer, *others = report.float_layers
    assert len(others) <= 1  # half of the layers at most
    graph = onnx.load(tmp_path / "m.onnx").graph
    (node,) = [node for node in graph.node if node.name == layer]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert weights[node.input[1]].shape == (8, 8, 4, 4)
    assert weights[node.input[1]].dtype == np.float32
    quantised = [w for w in weights.values() if w.dtype == np.int8 and w.ndim > 1]
    assert len(quantised) == 3 - len(others)
    assert report.mean_cosine > 0.99


def test_what_cannot_be_reached_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "MEAN_COSINE", 1.1)
    path = tmp_path / "m.onnx"
    path.write_bytes(b"former")
    with pytest.raises(ExportError, match=r"mean cosine of .*; 1.1 is asked for") as caught:
        export_model(SmallNetwork(), path, "int8", faces=pictures(16))
    assert "\n" not in str(caught.value)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"former"]


def test_no_face_is_both_compared_on_and_calibrated_with(monkeypatch, tmp_path):
    faces = pictures(40)
    seen = {}

    def quantised(graph, calibration):
        seen["ranges"] = calibration
        return graph, ()

    def compare(run, expected, tolerance):
        seen["compared"] = torch.cat([of.images for of in expected])
        return compared(run, expected, tolerance)

    from arcface_cakd.export.parity import compare as compared

    monkeypatch.setattr("arcface_cakd.export.onnx_file.quantised", quantised)
    monkeypatch.setattr("arcface_cakd.export.exporting.compare", compare)
    report = export_model(SmallNetwork(), tmp_path / "m.onnx", "int8", faces=faces)
    assert report.batches == (1, 3, 6)
    together = torch.cat([seen["compared"], as_images(seen["ranges"])])
    torch.testing.assert_close(together, as_images(faces), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("faces", "said"),
    [
        (None, "^int8 needs faces to calibrate with: give some by --calibrate"),
        (pictures(15), "15 faces are too few"),
        (pictures(1).repeat(20, axis=0), "all alike to this network"),
    ],
)
def test_bad_calibration_is_one_line(tmp_path, faces, said):
    with pytest.raises(ExportError, match=said) as caught:
        export_model(SmallNetwork(), tmp_path / "m.onnx", "int8", faces=faces)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
