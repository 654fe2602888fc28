import json

import numpy as np
import onnxruntime
import pytest
import torch

from arcface_cakd import cli
from arcface_cakd.backbones import (
    ModelDescription,
    TrainingSet,
    get_model,
    save_model,
    save_weights,
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("export_cli") / "model.pt"
    save_weights(get_model("r10_narrow", num_features=16), path)
    return path


def run(*arguments):
    return cli.main(["export", *map(str, arguments)])


def test_it_writes_the_model_and_says_what_it_compared(weights, tmp_path, capsys):
    output, figures = tmp_path / "deep" / "model.onnx", tmp_path / "figures.json"
    network = ["--network", "r10_narrow", "--embedding-size", "16"]
    assert run(weights, *network, "--output", output, "--json", figures) == 0
    assert "cosine at least" in capsys.readouterr().out
    report = json.loads(figures.read_text())
    assert report["path"] == str(output)
    assert report["cosine"] > 1 - 1e-9
    assert report["batches"] == [1, 3]

    model = get_model("r10_narrow", num_features=16).eval()
    model.load_state_dict(torch.load(weights))
    images = torch.rand(2, 3, 112, 112) * 2 - 1
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"data": images.numpy()})
    with torch.no_grad():
        expected = model(images).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "no.pt"}, "no.pt"),
        ({"--network": "r10"}, "unknown network 'r10'"),
        ({"--network": "mbf"}, "do not fit"),
        ({"--embedding-size": "512"}, "another shape"),
        ({"--output": "model.pth"}, "must end in one of .onnx"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    weights, tmp_path, monkeypatch, capsys, change, said
):
    monkeypatch.chdir(tmp_path)
    options = {"--network": "r10_narrow", "--embedding-size": "16", "--output": "m.onnx", **change}
    model = options.pop("model", weights)
    assert run(model, *(word for option in options.items() for word in option)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("arcface-cakd export: error: ")
    assert said in line
    assert list(tmp_path.iterdir()) == []


def test_the_network_must_be_named_where_no_file_says_it(weights, tmp_path, capsys):
    assert run(weights, "--output", tmp_path / "m.onnx") == 1
    assert "--network is needed" in capsys.readouterr().err
    # The width shows in the weights.
    output = tmp_path / "m.onnx"
    assert run(weights, "--network", "r10_narrow", "--output", output) == 0
    assert onnxruntime.InferenceSession(output).get_outputs()[0].shape[1] == 16


def test_model_json_says_network_and_width(tmp_path, capsys):
    said = ModelDescription("r10_narrow", 16, TrainingSet("faces", 36, 6))
    save_model(get_model("r10_narrow", num_features=16), tmp_path / "model.pt", said)
    model, output = tmp_path / "model.pt", tmp_path / "m.onnx"
    assert run(model, "--output", output) == 0
    assert onnxruntime.InferenceSession(output).get_outputs()[0].shape[1] == 16
    assert run(model, "--network", "r10_narrow", "--output", output) == 0
    capsys.readouterr()
    for option, value in (("--network", "r10"), ("--embedding-size", "8")):
        assert run(model, option, value, "--output", output) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{option} {value}: {model} is of" in line and "drop the option" in line
