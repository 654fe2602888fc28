import io
import json
import os

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from arcface_cakd import cli
from arcface_cakd.backbones import (
    ModelDescription,
    TrainingSet,
    get_model,
    save_model,
    save_weights,
)
from arcface_cakd.data import read_bin, write_bin
from arcface_cakd.evaluation import evaluate_set


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


def test_a_card_that_was_edited_stops_it_before_the_model_is_replaced(weights, tmp_path, capsys):
    output, card = tmp_path / "model.onnx", tmp_path / "model.onnx.md"
    command = (weights, "--network", "r10_narrow", "--output", output)
    assert run(*command) == 0
    assert run(*command) == 0  # its own card it replaces
    card.write_text(card.read_text() + "Ask us before you use it.\n")
    before = output.read_bytes(), card.read_bytes()
    capsys.readouterr()
    assert run(*command, "--about", "license=MIT") == 1
    assert str(card) in capsys.readouterr().err
    assert (output.read_bytes(), card.read_bytes()) == before
    card.rename(tmp_path / "mine.md")
    assert run(*command) == 0


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


def test_an_odd_log_beside_the_weights_leaves_no_export_without_its_card(tmp_path):
    said = ModelDescription("r10_narrow", 16, TrainingSet("faces", 36, 6))
    save_model(get_model("r10_narrow", num_features=16), tmp_path / "model.pt", said)
    odd = [b"\xff", b"5", b'{"step": 1, "seconds": 2.0}']
    odd.append(b'{"step": 2, "seconds": 0.0, "images_per_second": 0}')
    odd.append(b'{"step": 3, "seconds": NaN, "images_per_second": 2}')
    odd.append(b'{"step": 3, "seconds": 1, "images_per_second": 1e999}')
    odd.append(b'{"step": 3, "validation": {"lfw": NaN, "cfp_fp": 0.75}}')
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(odd) + b"\n")
    output = tmp_path / "m.onnx"
    assert run(tmp_path / "model.pt", "--output", output) == 0
    card = output.with_name("m.onnx.md").read_text(encoding="utf-8")
    assert "0.00 hours" in card and "last validation: cfp_fp 75.00 %." in card


def test_a_card_of_other_weights_says_nothing_of_the_run_in_their_folder(tmp_path):
    said = ModelDescription("r10_narrow", 16, TrainingSet("faces", 36, 6))
    save_model(get_model("r10_narrow", num_features=16), tmp_path / "model.pt", said)
    save_weights(get_model("r10_narrow", num_features=16), tmp_path / "model.pt.old")
    lines = [
        {"step": 1, "seconds": 3600.0, "images_per_second": 5.0, "terms": {"a_term": 1.0}},
        {"step": 1, "validation": {"lfw": 0.875}},
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    output, card = tmp_path / "m.onnx", tmp_path / "m.onnx.md"
    facts = ("lfw 87.50 %", "1.00 hours", "a_term")
    assert run(tmp_path / "model.pt", "--output", output) == 0
    assert all(fact in card.read_text(encoding="utf-8") for fact in facts)
    old = (tmp_path / "model.pt.old", "--network", "r10_narrow")
    assert run(*old, "--output", output) == 0
    assert not any(fact in card.read_text(encoding="utf-8") for fact in (*facts, "36 images"))


def test_a_path_that_is_no_utf_8_is_said_to_be(tmp_path, capsys):
    folder = tmp_path / os.fsdecode(b"run\xff")
    folder.mkdir()
    save_weights(get_model("r10_narrow", num_features=16), tmp_path / "model.pt")
    (tmp_path / "model.pt").rename(folder / "model.pt")
    words = ["--network", "r10_narrow", "--output", tmp_path / "m.onnx"]
    assert run(folder / "model.pt", *words) == 1
    assert "the path is no UTF-8: rename" in capsys.readouterr().err


def write_pairs(path, seed, pairs=20):
    """Pairs of coarse pictures; of one person, two noisy copies."""
    random = np.random.default_rng(seed)
    encoded, issame = [], [bool(i % 2) for i in range(pairs)]
    for same in issame:
        first = random.integers(0, 256, (7, 7, 3))
        for coarse in (first, first if same else random.integers(0, 256, (7, 7, 3))):
            noisy = (coarse + random.normal(0, 60, coarse.shape)).clip(0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(noisy).resize((112, 112)).save(buffer, "PNG")
            encoded.append(buffer.getvalue())
    write_bin(path, encoded, issame)
    return path


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export_sets")
    return [write_pairs(folder / f"{name}.bin", seed) for seed, name in enumerate(("dev", "test"))]


NETWORK = ["--network", "r10_narrow", "--embedding-size", "16"]


def test_it_is_compared_on_one_set_and_judged_on_another(weights, sets, tmp_path, capsys):
    dev, test = sets
    output, figures = tmp_path / "m.onnx", tmp_path / "figures.json"
    options = ["--precision", "fp16", "--calibrate", dev, "--data", test, "--max-loss", "100"]
    said = ["--draws", "100", "--about", "license=MIT", "training_data=made faces"]
    arguments = [*NETWORK, *options, *said, "--output", output, "--json", figures]
    assert run(weights, *arguments) == 0
    printed = capsys.readouterr().out
    assert "fp16, opset 17" in printed and "test: " in printed and "points lost" in printed
    assert f"hf upload OWNER/NAME {output} && hf upload OWNER/NAME {output}.md README.md" in printed
    assert "| test | " in (tmp_path / "m.onnx.md").read_text(encoding="utf-8")
    found = json.loads(figures.read_text())
    model = get_model("r10_narrow", num_features=16)
    model.load_state_dict(torch.load(weights))
    expected = evaluate_set(model, read_bin(test)).accuracy
    assert found["accuracy"]["test"]["original"]["accuracy"] == expected
    assert found["precision"] == "fp16" and found["batches"] == [1, 3, 6]
    about = {entry.key: entry.value for entry in onnx.load(output).metadata_props}
    assert about["license"] == "MIT" and about["training_data"] == "made faces"
    assert (about["network"], about["embedding_size"]) == ("r10_narrow", "16")


def test_a_file_that_loses_too_much_is_not_written(weights, sets, tmp_path, capsys):
    output = tmp_path / "m.onnx"
    output.write_bytes(b"former")
    # Nothing loses less than nothing: even an equal file does not.
    options = ["--data", sets[1], "--max-loss", "-0.01", "--draws", "0", "--output", output]
    assert run(weights, *NETWORK, *options) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "at most -0.01 are allowed" in line and "nothing is written" in line
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"former"]


def test_mistakes_with_sets_are_one_line(weights, sets, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("arcface_cakd.export.judging.Judge._judged", lambda *_: {})
    for options, said in [
        (["--max-loss", "1"], "give a .bin set"),
        (["--calibrate", sets[0], "--data", sets[0]], "in --calibrate and in --data"),
        (["--calibrate", "no.bin"], "no.bin"),
        (["--calibrate", "no"], "no such .bin set, train.rec or folder"),
        (["--calibrate", "faces.rec"], "must be called train.rec"),
        (["--data", "no.bin"], "no.bin"),
        (["--precision", "int8"], "faces to calibrate with"),
        (["--precision", "int4"], "no precision 'int4'"),
        (["--output", sets[0].with_suffix(".xml"), "--data", sets[0]], "belongs to no model"),
        (["--about", "MIT"], "write KEY=TEXT"),
        (["--about", "license="], "write KEY=TEXT"),
        (["--about", "license= "], "write KEY=TEXT"),
        (["--about", "=MIT"], "write KEY=TEXT"),
        (["--about", "license=MIT", "license=GPL"], "license is given twice"),
        (["--about", "license=MIT", "--about", "license=MIT"], "license is given twice"),
        (["--opset", "8"], "fp32 are written at 9 to 23"),
        (["--opset", "24"], "fp32 are written at 9 to 23"),
        (
            ["--opset", "12", "--precision", "int8", "--calibrate", sets[0]],
            "int8 are written at 13 to 23",
        ),
        (["--about", "license=MIT", "network=r999"], "network is told by the model itself"),
    ]:
        assert run(weights, *NETWORK, "--output", "m.onnx", *options) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
        assert list(tmp_path.iterdir()) == []


def test_no_work_is_done_for_what_cannot_be_written(weights, sets, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("arcface_cakd.cli.export.load_model", lambda *_: pytest.fail("too early"))
    for options in (["--precision", "int8"], ["--opset", "99"], ["--about", "license="]):
        assert run(weights, "--output", tmp_path / "m.onnx", "--data", sets[1], *options) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_figures_are_not_written_where_the_export_itself_writes(weights, tmp_path, capsys):
    command = (weights, *NETWORK)
    for output, figures in (
        ("m.onnx", "m.onnx"),
        ("m.onnx", "m.onnx.md"),
        ("m.xml", "m.bin"),
        ("m.ncnn.param", "m.ncnn.bin"),
        ("m.mlpackage", "m.mlpackage/figures.json"),
    ):
        words = ("--output", tmp_path / output, "--json", tmp_path / "deep" / ".." / figures)
        assert run(*command, *words) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "the export itself is written there: name another file" in line
    detector = tmp_path / "det.onnx"
    detector.touch()
    pack = ("--insightface-pack", tmp_path / "pack", "--detector", detector)
    for figures in ("pack", "pack/figures.json"):
        assert run(*command, *pack, "--json", tmp_path / figures) == 1
        assert "the export itself is written there" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [detector]


@pytest.mark.parametrize("command", ["export", "evaluate", "bench latency"])
@pytest.mark.parametrize("name", ["m.onnx", "m.ONNX", "m.xml", "m.mlpackage"])
def test_an_exported_file_is_not_taken_for_damaged_weights(tmp_path, capsys, command, name):
    model = tmp_path / name
    model.write_bytes(b"no model")
    options = {
        "export": ["--output", str(tmp_path / "other.onnx")],
        "evaluate": ["--data", str(write_pairs(tmp_path / "lfw.bin", 0, pairs=20))],
        "bench latency": [],
    }
    assert cli.main([*command.split(), str(model), *options[command]]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(model.with_suffix("")) in line and "cut, damaged" not in line
    if command == "export" or name.endswith(".mlpackage"):
        assert "an exported file" in line and "give the model.pt that it was written from" in line


def test_keys_of_ones_own_are_in_the_card_of_every_format(weights, tmp_path):
    said = ["--about", "licence=MIT", "--about", "my key=a | b\nc"]
    for ending, shape in ((".onnx", "(N, 3, 112, 112)"), (".ncnn.param", "(1, 3, 112, 112)")):
        if ending == ".ncnn.param":
            pytest.importorskip("pnnx")
            pytest.importorskip("ncnn")
        path = tmp_path / f"m{ending}"
        assert run(weights, *NETWORK, "--output", path, "--precision", "fp16", *said) == 0
        card = (tmp_path / f"{path.name}.md").read_text(encoding="utf-8")
        assert "- licence: MIT\n- my key: a | b c\n\n## Data" in card
        assert "made_by" not in card
        assert f"| input | float32 {shape}, RGB" in card
        assert ("fp16 (weights)" in card) == (ending == ".ncnn.param")
