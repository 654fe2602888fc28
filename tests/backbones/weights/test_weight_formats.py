"""Weights in the files and folders that others write."""

import json
import random
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from arcface_cakd.backbones import WeightsError, build_teacher, get_model, load_weights
from arcface_cakd.backbones.weights import read_weights


def model(seed=0):
    torch.manual_seed(seed)
    return get_model("r10_narrow", num_features=16)


def prefixed(prefix):
    return {prefix + key: value.clone() for key, value in model().state_dict().items()}


def assert_holds(network, path):
    """The weights at ``path`` are those of ``model()``, and reach a network and a teacher."""
    teacher = build_teacher(512, network="r10_narrow", weights=str(path))
    assert teacher.embedding_size == 16
    load_weights(network, path)
    for loaded in (network, teacher):
        for key, value in model().state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value), key


def refused(path):
    with pytest.raises(WeightsError) as error:
        load_weights(model(), path)
    line = str(error.value)
    assert "\n" not in line and str(path) in line
    return line


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_state_dict_inside_of_a_checkpoint(tmp_path, key):
    path = tmp_path / "checkpoint.pth.tar"
    torch.save({"epoch": 3, "arch": "r10", key: prefixed("module."), "metric": 0.5}, path)
    assert_holds(model(1), path)


def test_what_is_left_in_a_checkpoint_is_said(tmp_path, caplog):
    path = tmp_path / "checkpoint.pth.tar"
    averaged = prefixed("")
    torch.save({"state_dict": prefixed(""), "state_dict_ema": averaged, "optimizer": {}}, path)
    with caplog.at_level("INFO", "arcface_cakd"):
        read_weights(path)
    (record,) = caplog.records
    said = record.getMessage()
    assert "under 'state_dict'; the file also has state_dict_ema" in said and "\n" not in said


@pytest.mark.parametrize("form", ["missing", torch.int32, torch.float32])
def test_counts_of_batches_may_be_missing_or_of_another_type(tmp_path, form):
    state = prefixed("")
    for key in [key for key in state if key.endswith("num_batches_tracked")]:
        counted = state.pop(key)
        if form != "missing":
            state[key] = counted.to(form)
    torch.save(state, tmp_path / "w.pt")
    assert_holds(model(1), tmp_path / "w.pt")


def test_what_is_not_finite_in_the_networks_precision_is_refused(tmp_path):
    state = {k: v.double() if v.is_floating_point() else v for k, v in prefixed("").items()}
    state["bn2.weight"].fill_(1e300)
    torch.save(state, tmp_path / "w.pt")
    assert "not finite in 1 keys (bn2.weight)" in refused(tmp_path / "w.pt")


def test_a_network_with_a_part_of_that_name_is_none(tmp_path):
    network = nn.ModuleDict({"model": nn.Linear(2, 2)})
    torch.save(network.state_dict(), tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt").keys() == network.state_dict().keys()


def test_safetensors(tmp_path):
    save_file(prefixed(""), tmp_path / "model.safetensors")
    assert_holds(model(1), tmp_path / "model.safetensors")


def test_cut_safetensors(tmp_path):
    path = tmp_path / "cut.safetensors"
    save_file({"a": torch.randn(30), "b": torch.zeros(4, dtype=torch.int64)}, path)
    data = path.read_bytes()
    draw = random.Random(0)
    for length in [0, 1, 8, len(data) - 1, *(draw.randrange(len(data)) for _ in range(20))]:
        path.write_bytes(data[:length])
        assert "cannot be read" in refused(path), length


def test_without_the_package_it_is_named(tmp_path, monkeypatch):
    save_file(prefixed(""), tmp_path / "w.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    assert refused(tmp_path / "w.safetensors").endswith("pip install safetensors")


class TestFolder:
    def test_as_cvlface_has_it_on_hugging_face(self, tmp_path):
        (tmp_path / "pretrained_model").mkdir()
        (tmp_path / "config.json").write_text(json.dumps({"conf": {"color_space": "RGB"}}))
        (tmp_path / "wrapper.py").write_text("raise SystemExit('nothing here is run')")
        torch.save(prefixed("net."), tmp_path / "pretrained_model" / "model.pt")
        (tmp_path / "pretrained_model" / "model.yaml").write_text("color_space: 'RGB'\n")
        assert_holds(model(1), tmp_path)
        assert_holds(model(1), tmp_path / "pretrained_model" / "model.pt")
        (tmp_path / "pretrained_model" / "model.pt").write_bytes(b"not looked at")
        save_file(prefixed("model.net."), tmp_path / "model.safetensors")
        assert_holds(model(1), tmp_path)

    def test_an_empty_one_says_what_is_sought(self, tmp_path):
        line = refused(tmp_path)
        assert "model.safetensors or pretrained_model/model.pt" in line

    @pytest.mark.parametrize(
        "name, text",
        [
            ("config.json", json.dumps({"conf": {"color_space": "BGR"}})),
            ("pretrained_model/model.yaml", "name: ir_101\ncolor_space: 'BGR'\n"),
            ("pretrained_model/model.yaml", "color_space: BGR # as AdaFace\n"),
        ],
    )
    def test_a_model_for_bgr_images_is_refused(self, tmp_path, name, text):
        (tmp_path / "pretrained_model").mkdir()
        (tmp_path / name).write_text(text)
        save_file(prefixed("model.net."), tmp_path / "model.safetensors")
        assert f"{name} says that this model takes BGR images" in refused(tmp_path)
        torch.save(prefixed("net."), tmp_path / "pretrained_model" / "model.pt")
        for path in ("model.safetensors", "pretrained_model/model.pt"):  # by its own path, too
            assert f"{name} says that this model takes BGR images" in refused(tmp_path / path)

    def test_settings_beside_a_file_that_was_moved_out_of_its_folder(self, tmp_path, monkeypatch):
        save_file(prefixed("net."), tmp_path / "w.safetensors")
        (tmp_path / "model.yaml").write_text("name: ir101\ncolor_space: 'BGR'\n")
        assert "model.yaml says that this model takes BGR" in refused(tmp_path / "w.safetensors")
        monkeypatch.chdir(tmp_path)
        assert "takes BGR images" in refused("w.safetensors")
        (tmp_path / "model.yaml").write_text("name: ir101\ncolor_space: 'RGB'\n")
        assert_holds(model(1), "w.safetensors")


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 3)


class TestPrefixes:
    def test_of_a_compiled_network(self, tmp_path):
        torch.save(prefixed("module._orig_mod."), tmp_path / "w.pt")
        assert_holds(model(1), tmp_path / "w.pt")

    def test_that_the_network_has_itself_stay(self, tmp_path):
        torch.save(Wrapped().state_dict(), tmp_path / "w.pt")
        load_weights(network := Wrapped(), tmp_path / "w.pt")
        assert torch.equal(network.net.weight, torch.load(tmp_path / "w.pt")["net.weight"])
        torch.save(
            {f"model.net.{k}": v for k, v in nn.Linear(2, 3).state_dict().items()},
            tmp_path / "v.pt",
        )
        load_weights(network, tmp_path / "v.pt")
        assert torch.equal(network.net.weight, torch.load(tmp_path / "v.pt")["model.net.weight"])

    def test_on_some_keys_only_are_reported(self, tmp_path):
        state = prefixed("net.")
        state["bias"] = state.pop("net.fc.bias")
        torch.save(state, tmp_path / "w.pt")
        line = refused(tmp_path / "w.pt")
        assert "unexpected (net.conv1.weight" in line and "missing (conv1.weight" in line


@pytest.mark.parametrize("key", ["two\nlines", ("two\nlines", 1), torch.zeros(3, 3)])
def test_whatever_a_file_has_for_names_the_error_is_one_line(tmp_path, key):
    torch.save({key: 0}, tmp_path / "model.pt")
    torch.save({**prefixed(""), "two\nlines": torch.zeros(1)}, tmp_path / "more.pt")
    for name in ("model.pt", "more.pt"):
        with pytest.raises(WeightsError) as error:
            load_weights(model(1), tmp_path / name)
        assert "\n" not in str(error.value)
