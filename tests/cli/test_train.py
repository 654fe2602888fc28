import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.documents import blocks, read
from helpers.engine_runs import make_faces

from arcface_cakd.backbones import get_model, save_weights
from arcface_cakd.cli import main
from arcface_cakd.data import write_bin
from arcface_cakd.recordio.codec import encode
from arcface_cakd.registry import BACKBONES, PROTOCOLS

# A user's config may bring its own network, and goes through arcface_torch's keys.
CONFIG = """
import sys
sys.path.insert(0, {tests!r})
import helpers.engine_runs  # registers test_tiny
from easydict import EasyDict as edict

config = edict()
config.rec = {rec!r}
config.output = {output!r}
config.network = "test_tiny"
config.embedding_size = 16
config.batch_size = 4
config.num_epoch = 1
config.lr = 0.05
config.margin_list = (1.0, 0.0, 0.2)
config.num_workers = 0
config.val_targets = ["lfw"]
config.frequent = 4
config.dali = False
config.save_all_states = True
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return make_faces(tmp_path_factory.mktemp("cli") / "faces")


@pytest.fixture
def config(faces, tmp_path):
    path = tmp_path / "tiny.py"
    tests = str(Path(__file__).parents[1])
    path.write_text(CONFIG.format(tests=tests, rec=str(faces), output=str(tmp_path / "out")))
    return path


def test_trains_and_writes_figures(config, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    assert (
        main(["train", str(config), "--set", "lr=0.01", "num_epoch=2", "--json", str(figures)]) == 0
    )
    written = json.loads(figures.read_text())
    assert written["global_step"] == 18 and written["output"] == str(tmp_path / "out")
    assert 0 <= written["accuracy"]["lfw"] <= 1
    assert (tmp_path / "out" / "model.pt").is_file()
    first = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["lr"] == pytest.approx(0.01 * (1 - 3 / 18))
    assert "lfw: accuracy" in capsys.readouterr().out
    assert main(["train", str(config), "--set", "num_epoch=2", "--set", "resume=True"]) == 0


@pytest.mark.parametrize(
    "override, said",
    [
        ("lr=-1", "lr must be above 0"),
        ("learning_rate=1", "learning_rate"),
        ("network=test_tinny", "did you mean 'test_tiny'?"),
        ("num_classes=3", "num_classes is 3"),
        ("resume=True", "no checkpoint"),
        ("rec=nowhere", "nowhere"),
        ("cakd.teacher.network=swin_mini", "weights"),
        ("cakd.techer=1", "teacher"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(config, tmp_path, capfd, override, said):
    assert main(["train", str(config), "--set", override]) == 1
    printed = capfd.readouterr().err.strip()
    assert said in printed and "\n" not in printed
    assert printed.startswith("arcface-cakd train: error: ")
    assert not (tmp_path / "out").exists()


def test_another_run_is_written_over_by_force_alone(config, tmp_path, capfd):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.pt").write_bytes(b"of hours")
    assert main(["train", str(config)]) == 1
    printed = capfd.readouterr().err.strip()
    assert "holds another run (model.pt)" in printed and "\n" not in printed
    assert (tmp_path / "out" / "model.pt").read_bytes() == b"of hours"
    assert main(["train", str(config), "--force"]) == 0
    assert torch.load(tmp_path / "out" / "model.pt", weights_only=True)


@pytest.fixture
def with_module(tmp_path, monkeypatch):
    """A function that writes a module into the current folder, forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules), set(BACKBONES.names())

    def write(name, source):
        (tmp_path / f"{name}.py").write_text(source)

    yield write
    for name in set(sys.modules) - before[0]:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    for name in set(BACKBONES.names()) - before[1]:
        del BACKBONES._components[name]


def test_the_network_of_the_document_trains(config, tmp_path, with_module, capsys):
    (source,) = [block for _, block in blocks(read("docs/config.md")) if "class MyNet" in block]
    with_module("my_net", source)
    settings = ["--set", "network=my_net", "embedding_size=16"]
    assert main(["train", str(config), *settings]) == 1
    said = capsys.readouterr().err
    assert "unknown network 'my_net'" in said
    assert "imported, on the command line by --import" in said
    assert main(["train", str(config), "--import", "my_net", *settings]) == 0
    model = torch.load(tmp_path / "out" / "model.pt", weights_only=True)
    assert model["fc.1.weight"].shape == (16, 128 * 49)
    assert main(["--import", "my_net", "list", "backbones"]) == 0
    assert "\nmy_net " in capsys.readouterr().out


def test_the_protocol_of_the_document_judges(tmp_path, with_module, capsys):
    (source,) = [t for _, t in blocks(read("docs/evaluation.md")) if "class Mine" in t]
    with_module("my_protocol", source)
    save_weights(get_model("r10_narrow", num_features=8), "model.pt")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 112, 112, 3), dtype=np.uint8)
    write_bin("mine.bin", [encode(image) for image in pixels], [True, False] * 2)
    command = ["evaluate", "model.pt", "--network", "r10_narrow", "--data", "mine.bin"]
    try:
        assert main([*command, "--protocol", "mine", "--import", "my_protocol"]) == 0
        assert capsys.readouterr().out.startswith("mine: Lengths(shortest=")
        without = source.replace("def table", "def tables").replace('"mine"', '"half"')
        with_module("half_a_protocol", without)
        assert main([*command, "--protocol", "half", "--import", "half_a_protocol"]) == 1
        assert "its class Mine lacks table, which" in capsys.readouterr().err
    finally:
        for name in ("mine", "half"):
            PROTOCOLS._components.pop(name, None)


@pytest.mark.parametrize(
    "source, said",
    [(None, "ModuleNotFoundError"), ("1 / 0", "ZeroDivisionError"), ("a b", "SyntaxError")],
)
def test_a_module_that_cannot_be_imported_is_one_line(with_module, capsys, source, said):
    if source is not None:
        with_module("broken_module", source)
    assert main(["list", "losses", "--import", "broken_module"]) == 1
    printed = capsys.readouterr().err.strip()
    assert said in printed and "--import broken_module" in printed and "\n" not in printed


def test_an_unknown_config_is_one_line(capfd):
    assert main(["train", "no_such_recipe"]) == 1
    printed = capfd.readouterr().err.strip()
    assert "no_such_recipe" in printed and "\n" not in printed


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--help"])
    assert stopped.value.code == 0
    assert "torchrun --nproc-per-node 2 -m arcface_cakd train" in capsys.readouterr().out


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "arcface_cakd", "train", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    root = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_under_torchrun_two_ranks_train_together(config, tmp_path):
    done = torchrun(config, "--set", "sample_rate=0.5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model.pt: step 4") == 1  # 36 images in global batches of 8
    shards = [
        torch.load(tmp_path / "out" / f"checkpoint_gpu_{rank}.pt", weights_only=True)
        for rank in (0, 1)
    ]
    assert [len(shard["state_dict_softmax_fc"]["weight"]) for shard in shards] == [3, 3]
    assert done.stderr.count("step 4/4") == 1
