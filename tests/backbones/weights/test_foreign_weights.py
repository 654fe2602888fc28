"""Files that hold more than weights: what they are is said, nothing in them is run, and what the
message says works."""

import argparse
import re
import warnings

import pytest
import torch
from helpers.documents import blocks, read
from torch import nn

from arcface_cakd.backbones import WeightsError, get_model, load_weights
from arcface_cakd.backbones.weights import read_weights


class WholeModel(nn.Module):
    """A user's own class, whose file says where its code is."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)


class Argument(argparse.Namespace):
    """What trainers keep beside the weights."""


def refused(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(WeightsError) as error:
            read_weights(path)
    line = str(error.value)
    assert line.startswith(f"weights {path} ") and "\n" not in line
    return line


def obey(line, tmp_path, monkeypatch):
    """Run the line of Python that a message gives."""
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"torch\.save\(.*?, 'weights\.pt'\)", line)
    exec(code, {"torch": torch})
    return read_weights(tmp_path / "weights.pt")


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_a_whole_pickled_model(tmp_path, monkeypatch, options):
    model = WholeModel()
    torch.save(model, tmp_path / "whole.pt", **options)
    line = refused(tmp_path / "whole.pt")
    assert "hold a whole pickled model (" in line and "WholeModel" in line
    state = obey(line, tmp_path, monkeypatch)
    assert torch.equal(state["linear.weight"], model.linear.weight)


@pytest.mark.filterwarnings("ignore")  # that torch.jit is deprecated
def test_torchscript(tmp_path, monkeypatch):
    model = nn.Sequential(nn.Linear(3, 2))
    torch.jit.save(torch.jit.script(model), tmp_path / "script.pt")
    line = refused(tmp_path / "script.pt")
    assert "are a TorchScript archive" in line
    state = obey(line, tmp_path, monkeypatch)
    assert torch.equal(state["0.weight"], model[0].weight)


def test_a_checkpoint_with_more_than_tensors(tmp_path):
    content = {"state_dict": WholeModel().state_dict(), "args": Argument(lr=0.1)}
    torch.save(content, tmp_path / "run.ckpt")
    line = refused(tmp_path / "run.ckpt")
    assert "hold more than tensors (" in line and "Argument" in line
    assert "torch.save the state dict that is in it alone" in line


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 cut"])
def test_a_file_of_nothing_of_these_kinds_keeps_its_message(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    kind = "cut or damaged" if content.startswith(b"PK") else "cut, damaged, or holds more than"
    assert f"the file is {kind}" in refused(tmp_path / "model.pt")


@pytest.mark.parametrize("with_arguments", [False, True])
def test_adaface_is_turned_to_rgb_as_the_document_says(tmp_path, monkeypatch, with_arguments):
    """Its checkpoint, made of our network for which BGR is what RGB is for the real one."""
    torch.manual_seed(0)
    bgr = get_model("cvlface_ir18", num_features=512).eval()
    keys = ["input_layer.0.weight", "input_layer.1.weight", "input_layer.1.bias"]
    own = ["conv1.weight", "bn1.weight", "bn1.bias"]
    state = {f"model.{key}": bgr.state_dict()[name] for key, name in zip(keys, own, strict=True)}
    content = {"epoch": 26, "state_dict": state | {"head.kernel": torch.zeros(512, 7)}}
    if with_arguments:
        content["hyper_parameters"] = Argument(arch="ir_18")
    torch.save(content, tmp_path / "adaface_ir50.ckpt")
    line = refused(tmp_path / "adaface_ir50.ckpt")
    assert "are an AdaFace checkpoint, whose network takes BGR images" in line
    assert "docs/config.md does under 'AdaFace'" in line

    section = read("docs/config.md").split("\n### AdaFace\n")[1]
    ((language, code), *_) = blocks(section)
    assert language == "python"
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    turned = read_weights(tmp_path / "adaface_ir50_rgb.pt")
    assert sorted(turned) == sorted(keys)
    rgb = get_model("cvlface_ir18", num_features=512).eval()
    whole = bgr.state_dict() | {name: turned[key] for key, name in zip(keys, own, strict=True)}
    rgb.load_state_dict(whole)
    images = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        found, expected = (nn.functional.normalize(f) for f in (rgb(images), bgr(images.flip(1))))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (found - nn.functional.normalize(rgb(images.flip(1)))).abs().max() > 1e-2


def test_weights_under_such_keys_alone_are_no_adaface(tmp_path):
    """CVLface's IResNets have an input_layer too, and are RGB."""
    state = {"model.input_layer.0.weight": torch.zeros(4, 3, 3, 3)}
    torch.save(state, tmp_path / "model.pt")
    assert list(read_weights(tmp_path / "model.pt")) == list(state)
    with pytest.raises(WeightsError, match="do not fit"):
        load_weights(get_model("r10_narrow", num_features=16), tmp_path / "model.pt")
