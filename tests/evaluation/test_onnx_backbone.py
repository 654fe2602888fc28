import numpy as np
import pytest
import torch
from helpers.onnx_files import images, mean, two_outputs, write
from onnx import helper

from arcface_cakd.evaluation import EvaluationError, OnnxBackbone, embed


def test_it_computes_what_the_graph_says(tmp_path):
    model = OnnxBackbone(write(tmp_path / "m.onnx", [mean()]), device="cpu")
    assert model.dynamic_batch
    for batch in (images(1), images(5).flip(3), images(4).permute(0, 1, 3, 2)):
        torch.testing.assert_close(model(batch), batch.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("names", "raw"),
    [
        (("Sub_1", "Mul_1"), True),
        (("_minusscalar0", "_mulscalar0"), True),
        (("/Sub", "/Mul"), False),
        (("node_Sub", "Mul"), False),
    ],
)
def test_a_graph_that_normalises_itself_gets_pixels(tmp_path, names, raw):
    subtract = helper.make_node("Sub", ["x", "offset"], ["centred"], names[0])
    scale = helper.make_node("Mul", ["centred", "factor"], ["scaled"], names[1])
    constants = (("offset", 127.5), ("factor", 1 / 128))
    nodes = [subtract, scale, mean("scaled")]
    model = OnnxBackbone(write(tmp_path / "m.onnx", nodes, constants=constants))
    batch = images(2)
    expected = (((batch + 1) * 127.5 if raw else batch) - 127.5) / 128
    torch.testing.assert_close(model(batch), expected.mean(dim=(2, 3)), rtol=0, atol=1e-5)


def test_stored_images_are_embedded_through_it(tmp_path):
    model = OnnxBackbone(write(tmp_path / "m.onnx", [mean()]))
    faces = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
    expected = 2 * (faces.mean(axis=(1, 2)) / 127.5 - 1)  # a mean is the same when mirrored
    np.testing.assert_allclose(embed(model, faces, 2), expected, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 4])
def test_batches_are_cut_and_filled_to_a_fixed_one(tmp_path, batch):
    model = OnnxBackbone(write(tmp_path / "m.onnx", [mean()], shape=(batch, 3, 112, 112)))
    assert not model.dynamic_batch
    for count in (1, 3, 4, 9):
        faces = images(count)
        torch.testing.assert_close(model(faces), faces.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path, "no such file"),
        (lambda path: path.write_bytes(b"not a graph") and path, "not an ONNX file"),
        (lambda path: write(path, [mean()], shape=(1, 3, 224, 224)), "not a face recognition"),
        (two_outputs, "2 outputs"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, make, said):
    path = make(tmp_path / "m.onnx")
    with pytest.raises(EvaluationError, match=said) as caught:
        OnnxBackbone(path)
    assert "m.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_gpu_provider_is_said(tmp_path, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    path = write(tmp_path / "m.onnx", [mean()])
    with pytest.raises(EvaluationError, match="no CUDA provider"):
        OnnxBackbone(path, device="cuda")
