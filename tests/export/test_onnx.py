"""Exported files against torch, through onnxruntime and through insightface itself."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from arcface_cakd.backbones import get_model
from arcface_cakd.export import ExportError, export_model, onnx_graph

TORCHSCRIPT = {"torchscript": onnx_graph.EXPORTERS["torchscript"]}
DYNAMO = {"dynamo": onnx_graph.EXPORTERS["dynamo"]}


def trained(name, seed=0, **settings):
    """A network whose normalisations have statistics, so that eval mode is not train mode."""
    torch.manual_seed(seed)
    model = get_model(name, num_features=32, **settings)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


class Simple(nn.Module):
    """Quick to export, and a place for the faults that the tests build in."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 16, 16)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4 * 7 * 7, 6)

    def forward(self, images):
        return self.linear(self.norm(self.convolution(images)).flatten(1))


def faces(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 112, 112, 3), dtype=np.uint8)


def by_torch(model, images):
    """Embeddings of uint8 RGB images, through eval mode."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        return model.eval()(pixels).numpy()


def by_onnxruntime(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    pixels = (images.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)
    (embeddings,) = session.run(None, {given.name: np.ascontiguousarray(pixels)})
    return embeddings


@pytest.fixture(scope="module", params=["r10_narrow", "mbf", "swin_mini"])
def exported(request, tmp_path_factory):
    model = trained(request.param).train()
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    return model, path, export_model(model, path)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_onnxruntime_gives_torchs_embeddings(exported, batch):
    model, path, _ = exported
    images = faces(batch, seed=batch)
    expected = by_torch(model, images)
    found = by_onnxruntime(path, images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_insightface_gives_torchs_embeddings(exported):
    from insightface import model_zoo

    model, path, _ = exported
    client = model_zoo.get_model(str(path), providers=["CPUExecutionProvider"])
    assert type(client).__name__ == "ArcFaceONNX"
    assert client.input_size == (112, 112)
    images = faces(3, seed=7)
    expected = by_torch(model, images)
    found = client.get_feat([image[..., ::-1] for image in images])  # it takes BGR
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    one = client.get_feat(images[0][..., ::-1])
    np.testing.assert_allclose(one, expected[:1], rtol=0, atol=2e-5 * np.abs(expected).max())


def test_the_file_is_whole_and_its_batch_is_free(exported):
    _, path, report = exported
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]
    graph = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(graph)
    assert not any(t.external_data for t in graph.graph.initializer)
    (given,), (made,) = graph.graph.input, graph.graph.output
    assert (given.name, made.name) == ("data", "embedding")
    sizes = [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim]
    assert sizes == ["batch", 3, 112, 112]
    assert [entry.version for entry in graph.opset_import if entry.domain == ""] == [17]
    assert (report.opset, report.size) == (17, path.stat().st_size)
    assert report.path == str(path)


def test_the_report_is_measured(exported):
    _, _, report = exported
    assert report.batches == (1, 3)
    assert 0 < report.relative_error < 2e-5
    assert report.max_abs_diff > 0
    assert 1 - 1e-9 < report.cosine <= 1


def test_the_backbone_stays_as_it_was(tmp_path):
    model = trained("r10_narrow", dropout=0.4).train()
    next(iter(model.children())).eval()  # a part that is frozen
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    learned = [parameter.requires_grad for parameter in model.parameters()]
    export_model(model, tmp_path / "model.onnx")
    assert [module.training for module in model.modules()] == modes
    assert len(set(modes)) == 2
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert [parameter.requires_grad for parameter in model.parameters()] == learned


def test_a_half_precision_backbone_is_exported_in_float32(tmp_path):
    half, full = trained("r10_narrow", fp16=True), trained("r10_narrow")
    export_model(half, tmp_path / "model.onnx")
    assert half.amp_dtype == torch.float16
    expected = by_torch(full, faces(2))
    found = by_onnxruntime(tmp_path / "model.onnx", faces(2))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_a_wrapped_half_precision_backbone_is_exported_in_float32(tmp_path):
    half, full = trained("r10_narrow", fp16=True), trained("r10_narrow")
    export_model(torch.nn.Sequential(half), tmp_path / "model.onnx")
    assert half.amp_dtype == torch.float16
    expected = by_torch(full, faces(2))
    found = by_onnxruntime(tmp_path / "model.onnx", faces(2))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_without_the_older_exporter_the_newer_one_does(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")

    def removed(*_):
        raise TypeError("export() got an unexpected keyword argument 'dynamic_axes'")

    monkeypatch.setattr(onnx_graph, "EXPORTERS", {"torchscript": removed, **DYNAMO})
    model = Simple()
    report = export_model(model, tmp_path / "model.onnx")
    assert report.exporter == "dynamo"
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    for batch in (1, 4):
        expected = by_torch(model, faces(batch))
        found = by_onnxruntime(tmp_path / "model.onnx", faces(batch))
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


class Random(Simple):
    def forward(self, images):
        embeddings = super().forward(images)
        return embeddings + 0.01 * torch.randn_like(embeddings)


class KnowsItsBatch(Simple):
    """A branch in Python: tracing keeps the one that the example took."""

    def forward(self, images):
        return super().forward(images) * (1.0 if int(images.shape[0]) == 2 else 1.001)


class FixedBatch(Simple):
    def forward(self, images):
        return super().forward(images).reshape(int(images.shape[0]), 6)


class Stateful(Simple):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return super().forward(images) + 0.001 * self.calls


@pytest.mark.parametrize("kind", [Random, KnowsItsBatch, FixedBatch, Stateful])
@pytest.mark.parametrize("former", [None, b"an older export"])
def test_an_export_that_differs_is_refused_and_leaves_nothing(tmp_path, monkeypatch, kind, former):
    monkeypatch.setattr(onnx_graph, "EXPORTERS", TORCHSCRIPT)
    path = tmp_path / "model.onnx"
    if former:
        path.write_bytes(former)
    with pytest.raises(ExportError, match=kind.__name__) as caught:
        export_model(kind(), path)
    assert "\n" not in str(caught.value)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([former] if former else [])


def test_each_exporter_says_why_it_failed(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("an operator\nis missing")

    monkeypatch.setattr(onnx_graph, "EXPORTERS", {**TORCHSCRIPT, "other": broken})
    with pytest.raises(ExportError, match=r"torchscript: .*; other: an operator is missing"):
        export_model(KnowsItsBatch(), tmp_path / "model.onnx")


def test_a_tolerance_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "EXPORTERS", TORCHSCRIPT)
    error = export_model(trained("r10_narrow"), tmp_path / "a.onnx").relative_error
    with pytest.raises(ExportError, match="differ from torch"):
        export_model(trained("r10_narrow"), tmp_path / "b.onnx", tolerance=error / 2)
    assert not (tmp_path / "b.onnx").exists()


def test_a_diverged_backbone_is_refused(tmp_path):
    model = Simple()
    model.linear.weight.data[0, 0] = float("nan")
    with pytest.raises(ExportError, match="not finite"):
        export_model(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_insightface_would_misread_is_refused(tmp_path, monkeypatch):
    def write(model, example, file, opset):
        TORCHSCRIPT["torchscript"](model, example, file, opset)
        graph = onnx.load(file)
        graph.graph.node[0].name, graph.graph.node[1].name = "Sub_0", "Mul_1"
        onnx.save(graph, file)

    monkeypatch.setattr(onnx_graph, "EXPORTERS", {"renaming": write})
    with pytest.raises(ExportError, match="insightface would take"):
        export_model(Simple(), tmp_path / "model.onnx")


def test_places_that_cannot_be_written_are_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        export_model(Simple(), tmp_path / "file" / "model.onnx")
    with pytest.raises(ExportError, match=r"must end in one of \.onnx, "):
        export_model(Simple(), tmp_path / "model.pb")


class Unexportable(nn.Module):
    """Uses an operator that ONNX has not."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(112, 8)

    def forward(self, images):
        return self.linear(torch.special.bessel_j0(images).mean((1, 2)))


@pytest.mark.parametrize("model", [Unexportable, Simple])
def test_nothing_is_printed(tmp_path, capfd, monkeypatch, model):
    """Not even by torch's C++, which prints the graph that it fails at."""
    monkeypatch.setattr(onnx_graph, "EXPORTERS", TORCHSCRIPT)
    print("before")
    if model is Simple:
        export_model(model(), tmp_path / "model.onnx")
    else:
        with pytest.raises(ExportError, match="bessel_j0"):
            export_model(model(), tmp_path / "model.onnx")
    print("after")
    assert capfd.readouterr() == ("before\nafter\n", "")
