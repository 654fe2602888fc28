"""Options that would change nothing are refused, in one line and before any work."""

import pytest

from arcface_cakd.cli import main


@pytest.mark.parametrize(
    ("command", "option", "said"),
    [
        ("data dedupe set", "--cosine 0.9", "is for --model"),
        ("data dedupe set", "--network r10", "is for --model"),
        ("data dedupe set", "--embedding-size 16", "is for --model"),
        ("data dedupe set", "--device cpu", "is for --model"),
        ("data dedupe set", "--force", "replaces a data set in OUT"),
        ("data pairs set o.bin --list l", "--seed 0", "is of --pairs, which are drawn"),
        ("data pairs set o.bin --pairs 20", "--skip-bad", "is for --list"),
        ("data align photos o --landmarks l", "--detection-size 640", "is a detector's"),
        ("data align photos o --landmarks l", "--weights w", "is a detector's"),
        ("export m.pt --output m.onnx", "--draws 0", "is for the intervals of --data"),
        ("export m.pt --output m.onnx", "--onnxruntime-web w", "is for --web"),
        ("export m.pt --output m.tflite", "--opset 17", "is for .onnx files, and m.tflite is none"),
        ("bench latency m.onnx", "--network r50", "is for model.pt files, and none is given"),
        ("bench latency m.pt", "--teacher-network r50", "is for a model.pt as --teacher"),
        ("bench latency m.pt --teacher t.xml", "--teacher-network r50", "is for a model.pt as"),
        ("report run", "--device cpu", "is where runs are judged on --data"),
    ],
)
def test_they_are_refused(tmp_path, monkeypatch, capsys, command, option, said):
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), *option.split()]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"error: {option.split()[0]} {said}" in line and "drop it" in line
    assert list(tmp_path.iterdir()) == []
    main(command.split())  # without it, the line is another
    assert said not in capsys.readouterr().err


@pytest.mark.parametrize("number", ["nan", "inf"])
@pytest.mark.parametrize(
    "words",
    [
        "data align photos o --min-side",
        "data align photos o --min-score",
        "data dedupe set --model m --cosine",
        "data split set o h --fraction",
        "export m.pt --output m.onnx --data d --max-loss",
    ],
)
def test_no_number_is_none_that_is_not_finite(capsys, words, number):
    with pytest.raises(SystemExit) as stopped:
        main([*words.split(), number])
    assert stopped.value.code == 2
    assert f"must be a finite number, got {number}" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate m.pt", "export m.pt --output m.onnx"])
@pytest.mark.parametrize("number", ["1", "99"])
def test_draws_too_few_for_an_interval_are_refused(capsys, command, number):
    with pytest.raises(SystemExit):
        main([*command.split(), "--data", "d", "--draws", number])
    assert f"must be 0, or 100 or more, got {number}" in capsys.readouterr().err
    assert main([*command.split(), "--data", "d", "--draws", "100"]) == 1  # there is no m.pt


@pytest.mark.parametrize("command", ["evaluate m.pt", "export m.pt --output m.onnx"])
def test_draws_that_no_memory_holds_are_refused(capsys, command):
    with pytest.raises(SystemExit):
        main([*command.split(), "--data", "d", "--draws", "100000000000"])
    assert "must be at most 1,000,000, got 100000000000" in capsys.readouterr().err
