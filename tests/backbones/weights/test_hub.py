"""Weights by ``hf:<owner>/<name>``: huggingface_hub itself, against a Hub on this machine."""

import io
import logging

import pytest
import torch
from helpers.fake_hub import COMMIT, FakeHub
from safetensors.torch import save

from arcface_cakd.backbones import WeightsError, build_teacher, get_model, load_weights, start_from
from arcface_cakd.backbones.weights import read_weights
from arcface_cakd.distiller import Distiller

CARD = "---\nlicense: {}\n---\n# A face model\n"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    served = FakeHub(monkeypatch, tmp_path / "cache")
    yield served
    served.close()


def network(seed=0):
    torch.manual_seed(seed)
    return get_model("r10_narrow", num_features=12).eval()


def pt(model):
    stream = io.BytesIO()
    torch.save(model.state_dict(), stream)
    return stream.getvalue()


def same(state, model):
    own = model.state_dict()
    return state.keys() == own.keys() and all(torch.equal(state[k], own[k]) for k in own)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "pretrained_model/model.pt", "model.pt", "pytorch_model.bin"]
)
def test_the_file_of_a_model_is_found(hub, name):
    content = save(network().state_dict()) if name.endswith("tensors") else pt(network())
    hub.models["a/face"] = {name: content, "README.md": b"", "other.pt": b"not this one"}
    assert same(read_weights("hf:a/face"), network())


def test_the_first_of_several(hub):
    hub.models["a/face"] = {"model.pt": pt(network(1)), "pytorch_model.bin": pt(network(2))}
    assert same(read_weights("hf:a/face"), network(1))
    hub.models["a/face"]["model.safetensors"] = save(network(3).state_dict())
    assert same(read_weights("hf:a/face"), network(3))
    assert "pytorch_model.bin" not in hub.sent


def test_a_file_and_a_revision_may_be_named(hub):
    hub.models["a/face"] = {"model.pt": pt(network(1)), "deep/er/S_x.pt": pt(network(2))}
    for source in ("hf:a/face/deep/er/S_x.pt", f"hf:a/face/deep/er/S_x.pt@{COMMIT}"):
        assert same(read_weights(source), network(2))
    assert same(read_weights("hf:a/face@v2"), network(1))


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (CARD.format("cc-by-nc-4.0"), "licence cc-by-nc-4.0, by its model card"),
        (CARD.format("other\nlicense_name: mine"), "licence other (mine), by its model card"),
        (CARD.format("[mit, apache-2.0]"), "licence mit, apache-2.0, by its model card"),
        ("---\ntags: [face]\n---\n", "its model card names no licence"),
        ("# Only words\n", "its model card names no licence"),
        ("---\n: : [\n---\n", "its model card names no licence"),
        (None, "without a model card, and so without a named licence"),
    ],
)
def test_the_log_names_the_licence(hub, card, said, caplog):
    hub.models["a/face"] = {"model.pt": pt(network())}
    if card is not None:
        hub.models["a/face"]["README.md"] = card.encode()
    with caplog.at_level(logging.INFO, logger="arcface_cakd"):
        read_weights("hf:a/face")
    lines = [r.getMessage() for r in caplog.records if r.name == "arcface_cakd"]
    assert lines == [f"weights hf:a/face: {said}"]


def test_without_a_connection_the_cache_serves_or_one_line_says_what_to_do(hub, caplog, tmp_path):
    card = CARD.format("mit").encode()
    hub.models["a/face"] = {"model.pt": pt(network()), "README.md": card}
    read_weights("hf:a/face")
    hub.close()
    with caplog.at_level(logging.INFO, logger="arcface_cakd"):
        assert same(read_weights("hf:a/face"), network())
    assert "licence mit, by its model card; the cache's copy" in caplog.text
    said = r"hf:a/other: the Hub is out of reach \(.*run `hf download a/other` .* give the path"
    with pytest.raises(WeightsError, match=said) as error:
        read_weights("hf:a/other")
    assert "\n" not in str(error.value)
    # What it says works.
    (tmp_path / "m.pt").write_bytes(pt(network()))
    assert same(read_weights(tmp_path / "m.pt"), network())


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("hf:a/none", r"hf:a/none: the Hub has no public model 'a/none': check owner and name"),
        ("hf:a/face@v9", r"'a/face' has no revision 'v9': give a branch, tag or commit"),
        ("hf:a/face", r"has no model.safetensors or .*, but odd.pt: name .*: hf:a/face/odd.pt"),
        ("hf:a/face/b.pt", r"that model has no b.pt, but odd.pt: name one .*: hf:a/face/odd.pt"),
        ("hf:a/words", r"has no model.safetensors or .*bin: take another model"),
        ("hf:a/shut/m.pt", r"owner grants access by request: ask .*/a/shut, then run `hf auth"),
        ("hf:a", r"'hf:a' name no model on the Hub: write hf:<owner>/<name>, hf:"),
        ("hf:", r"'hf:' name no model on the Hub"),
        ("hf:a--b/..c", r"cannot be had from the Hub \(HFValidationError: .*give its path"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(hub, source, said):
    hub.models["a/face"] = {"odd.pt": b"", "README.md": b""}
    hub.models["a/words"] = {"README.md": b""}
    hub.models["a/shut"] = {"m.pt": b""}
    hub.gated = "a/shut"
    with pytest.raises(WeightsError, match=said) as error:
        build_teacher(12, network="r10_narrow", weights=source)
    assert "\n" not in str(error.value) and "'r10_narrow'" in str(error.value)


def test_settings_that_say_bgr_are_seen(hub):
    for folder in ("", "pretrained_model/"):
        hub.models["a/face"] = {
            "pretrained_model/model.pt": pt(network()),
            f"{folder}model.yaml": b"color_space: BGR\n",
        }
        hub.models[f"a/face{len(folder)}"] = hub.models["a/face"]
        with pytest.raises(WeightsError, match="takes BGR images, and ours are RGB"):
            read_weights(f"hf:a/face{len(folder)}")


def test_it_stands_wherever_weights_do(hub):
    hub.models["a/face"] = {"model.pt": pt(network(4))}
    teacher = build_teacher(99, network="r10_narrow", weights="hf:a/face")
    assert teacher.embedding_size == 12 and same(teacher.state_dict(), network(4))
    for load in (load_weights, start_from):
        student = network(5)
        load(student, "hf:a/face")
        assert same(student.state_dict(), network(4))
    entry = {"teacher": {"network": "r10_narrow", "weights": "hf:a/face"}, "prompts": None}
    student = network(5)
    Distiller(student, teacher, {**entry, "urfm": None, "student_weights": "hf:a/face"})
    assert same(student.state_dict(), network(4))
