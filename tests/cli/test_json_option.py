"""``--json -`` is stdout, and nothing else is there."""

import json
import re
from pathlib import Path

import pytest
from helpers.engine_runs import make_faces, small_config
from helpers.record_sets import jpeg

from arcface_cakd import cli
from arcface_cakd.cli.figures import check_json, write_json
from arcface_cakd.demo import RESULTS
from arcface_cakd.engine import train
from arcface_cakd.errors import ArcfaceCakdError

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
    cli.main([*words, "--json", "file.json"])  # in the place of another command's
    plain = capfd.readouterr()
    assert plain.err.count("error") == 0
    check_json("file.json")
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


@pytest.mark.parametrize(
    "name",
    ["run/model.json", "run/run.json", "run/metrics.jsonl", "run/model.pt", "faces/lfw.bin", "run"],
)
def test_what_holds_no_figures_is_not_written_over(folder, monkeypatch, capsys, name):
    def run(args):
        raise AssertionError("it is refused before any work")

    monkeypatch.chdir(folder)
    for module in ("evaluate", "data.inspect"):
        monkeypatch.setattr(f"arcface_cakd.cli.{module}.run", run)
    before = Path(name).read_bytes() if name != "run" else None
    for words in (["evaluate", "run/model.pt", "--data", "faces"], ["data", "inspect", "faces"]):
        assert cli.main([*words, "--json", name]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"arcface-cakd {words[0]}: error: --json {name}: ")
    assert before is None or Path(name).read_bytes() == before


@pytest.mark.parametrize("below", ["x.json", "more/x.json"])
def test_what_would_be_in_no_folder_is_refused_before_any_work(
    tmp_path, monkeypatch, capsys, below
):
    def run(args):
        raise AssertionError("it is refused before any work")

    monkeypatch.setattr("arcface_cakd.cli.list.run", run)
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    for above in (tmp_path / "file", tmp_path / "dangling"):
        assert cli.main(["list", "losses", "--json", str(above / below)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith(f"{above / below}: {above} is no folder: name a file in one")
    check_json(str(tmp_path / "new" / below))


def test_what_is_no_finite_number_is_null(tmp_path):
    """JSON has no word for it: other readers refuse the file."""
    odd = [float("nan"), float("inf"), -float("inf"), 1.5]
    write_json(str(tmp_path / "x.json"), {"items": odd, "damaged": {"a": tuple(odd)}})
    found = json.loads((tmp_path / "x.json").read_text())
    assert found == {"items": [None, None, None, 1.5], "damaged": {"a": [None, None, None, 1.5]}}
    check_json(str(tmp_path / "x.json"))


def test_every_command_s_figures_are_replaced(tmp_path):
    from arcface_cakd.bench import Report

    patched = {"host": "h", "state": "patched", "exit_code": 0, "sets": []}
    made = {"data": {}, "runs": {}, "histogram_accuracy": {}}
    for figures in (Report("bench", {}).to_dict(), patched, made, []):
        write_json(str(tmp_path / "figures.json"), figures)
        check_json(str(tmp_path / "figures.json"))
    (tmp_path / "made").touch()  # as mktemp does
    write_json(str(tmp_path / "made"), [])
    others = ([{"label": 1}], [{"path": "a.jpg", "label": 0}], {"model": "r50", "sets": {"a": 1}})
    for other in others:
        (tmp_path / "other.json").write_text(json.dumps(other))
        with pytest.raises(ArcfaceCakdError, match="holds no figures"):
            write_json(str(tmp_path / "other.json"), [])


def test_an_export_and_its_figures_are_two_files(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for name in ("e.onnx", "./e.onnx", "e.onnx.md"):
        assert cli.main(["export", "run/model.pt", "--output", "e.onnx", "--json", name]) == 1
        assert f"--json {name}: the export itself is written there" in capsys.readouterr().err
        assert not Path("e.onnx").exists()


def test_no_command_goes_round_it():
    for file in COMMANDS.rglob("*.py"):
        assert file.name == "figures.py" or not re.search(
            r'"--json"|write_text\(args\.json|json\.dump', file.read_text()
        ), file


def test_without_the_option_nothing_is_written(capsys):
    write_json(None, {})
    assert capsys.readouterr().out == ""
