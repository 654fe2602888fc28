"""Weights are read whole and fitting, or not at all; teachers come frozen."""

import errno
import functools
import os
import pickle
import random
import subprocess
import sys
from collections import OrderedDict

import pytest
import torch
from helpers.full_disk import full_disk
from torch import nn

from arcface_cakd import BACKBONES
from arcface_cakd.backbones import (
    FaceBackbone,
    ModelDescription,
    TrainingSet,
    WeightsError,
    build_teacher,
    embedding_size_of,
    get_model,
    load_weights,
    save_model,
    save_weights,
    start_from,
)
from arcface_cakd.backbones.weights import read_weights
from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.registry import SECTIONS, UnknownNameError


def model(seed=0, width=16, name="r10_narrow"):
    torch.manual_seed(seed)
    return get_model(name, num_features=width)


def copied(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def assert_holds(network, expected):
    state = network.state_dict()
    assert state.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(state[key], value), key


@pytest.fixture
def saved(tmp_path):
    save_weights(model(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def refused(network, path):
    """The one line that a refusal says, after checking that the network is untouched."""
    before = copied(network)
    with pytest.raises(WeightsError) as caught:
        load_weights(network, path)
    assert isinstance(caught.value, ArcfaceCakdError)
    assert_holds(network, before)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


class TestSave:
    def test_the_file_is_what_torch_save_of_the_state_dict_gives(self, saved, tmp_path):
        torch.save(model().state_dict(), tmp_path / "plain.pt")
        plain = torch.load(tmp_path / "plain.pt", weights_only=True)
        ours = torch.load(saved, weights_only=True)
        assert type(ours) is OrderedDict
        assert list(ours) == list(plain)
        assert ours._metadata == plain._metadata
        for key, value in plain.items():
            assert torch.equal(ours[key], value)
            assert ours[key].dtype == value.dtype

    def test_memory_format_does_not_reach_the_file(self, tmp_path):
        save_weights(model().to(memory_format=torch.channels_last), tmp_path / "model.pt")
        state = torch.load(tmp_path / "model.pt", weights_only=True)
        assert all(value.is_contiguous() for value in state.values())
        load_weights(network := model(seed=1), tmp_path / "model.pt")
        assert_holds(network, copied(model()))

    def test_a_failed_write_leaves_the_old_file(self, saved, monkeypatch):
        before = saved.read_bytes()

        def broken(state, file):
            file.write(b"half")
            raise OSError(errno.ENOSPC, "disk full")

        monkeypatch.setattr(torch, "save", broken)
        with pytest.raises(WeightsError, match="disk full"):
            save_weights(model(seed=1), saved)
        assert saved.read_bytes() == before
        assert os.listdir(saved.parent) == [saved.name]


class TestLoad:
    @pytest.mark.parametrize("name", ["mbf", "r10_narrow", "swin_mini"])
    def test_round_trip(self, name, tmp_path):
        save_weights(model(name=name), tmp_path / "model.pt")
        load_weights(network := model(seed=1, name=name), tmp_path / "model.pt")
        assert_holds(network, copied(model(name=name)))

    def test_keys_of_a_distributed_run(self, tmp_path):
        torch.save({f"module.{k}": v for k, v in copied(model()).items()}, tmp_path / "ddp.pt")
        load_weights(network := model(seed=1), tmp_path / "ddp.pt")
        assert_holds(network, copied(model()))

    def test_half_precision_is_widened(self, tmp_path):
        state = {k: v.half() if v.is_floating_point() else v for k, v in copied(model()).items()}
        torch.save(state, tmp_path / "half.pt")
        load_weights(network := model(seed=1), tmp_path / "half.pt")
        assert network.fc.weight.dtype is torch.float32
        assert torch.equal(network.fc.weight, model().fc.weight.half().float())

    def test_a_prefix_on_some_keys_only_is_unexpected(self, tmp_path):
        state = copied(model())
        state["module.fc.bias"] = state.pop("fc.bias")
        torch.save(state, tmp_path / "w.pt")
        line = refused(model(), tmp_path / "w.pt")
        assert "1 missing (fc.bias)" in line
        assert "1 unexpected (module.fc.bias)" in line

    def test_missing_and_unexpected_keys_are_named_and_counted(self, saved):
        line = refused(model(name="mbf"), saved)
        here, there = set(copied(model(name="mbf"))), set(copied(model()))
        assert f"{len(here - there)} missing (layers.0.layers.0.weight, " in line
        assert f"{len(there - here)} unexpected (conv1.weight, bn1.weight, bn1.bias, ...)" in line

    def test_shapes_are_named(self, saved):
        line = refused(model(width=8), saved)
        assert "fc.weight (16, 6272) instead of (8, 6272)" in line
        assert "6 of another shape" in line
        assert "missing" not in line

    def test_integers_do_not_pass_for_numbers(self, tmp_path):
        state = copied(model())
        state["fc.bias"] = state["fc.bias"].long()
        torch.save(state, tmp_path / "w.pt")
        assert "1 of another type (fc.bias torch.int64 instead of torch.float32)" in refused(
            model(), tmp_path / "w.pt"
        )

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_values_that_are_not_finite(self, value, tmp_path):
        state = copied(model())
        state["layer2.0.bn1.running_var"][3] = value
        torch.save(state, tmp_path / "w.pt")
        line = refused(model(), tmp_path / "w.pt")
        assert "not finite in 1 keys (layer2.0.bn1.running_var)" in line

    def test_no_such_file(self, tmp_path):
        assert "no such file" in refused(model(), tmp_path / "none.pt")
        assert "no such file" in refused(model(), tmp_path)  # a folder

    def test_a_training_checkpoint_is_no_model(self, tmp_path):
        torch.save({"epoch": 1, "state_dict_backbone": copied(model())}, tmp_path / "w.pt")
        assert "not dense tensors: epoch, state_dict_backbone" in refused(
            model(), tmp_path / "w.pt"
        )

    @pytest.mark.parametrize("content", [[], {}, torch.zeros(3), "text", {1: torch.zeros(2)}])
    def test_no_state_dict(self, content, tmp_path):
        torch.save(content, tmp_path / "w.pt")
        assert "state dict" in refused(model(), tmp_path / "w.pt")

    @pytest.mark.filterwarnings("ignore:Validating sparse tensor")
    def test_a_sparse_tensor(self, tmp_path):
        state = copied(model())
        state["fc.weight"] = state["fc.weight"].to_sparse()
        torch.save(state, tmp_path / "w.pt")
        assert "not dense tensors: fc.weight" in refused(model(), tmp_path / "w.pt")

    def test_code_in_a_file_does_not_run(self, tmp_path):
        class Harmful:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "harm"),)

        (tmp_path / "a.pt").write_bytes(pickle.dumps(Harmful(), protocol=2))
        torch.save({"fc.weight": Harmful()}, tmp_path / "b.pt")
        for name in ("a.pt", "b.pt"):
            refused(model(), tmp_path / name)
        assert not (tmp_path / "harm").exists()

    def test_a_file_that_may_not_be_read_is_not_called_damaged(self, monkeypatch, tmp_path):
        save_weights(nn.Linear(2, 2), tmp_path / "w.pt")

        def refuse(*_, **__):
            raise PermissionError(errno.EACCES, "Permission denied", "w.pt")

        monkeypatch.setattr(torch, "load", refuse)
        assert refused(nn.Linear(2, 2), tmp_path / "w.pt").endswith(
            "cannot be read: Permission denied"
        )

    @pytest.mark.parametrize("zipped", [True, False])
    def test_cut_files(self, zipped, tmp_path):
        small = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
        whole, cut = tmp_path / "whole.pt", tmp_path / "cut.pt"
        torch.save(small.state_dict(), whole, _use_new_zipfile_serialization=zipped)
        load_weights(small, whole)
        data = whole.read_bytes()
        draw = random.Random(0)
        for length in [0, 1, 2, 3, len(data) - 1, *(draw.randrange(len(data)) for _ in range(40))]:
            cut.write_bytes(data[:length])
            assert "cannot be read" in refused(small, cut), length

    def test_foreign_files(self, tmp_path):
        draw = random.Random(1)
        for content in (b"not a model", b"\x80\x02}q\x00.", b"PK\x03\x04", draw.randbytes(999)):
            (tmp_path / "w.pt").write_bytes(content)
            refused(model(), tmp_path / "w.pt")


# On the meta device torch 2.6 cannot import torch._dynamo, and no optimiser can be had thereafter.
FIRST = """
import sys
import torch
from arcface_cakd.backbones import embedding_size_of, get_model

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch._dynamo":
            print(torch.empty(0).device)

sys.meta_path.insert(0, Watch())
embedding_size_of({"w": torch.zeros(1)}, lambda e: get_model("swin_mini", num_features=e))
torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
"""


class TestEmbeddingSize:
    @pytest.mark.parametrize("name", ["mbf", "r10_narrow", "swin_mini", "r18"])
    @pytest.mark.parametrize("width", [1, 3, 256])
    def test_is_read_off_the_weights(self, name, width):
        state = get_model(name, num_features=width).state_dict()
        assert embedding_size_of(state, lambda e: get_model(name, num_features=e)) == width

    def test_is_unknown_for_weights_of_something_else(self):
        state = {"weight": torch.zeros(4, 5)}
        assert embedding_size_of(state, lambda e: get_model("mbf", num_features=e)) is None

    def test_contradicting_shapes_tell_nothing(self):
        state = copied(model(width=16))
        state["fc.bias"] = torch.zeros(17)
        build = lambda e: get_model("r10_narrow", num_features=e)  # noqa: E731
        assert embedding_size_of(state, build) is None

    def test_a_network_that_computes_while_it_is_built(self):
        def build(width):
            layer = nn.Linear(4, width)
            layer.weight.data.mul_(1 / layer.weight.abs().max().item())
            return layer

        assert embedding_size_of(nn.Linear(4, 7).state_dict(), build) == 7

    def test_first_of_all_in_a_process_it_leaves_torch_whole(self):
        run = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert run.stdout == "cpu\n"


class TestTeacher:
    def test_is_frozen_and_in_eval_mode(self, saved):
        teacher = build_teacher(16, network="r10_narrow", weights=str(saved))
        assert isinstance(teacher, FaceBackbone)
        assert not any(module.training for module in teacher.modules())
        assert not any(p.requires_grad for p in teacher.parameters())
        assert_holds(teacher, copied(model()))
        assert not teacher(torch.zeros(1, 3, 112, 112)).requires_grad

    def test_has_the_width_of_its_weights(self, saved):
        assert build_teacher(512, network="r10_narrow", weights=str(saved)).embedding_size == 16

    def test_is_random_only_on_request(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        teachers = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            teachers.append(build_teacher(8, network="r10_narrow", weights="random"))
        first, same, other = (t.fc.weight for t in teachers)
        assert first.shape[0] == 8
        assert torch.equal(first, same)
        assert not torch.equal(first, other)
        assert not any(p.requires_grad for p in teachers[0].parameters())
        for weights in ("Random", "none.pt", "./random"):
            with pytest.raises(WeightsError, match=r"network 'r10_narrow': weights .*no such file"):
                build_teacher(8, network="r10_narrow", weights=weights)

    def test_an_empty_path_is_called_that(self):
        with pytest.raises(WeightsError, match=r"weights '': no path at all; give the model\.pt"):
            build_teacher(8, network="r10_narrow", weights="")
        with pytest.raises(WeightsError, match=r"weights '': no path at all; give the model\.pt"):
            start_from(model(), "")

    def test_leaves_the_random_state_alone(self, saved):
        for weights in (str(saved), "random"):
            torch.manual_seed(5)
            expected = torch.rand(3)
            torch.manual_seed(5)
            build_teacher(16, network="r10_narrow", weights=weights)
            assert torch.equal(torch.rand(3), expected)

    def test_weights_of_another_network_say_which_keys(self, saved):
        with pytest.raises(WeightsError) as caught:
            build_teacher(16, network="swin_mini", weights=str(saved))
        line = str(caught.value)
        assert "\n" not in line
        assert line.startswith("cakd.teacher, network 'swin_mini': ")
        assert "missing (" in line
        assert "unexpected (conv1.weight" in line

    def test_an_unknown_network(self, saved):
        with pytest.raises(UnknownNameError, match="did you mean 'swin_mini'"):
            build_teacher(16, network="swin_mimi", weights=str(saved))
        with pytest.raises(UnknownNameError, match="did you mean 'swin_mini'"):
            build_teacher(16, network="swin_mimi", weights="random")

    def test_its_settings_are_those_of_the_config(self):
        assert SECTIONS.get("teacher") is build_teacher
        given = {"network": "swin_s", "weights": "model.pt"}
        assert check_settings(build_teacher, given, "cakd.teacher") == {
            **given,
            "stage": None,
            "centers": None,
            "min_accuracy": None,
            "cache": None,
            "cached_views": None,
            "bf16": False,
            "pixels": None,
        }
        for share in (-0.1, 98.3, True):
            with pytest.raises(ConfigError, match=r"cakd\.teacher\.min_accuracy"):
                check_settings(build_teacher, {**given, "min_accuracy": share}, "cakd.teacher")
        with pytest.raises(WeightsError, match=r"cakd\.teacher lacks 'weights'.*'random'"):
            build_teacher(8, **check_settings(build_teacher, {"network": "mbf"}, "cakd.teacher"))

    def test_a_registered_network_may_be_the_teacher(self, monkeypatch, tmp_path):
        BACKBONES.names()
        monkeypatch.setitem(BACKBONES._components, "mine", BACKBONES.get("r10_narrow"))
        save_weights(model(width=4), tmp_path / "model.pt")
        teacher = build_teacher(512, network="mine", weights=str(tmp_path / "model.pt"))
        assert teacher.embedding_size == 4


def test_read_weights_gives_a_plain_dict(saved):
    state = read_weights(saved)
    assert type(state) is dict
    assert state.keys() == model().state_dict().keys()


def test_a_full_disk_leaves_the_former_weights_and_what_they_are_of(tmp_path):
    described = ModelDescription("mbf", 4, TrainingSet("faces", 2, 1))
    save_model(torch.nn.Linear(2, 2), tmp_path / "model.pt", described)
    former = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert former.keys() == {"model.pt", "model.json"}
    larger = torch.nn.Linear(100, 100)
    for save in (save_weights, functools.partial(save_model, description=described)):
        cannot = r"model\.pt cannot be written \(File too large\): free space"
        with full_disk(20_000), pytest.raises(WeightsError, match=cannot):
            save(larger, tmp_path / "model.pt")
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == former
