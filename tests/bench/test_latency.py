"""Latency: every model in every number of threads, its time its own, the teacher as a measure."""

import importlib.util
import json
import time

import pytest
import torch
from helpers.small_networks import SmallNetwork

from arcface_cakd import cli
from arcface_cakd.backbones import (
    ModelDescription,
    TrainingSet,
    get_model,
    save_model,
    save_weights,
)
from arcface_cakd.backbones.cost import multiply_adds
from arcface_cakd.bench import BenchError, Report
from arcface_cakd.bench.latency import Timed, labels, measure_latency, of_file, of_network
from arcface_cakd.export import FORMATS, export_model


def slow(label, seconds, seen):
    def opened(threads):
        def run(images):
            seen.append((label, threads, tuple(images.shape)))
            time.sleep(seconds)

        return run

    return Timed(label, opened, size=2_000_000)


def test_each_is_timed_as_often_on_one_face_and_beside_the_teacher():
    seen, report = [], Report("bench latency", {})
    models = [slow("a", 0.001, seen), slow("b", 0.004, seen)]
    teacher = slow("t", 0.016, seen)
    measure_latency(report, models, teacher=teacher, threads=(1, 2), rounds=3)
    for label in "abt":
        for threads in (1, 2):
            times = report.seconds[f"{threads} thread(s): {label}"]
            assert len(times) == 3
            assert seen.count((label, threads, (1, 3, 112, 112))) == 3 + 5  # and warmed up
            milliseconds = report.amounts[f"{label}, {threads} thread(s), ms"]
            assert milliseconds == pytest.approx(1000 * sorted(times)[1])
    # Sleeping takes at least that long, however busy the machine is.
    assert report.amounts["t, 1 thread(s), ms"] >= 16
    assert set(report.ratios) == {f"{m}, {n} thread(s) / teacher" for m in "ab" for n in (1, 2)}
    ones = [report.seconds[f"2 thread(s): {label}"] for label in "bt"]
    expected = sorted(b / t for b, t in zip(*ones, strict=True))[1]
    assert report.ratios["b, 2 thread(s) / teacher"].median == pytest.approx(expected)
    with pytest.raises(BenchError, match="called the same: a, a"):
        measure_latency(report, [models[0], models[0]])


def test_networks_and_files_are_rows_with_what_is_known_of_them(tmp_path):
    export_model(SmallNetwork(), tmp_path / "s.onnx")
    report = Report("bench latency", {})
    before = torch.get_num_threads()
    models = [of_network("s", SmallNetwork()), of_file(str(tmp_path / "s.onnx"), "s.onnx")]
    measure_latency(report, models, threads=(1,), rounds=2)
    torch.set_num_threads(before)
    (network,) = [line for line in report.notes[0].splitlines() if line.startswith("s (torch)")]
    assert f"{sum(p.numel() for p in SmallNetwork().parameters()):,}" in network
    assert f"{multiply_adds(SmallNetwork()) / 1e6:,.0f}" in network
    (file,) = [line for line in report.notes[0].splitlines() if "(onnxruntime)" in line]
    assert file.split()[-3:] == ["-", "-", "100"]


def test_the_command_exports_a_model_for_every_runtime_there_is(tmp_path, monkeypatch, capsys):
    weights, figures = tmp_path / "model.pt", tmp_path / "figures.json"
    torch.manual_seed(0)
    save_weights(get_model("r10_mini", num_features=8), weights)
    there = importlib.util.find_spec
    others = ("pnnx", "litert_torch", "openvino")
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if name in others else there(name, *a)
    )
    arguments = ["bench", "latency", weights, "--network", "r10_mini", "--rounds", "1"]
    assert cli.main([*map(str, arguments), "--threads", "1", "--json", str(figures)]) == 0
    printed = capsys.readouterr().out
    assert "model.pt (torch)" in printed and "model.pt.onnx (onnxruntime)" in printed
    assert "writing .tflite files needs the package litert_torch: pip install" in printed
    assert len(json.loads(figures.read_text())["amounts"]) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["figures.json", "model.pt"]

    # A model.json beside it says the network.
    said = ModelDescription("r10_mini", 8, TrainingSet("faces", 36, 6))
    save_model(get_model("r10_mini", num_features=8), tmp_path / "said.pt", said)
    monkeypatch.setattr("arcface_cakd.bench.latency.exports_of", lambda *_: [])
    words = ["bench", "latency", str(tmp_path / "said.pt"), "--rounds", "1", "--threads", "1"]
    assert cli.main(words) == 0
    assert "said.pt (torch)" in capsys.readouterr().out

    assert cli.main(["bench", "latency", "no.onnx"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "no.onnx: no such file" in line


def test_models_are_called_by_what_tells_their_paths_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert labels(["a/model.pt", "b.onnx"]) == ["model.pt", "b.onnx"]
    assert labels(["a/model.pt", "b/model.pt", "model.onnx"]) == [
        "a/model.pt",
        "b/model.pt",
        "model.onnx",
    ]
    assert labels(["a/run/m.pt", "b/run/m.pt", "m.pt"]) == [
        "a/run/m.pt",
        "b/run/m.pt",
        f"{tmp_path.name}/m.pt",
    ]
    with pytest.raises(BenchError, match=r"\./m\.pt is given twice: name each"):
        labels(["./m.pt", "m.pt"])


@pytest.fixture
def two_runs(tmp_path, monkeypatch):
    """model.pt and model.json of runs ``one`` and ``other``, in the current folder."""
    monkeypatch.chdir(tmp_path)
    said = ModelDescription("r10_mini", 8, TrainingSet("faces", 36, 6))
    for run in ("one", "other"):
        (tmp_path / run).mkdir()
        save_model(get_model("r10_mini", num_features=8), tmp_path / run / "model.pt", said)


def test_two_models_of_one_name_are_told_apart(two_runs, monkeypatch, capsys):
    monkeypatch.setattr("arcface_cakd.bench.latency.FORMATS", FORMATS[:1])
    words = "bench latency one/model.pt --teacher other/model.pt --rounds 1 --threads 1"
    assert cli.main(words.split()) == 0
    printed = capsys.readouterr().out
    for label in (
        "one/model.pt (torch)",
        "one/model.pt.onnx (onnxruntime)",
        "other/model.pt (torch)",
    ):
        assert f"{label}, 1 thread(s), ms" in printed


def test_all_is_looked_at_before_anything_is_exported(two_runs, monkeypatch, capsys):
    monkeypatch.setattr(
        "arcface_cakd.bench.latency.exports_of", lambda *_: pytest.fail("too early")
    )
    for words, said in (
        ("one/model.pt --teacher none/model.pt", "none/model.pt: no such file"),
        ("one/model.pt none.onnx", "none.onnx: no such file"),
        ("one/model.pt --teacher one/model.pt", "one/model.pt is given twice"),
        ("one/model.pt --threads 1 2 1", "--threads 1 2 1: say each number once"),
    ):
        assert cli.main(["bench", "latency", *words.split()]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
