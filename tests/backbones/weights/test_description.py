"""``model.json`` says what a ``model.pt`` is of, and nothing of another one."""

import hashlib
import json
import os
import socket
import zipfile

import pytest
import torch

import arcface_cakd
from arcface_cakd.backbones import (
    ModelDescription,
    TrainingSet,
    WeightsError,
    build_teacher,
    get_model,
    load_weights,
    read_description,
    save_model,
    save_weights,
    start_from,
)
from arcface_cakd.backbones.weights import read_weights
from arcface_cakd.distiller import Distiller
from arcface_cakd.registry import BACKBONES

OF = ModelDescription("r10_narrow", 8, TrainingSet("faces", 36, None))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return get_model("r10_narrow", num_features=8)


@pytest.fixture
def path(network, tmp_path):
    save_model(network, tmp_path / "model.pt", OF)
    return tmp_path / "model.pt"


def change(path, **values):
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: v for key, v in content.items() if v is not None}))


def test_it_says_what_was_given_and_the_digest_of_the_bytes(path):
    assert json.loads(path.with_name("model.json").read_text()) == {
        "format": 1,
        "network": "r10_narrow",
        "embedding_size": 8,
        "training_set": {"name": "faces", "images": 36, "classes": None},
        "arcface_cakd": arcface_cakd.__version__,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert read_description(path) == OF


def test_a_training_set_is_named_by_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {folder: TrainingSet.at(folder, 1, 1).name for folder in ("/a/b", "/a/b/", ".", "c/..")}
    assert names == {"/a/b": "b", "/a/b/": "b", ".": tmp_path.name, "c/..": tmp_path.name}


def test_equal_weights_give_equal_bytes_that_name_no_machine(network, path, tmp_path):
    save_weights(network, tmp_path / "deep" / "other.pt")
    content = (tmp_path / "deep" / "other.pt").read_bytes()
    assert content == path.read_bytes()
    assert f"{socket.gethostname()}-{os.getpid()}".encode() not in content
    assert {name.split("/")[0] for name in zipfile.ZipFile(path).namelist()} == {"archive"}
    # Nothing of the host's is lost by it.
    loaded = torch.load(path, weights_only=True)
    assert loaded._metadata == network.state_dict()._metadata
    assert list(loaded) == list(network.state_dict())


@pytest.mark.parametrize("damage", ["a byte", "other weights"])
def test_weights_that_it_is_not_of_are_refused_wherever_they_are_read(network, path, damage):
    if damage == "a byte":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        torch.manual_seed(1)
        save_weights(get_model("r10_narrow", num_features=8), path)
    readers = (
        read_weights,
        lambda path: load_weights(network, path),
        lambda path: start_from(network, str(path)),
        lambda path: build_teacher(8, network="r10_narrow", weights=str(path)),
    )
    for read in readers:
        with pytest.raises(WeightsError, match=r"model\.json is of .*remove model\.json") as error:
            read(path)
        assert "\n" not in str(error.value)
    path.with_name("model.json").unlink()
    assert damage == "a byte" or read_weights(path)


def test_a_copy_by_another_name_takes_it_along(path, tmp_path):
    for suffix in ("pt", "json"):
        path.with_suffix(f".{suffix}").rename(tmp_path / f"teacher.{suffix}")
    assert read_description(tmp_path / "teacher.pt") == OF
    assert read_description(tmp_path / "model.pt") is None


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"sets": {}}', '{"sha256": "0"}'])
def test_a_json_file_of_the_user_says_nothing(path, content):
    path.with_name("model.json").write_text(content)
    assert read_description(path) is None
    assert read_weights(path)


@pytest.mark.parametrize("source", ["", ".", "/", "timm:resnet50", "hf:owner/name"])
def test_what_is_no_file_has_none(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_description(source) is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"format": 2, "arcface_cakd": "9.0"}, r"format 2.*install the one that wrote it \(9\.0\)"),
        ({"embedding_size": None}, "damaged"),
        ({"embedding_size": "8"}, "damaged"),
        ({"network": 8}, "damaged"),
        ({"training_set": {"name": "faces"}}, "damaged"),
    ],
)
def test_one_that_cannot_be_understood_is_refused(path, values, said):
    change(path.with_name("model.json"), **values)
    for read in (read_description, read_weights):
        with pytest.raises(WeightsError, match=said) as error:
            read(path)
        assert "\n" not in str(error.value)


def test_a_teacher_of_another_network_is_refused_and_the_advice_works(path):
    with pytest.raises(WeightsError, match="set the network to 'r10_narrow'"):
        build_teacher(8, network="r10", weights=str(path))
    assert build_teacher(512, network="r10_narrow", weights=str(path)).embedding_size == 8


def test_weights_that_do_not_fit_are_named_with_what_they_are_of(path):
    other = get_model("r10_narrow", num_features=4)
    for read in (load_weights, start_from):
        with pytest.raises(WeightsError, match="of network 'r10_narrow', embedding_size 8"):
            read(other, str(path))


def test_weights_of_another_network_are_refused_wherever_they_start_one(path):
    """Those of ``r10_narrow`` fit ``r10_mini``, whose strides are others."""
    network = get_model("r10_mini", num_features=8)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    entry = {
        "teacher": {"network": "swin_mini", "weights": "random"},
        "losses": [{"name": "embedding_cosine"}],
        "student_weights": str(path),
    }
    for use in (
        lambda: load_weights(network, path),
        lambda: start_from(network, str(path)),
        lambda: build_teacher(8, network="r10_mini", weights=str(path)),
        lambda: Distiller(network, get_model("swin_mini", num_features=8), entry),
    ):
        with pytest.raises(
            WeightsError, match=r"are of 'r10_narrow', as model\.json .*'r10_mini'"
        ) as e:
            use()
        assert "\n" not in str(e.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    path.rename(path.with_name("copy.pt"))  # the advice
    load_weights(network, path.with_name("copy.pt"))


def test_another_name_of_the_same_network_is_none(path, network, monkeypatch):
    monkeypatch.setitem(BACKBONES._components, "alias", BACKBONES.get("r10_narrow"))
    start_from(get_model("alias", num_features=8), str(path))
    build_teacher(8, network="alias", weights=str(path))
    change(path.with_name("model.json"), network="of nobody")
    with pytest.raises(WeightsError, match="are of 'of nobody'"):
        start_from(get_model("alias", num_features=8), str(path))
