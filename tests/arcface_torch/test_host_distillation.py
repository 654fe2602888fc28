"""The real arcface_torch, patched, distils a config with ``cakd``."""

import hashlib
import json
import math
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from helpers.host import RUNNER, differences, side_by_side
from helpers.ijbc import wanted_scores
from helpers.record_sets import jpeg, pixels

from arcface_cakd.backbones import get_model
from arcface_cakd.config import CakdConfig, TrainConfig
from arcface_cakd.engine.builders import build_run

BUFFERS = re.compile(r"running_mean|running_var|num_batches_tracked")
TERMS = ["embedding_cosine", "urfm_feature", "urfm_attention", "anchoring", "preservation"]


@pytest.fixture(scope="module", params=[1, 2], ids=["1 process", "2 processes"])
def run(request, distil):
    """14 steps of r10_narrow from swin_mini with prompts, all else as it is by default."""
    return distil(request.param).straight


def test_losses_are_the_margin_and_every_term(run):
    for record in run.records:
        assert len(record["losses"]) == 14
        for loss, margin, terms in zip(
            record["losses"], record["margins"], record["terms"], strict=True
        ):
            assert list(terms) == TERMS
            assert math.isfinite(loss)
            assert loss == pytest.approx(margin + sum(terms.values()), rel=1e-5)


def test_student_prompts_and_urfm_move(run):
    before = run.records[0]["first"]["state"]
    after = run.checkpoint()["state_dict_backbone"]
    assert before.keys() == after.keys()
    for part in ("student.", "prompts.", "urfm.", "anchoring."):
        names = [name for name in after if name.startswith(part) and not BUFFERS.search(name)]
        moved = [name for name in names if not torch.equal(before[name], after[name])]
        assert moved, part
        if part == "student.":
            assert set(names) - set(moved) <= {"student.features.weight"}  # fixed in the host too


def test_the_teacher_does_not_move_and_is_not_saved(run, teacher):
    weights = torch.load(teacher, weights_only=True)
    for record in run.records:
        assert not differences(dict(record["teacher"]), dict(weights))
    assert not any("trunk" in name for name in run.checkpoint()["state_dict_backbone"])
    assert not any("trunk" in name for name in run.load("model.pt"))


def test_optimizer_groups_end_with_partial_fc(run):
    checkpoint = run.checkpoint()
    groups = checkpoint["state_optimizer"]["param_groups"]
    assert [group.get("name") for group in groups[:-1]] == ["student", "prompts", "urfm"]
    state = checkpoint["state_optimizer"]["state"]
    centers = groups[-1]["params"]
    assert [state[i]["momentum_buffer"].shape for i in centers] == [
        checkpoint["state_dict_softmax_fc"]["weight"].shape
    ]
    assert [group["weight_decay"] for group in groups] == [5e-4, 0.0, 5e-4, 5e-4]
    # Every parameter is in one group.
    indices = [i for group in groups for i in group["params"]]
    assert indices == list(range(len(indices)))


def test_model_is_the_student_of_the_checkpoint(run):
    student = {
        name.removeprefix("student."): value
        for name, value in run.checkpoint()["state_dict_backbone"].items()
        if name.startswith("student.")
    }
    assert not differences(dict(run.load("model.pt")), student)


def test_ranks_agree_to_the_bit(distil):
    run = distil(2).straight
    one, two = (
        {name: value for name, value in run.checkpoint(rank)["state_dict_backbone"].items()}
        for rank in (0, 1)
    )
    different = differences(one, two)
    assert [name for name in different if not BUFFERS.search(name)] == []
    assert different, "every rank has its own BatchNorm statistics"
    first = [record["first"]["state"] for record in run.records]
    assert not differences(*first)
    # Of the optimizer too: all but the last group, each rank's own class centres.
    states = [run.checkpoint(rank)["state_optimizer"]["state"] for rank in (0, 1)]
    assert not differences(*({i: s[i] for i in list(s)[:-1]} for s in states))


def test_gradients_are_exchanged_in_float32(distil):
    run = distil(1, gradient_acc=2).first  # stopped between two micro-steps
    gradients = [g for g in run.checkpoint()["cakd"]["gradients"][:-1] if g is not None]
    assert len(gradients) > 50
    assert not any(torch.equal(g, g.half().float()) for g in gradients if g.numel() > 100)


@pytest.fixture(scope="module")
def mbf_and_plain(host, few_records):
    """3 steps of the host's own mbf, embedding 512 as its scripts expect, and without ``cakd``."""
    settings = {
        "network": "mbf",
        "rec": few_records,
        "num_classes": 3,
        "num_image": 12,
        "batch_size": 4,
        "embedding_size": 512,
    }
    entry = {"teacher": {"network": "swin_mini", "weights": "random"}, "prompts": {}}
    return side_by_side(
        lambda: host.train("mbf", cakd=entry, **settings),
        lambda: host.train("mbf_plain", **settings),
    )


@pytest.fixture(scope="module")
def mbf(mbf_and_plain):
    return mbf_and_plain[0]


def test_student_and_centers_start_as_without_cakd(mbf_and_plain):
    distilled, plain = (run.records[0] for run in mbf_and_plain)
    assert distilled["labels"] == plain["labels"]
    assert torch.equal(distilled["first"]["centers"], plain["first"]["centers"])
    assert distilled["margins"][0] == pytest.approx(plain["margins"][0], rel=1e-5)


@pytest.mark.parametrize("network", ["r10_narrow", "mbf"])
def test_the_built_in_loop_computes_the_same_first_step(
    network, distil, mbf, records, teacher, tmp_path
):
    run = mbf if network == "mbf" else distil(1).straight
    first = run.records[0]["first"]
    told = {"network": "swin_mini", "weights": "random" if network == "mbf" else str(teacher)}
    config = TrainConfig(
        rec=str(records),
        output=str(tmp_path),
        network=network,
        embedding_size=first["centers"].shape[1],
        num_classes=8,
        batch_size=8,
        num_workers=0,
        cakd=CakdConfig.from_entry({"teacher": told, "prompts": {}}),
    )
    built = build_run(config, torch.device("cpu"))
    built.model.load_state_dict(first["state"])
    built.model.teacher.load_state_dict(run.records[0]["teacher"])
    with torch.no_grad():
        built.partial_fc.weight = torch.nn.Parameter(first["centers"])
    torch.set_rng_state(first["random"])  # anchoring draws
    terms = built.terms(first["images"], first["labels"])
    expected = {"margin": run.records[0]["margins"][0], **run.records[0]["terms"][0]}
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        expected, rel=1e-5, abs=1e-5
    )
    assert sum(terms.values()).item() == pytest.approx(run.losses[0], rel=1e-5)


def test_model_is_the_hosts_own_in_all_but_values(mbf, host, tmp_path):
    plain = tmp_path / "plain.pt"
    host.script(
        "-c",
        "import torch; from backbones import get_model; "
        f"torch.save(get_model('mbf', fp16=False, num_features=512).state_dict(), {str(plain)!r})",
    )
    expected, model = torch.load(plain, weights_only=True), mbf.load("model.pt")
    assert list(model) == list(expected)
    assert [value.shape for value in model.values()] == [v.shape for v in expected.values()]
    assert [value.dtype for value in model.values()] == [v.dtype for v in expected.values()]
    assert model._metadata == expected._metadata
    said = json.loads((mbf.output / "model.json").read_text())
    assert (said["network"], said["embedding_size"]) == ("mbf", 512)
    assert said["sha256"] == hashlib.sha256((mbf.output / "model.pt").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def student(mbf):
    """The distilled mbf, in this process."""
    network = get_model("mbf", num_features=512)
    network.load_state_dict(mbf.load("model.pt"))
    return network.eval()


@torch.no_grad()
def test_inference_takes_the_model(mbf, host, student, tmp_path):
    image = tmp_path / "face.jpg"
    image.write_bytes(jpeg(3))
    script = ["inference.py", "--network", "mbf", "--weight", mbf.output / "model.pt"]
    printed = host.script(*script, "--img", image).out
    embedding = np.array(printed.replace("[", " ").replace("]", " ").split(), dtype=np.float32)
    face = torch.from_numpy(pixels(jpeg(3))).permute(2, 0, 1)[None] / 127.5 - 1
    assert embedding == pytest.approx(student(face).numpy()[0], abs=1e-3)


@torch.no_grad()
def test_torch2onnx_takes_the_model(mbf, host, student, tmp_path):
    path = Path(tmp_path, "student.onnx")
    host.script("torch2onnx.py", mbf.output / "model.pt", "--network", "mbf", "--output", path)
    session = onnxruntime.InferenceSession(path)
    for batch in (1, 4):
        faces = torch.rand(batch, 3, 112, 112) * 2 - 1
        (embeddings,) = session.run(None, {session.get_inputs()[0].name: faces.numpy()})
        assert embeddings == pytest.approx(student(faces).numpy(), abs=1e-4)


def test_ijbc_takes_the_model(mbf, host, student, ijbc, tmp_path):
    command = [RUNNER, "--model-prefix", mbf.output / "model.pt", "--network", "mbf"]
    command += ["--image-path", ijbc, "--result-dir", tmp_path, "--batch-size", 4]
    host.script(*command, SCRIPT="eval_ijbc.py")
    scores = np.load(tmp_path / "insightface" / "ijbc.npy")
    np.testing.assert_allclose(scores, wanted_scores(student), atol=1e-5)
