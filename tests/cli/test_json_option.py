"""``--json -`` is stdout, and nothing else is there."""

import json
import re
from pathlib import Path

import pytest
from helpers.engine_runs import make_faces, small_config
from helpers.record_sets import jpeg

from arcface_cakd import cli
from arcface_cakd.cli.figures import write_json
from arcface_cakd.demo import RESULTS
from arcface_cakd.engine import train

COMMANDS = Path(cli.__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained model, a config for another one, and two people in a folder each."""
    folder = tmp_path_factory.mktemp("json")
    make_faces(folder / "faces", pairs=10)
    train(small_config(folder / "faces", folder / "run", num_epoch=1, network="test_tiny"))
    for person in ("a", "b"):
        (folder / "people" / person).mkdir(parents=True)
        (folder / "people" / person / "0.jpg").write_bytes(jpeg(1))
    (folder / "config.py").write_text(
        "from easydict import EasyDict as edict\n"
        f"config = edict(rec={str(folder / 'faces')!r}, output={str(folder / 'out')!r})\n"
        "config.update(network='test_tiny', embedding_size=16, batch_size=18, num_epoch=1)\n"
        "config.update(val_targets=[], num_workers=0)\n"
    )
    return folder


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["list", "losses"], 0),
        (["data", "inspect", "people"], 0),
        (["data", "verify", "people"], "damaged"),
        (["evaluate", "run/model.pt", "--data", "faces", "--draws", "0"], "sets"),
        (["export", "run/model.pt", "--output", "m.onnx"], "cosine"),
        (["train", "config.py"], "global_step"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_stdout_holds_the_figures_alone(folder, monkeypatch, capfd, words, key):
    monkeypatch.chdir(folder)
    cli.main([*words, "--json", "file.json"])
    plain = capfd.readouterr()
    cli.main([*words, *(["--force"] if words[0] == "train" else []), "--json", "-"])
    shown = capfd.readouterr()
    figures = json.loads(shown.out)
    assert figures[key] is not None and not (folder / "-").exists()
    assert figures == json.loads((folder / "file.json").read_text())
    assert plain.out.strip() and all(line in shown.err for line in plain.out.splitlines())


def test_the_demo_s_figures_are_those_of_its_folder(tmp_path, monkeypatch, capsys):
    from arcface_cakd import demo

    def run(out):
        print("the table")
        Path(out, RESULTS).write_text('{"a": 1}')
        return 1

    monkeypatch.setattr(demo, "run_demo", run)
    assert cli.main(["demo", "--out", str(tmp_path), "--json", "-"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"a": 1} and shown.err == "the table\n"


def test_figures_are_not_written_over_what_says_the_network(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder / "run")
    before = Path("model.json").read_bytes()
    words = ["evaluate", "model.pt", "--data", "../faces", "--json"]
    assert cli.main([*words, str(folder / "run" / "model.json")]) == 1
    assert "says what model.pt is of: name another" in capsys.readouterr().err
    assert Path("model.json").read_bytes() == before


def test_no_command_goes_round_it():
    for file in COMMANDS.rglob("*.py"):
        assert file.name == "figures.py" or not re.search(
            r'"--json"|write_text\(args\.json|json\.dump', file.read_text()
        ), file


def test_without_the_option_nothing_is_written(capsys):
    write_json(None, {})
    assert capsys.readouterr().out == ""
