"""What the real arcface_torch, patched, says and does about a teacher before its first step."""

import math
import re

import pytest
import torch
from helpers.host import side_by_side

from arcface_cakd.backbones import get_model, load_weights
from arcface_cakd.data import decode_image, read_bin
from arcface_cakd.data.loader import open_images
from arcface_cakd.evaluation import embed, verification_metrics
from arcface_cakd.export import export_model

NETWORK = "swin_mini"


def cakd_of(**teacher):
    return {"teacher": {"network": NETWORK, **teacher}}


@pytest.fixture(scope="module")
def exported(tmp_path_factory, teacher):
    path = tmp_path_factory.mktemp("host_onnx") / "teacher.onnx"
    network = get_model(NETWORK, num_features=64)
    load_weights(network, teacher)
    export_model(network, path)
    return path, network.eval()


def accuracy_of(network, records):
    pairs = read_bin(records / "lfw.bin")
    return verification_metrics(embed(network, pairs.images), pairs.issame).accuracy


def test_its_accuracy_is_logged_and_the_run_is_the_same_to_the_bit(
    host, teacher, records, exported
):
    settings = {"cakd": cakd_of(weights=teacher), "verbose": 1000}
    looked, straight = side_by_side(
        lambda: host.train("looked", val_targets=["cfp_fp", "lfw"], **settings),
        lambda: host.train("straight", val_targets=[], **settings),
    )
    (said,) = re.findall(r"teacher: (\w+) ([\d.]+) %(.*)", looked.log)
    accuracy = accuracy_of(exported[1], records)
    assert said == ("lfw", f"{100 * accuracy:.2f}", "")
    assert "teacher: " not in straight.log
    assert looked.losses == straight.losses and len(looked.losses) == 7


@pytest.mark.parametrize("processes", [1, 2])
def test_one_that_falls_short_ends_every_rank_before_the_first_step(
    host, teacher, tmp_path, processes
):
    state = torch.load(teacher)
    for key in state:
        if key.startswith("feature.") and key.endswith("weight"):
            state[key] = torch.zeros_like(state[key])  # one embedding for all faces
        elif key.startswith("feature.") and key.endswith("bias"):
            state[key] = torch.ones_like(state[key])
    torch.save(state, tmp_path / "model.pt")
    run = host.train(
        f"short_{processes}",
        processes=processes,
        batch_size=8 // processes,
        val_targets=["lfw"],
        check=False,
        cakd=cakd_of(weights=tmp_path / "model.pt", min_accuracy=0.9),
    )
    assert run.code == 1
    # torchrun's report says what each process said once more, in lines of its own.
    (line,) = [line for line in run.err.splitlines() if line.startswith("arcface-cakd: error:")]
    assert "accuracy of 0.5000 on lfw, below cakd.teacher.min_accuracy 0.9" in line
    assert "Traceback" not in run.err.split("torch/distributed")[0]
    assert not (run.output / "model.pt").exists()
    assert not list(run.output.glob("checkpoint_gpu_*.pt"))


def test_an_onnx_file_teaches(host, records, exported):
    path, network = exported
    cakd = {"teacher": {"network": f"onnx:{path}"}, "prompts": None, "urfm": None}
    run = host.train("onnx", val_targets=["lfw"], cakd=cakd)
    assert len(run.losses) == 7 and all(map(math.isfinite, run.losses))
    assert f"teacher: lfw {100 * accuracy_of(network, records):.2f} %" in run.log
    assert "embedding_cosine" in run.log and "urfm" not in run.log.split("teacher: ")[1]


def test_a_network_starts_from_weights_for_other_patches(host, tmp_path):
    other = get_model(NETWORK, num_features=64).trunk.state_dict()
    patches = other["patch_embed.proj.weight"]
    other["patch_embed.proj.weight"] = torch.nn.functional.avg_pool2d(patches, 2)
    torch.save({"state_dict": other}, tmp_path / "imagenet.pt")
    run = host.train(
        "started", network=NETWORK, lr=0.0, init_weights=tmp_path / "imagenet.pt", weight_decay=0.0
    )
    assert "1 keys of the trunk renamed or resampled" in run.log
    model = run.load("model.pt")
    for key, value in other.items():
        assert key.startswith("patch_embed.proj.w") or torch.equal(model[f"trunk.{key}"], value)


def test_class_centres_from_the_data_and_the_same_after_a_resume(host, teacher, records, exported):
    losses = [{"name": "kd", "weight": 1.0}]
    cakd = {"teacher": {"network": NETWORK, "weights": teacher, "centers": "from_data"}}
    cakd |= {"prompts": None, "urfm": None, "losses": losses}
    run = host.train("means", save_all_states=True, num_epoch=1, cakd=cakd)
    assert "class centres are the means of its embeddings, of 56 images of 8 classes" in run.log
    assert "kd " in run.log and all(map(math.isfinite, run.losses))
    centers = run.load("teacher_centers.pt")["centers"]
    images = open_images(records)
    sums = torch.zeros(8, 64, dtype=torch.float64)
    with torch.no_grad():
        for position in range(len(images)):
            encoded, label = images.encoded(position)
            pixels = torch.from_numpy(decode_image(encoded).transpose(2, 0, 1)[None] / 127.5 - 1)
            embedding = exported[1](pixels.float())[0].double()
            sums[label] += embedding / embedding.norm()
    expected = sums / sums.norm(dim=1, keepdim=True)
    torch.testing.assert_close(centers.double(), expected, rtol=0, atol=1e-5)
    resumed = host.train(
        "means", save_all_states=True, num_epoch=2, resume=True, cakd=cakd, output=run.output
    )
    assert "class centres of " in resumed.log and "as the run started with them" in resumed.log
    assert torch.equal(resumed.load("teacher_centers.pt")["centers"], centers)


def test_class_centres_from_no_data_are_refused_in_one_line(host, teacher):
    cakd = {"teacher": {"network": NETWORK, "weights": teacher, "centers": "from_data"}}
    cakd |= {"prompts": None, "urfm": None, "losses": [{"name": "kd"}]}
    run = host.train(
        "synthetic",
        rec="synthetic",
        num_classes=8,
        num_image=56,
        val_targets=[],
        check=False,
        cakd=cakd,
    )
    assert run.code == 1
    (line,) = [line for line in run.err.splitlines() if "arcface-cakd: error:" in line]
    assert "centers='from_data' needs a training set, and config.rec is 'synthetic'" in line
