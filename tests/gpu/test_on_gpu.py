"""What runs on a GPU gives what it gives on the CPU; skipped where there is no GPU."""

import collections
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.engine_runs import (
    assert_same_state,
    make_faces,
    save_teacher,
    small_cakd,
    small_config,
)
from helpers.host import PACKAGE, free_port

from arcface_cakd.backbones import get_model
from arcface_cakd.engine import train
from arcface_cakd.evaluation import embed
from arcface_cakd.partial_fc import CombinedMarginLoss, PartialFC
from arcface_cakd.prompting import AdaptablePrompts

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def exact_products(monkeypatch):
    """float32 as the CPU has it: no TF32, and algorithms that give the same each time."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return make_faces(tmp_path_factory.mktemp("gpu") / "faces")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    save_teacher(path, seed=5)
    return {"network": "swin_mini", "weights": str(path)}


def losses(result) -> list[float]:
    return [line["loss"] for line in result.history if "loss" in line]


def on_cpu(monkeypatch, config):
    """The same run as if there were no GPU."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "device_count", lambda: 0)
        return train(config)


@pytest.mark.parametrize("method", ["plain", "whole"])
def test_a_run_in_float32_is_that_of_the_cpu(tmp_path, faces, teacher, method, monkeypatch):
    settings = {} if method == "plain" else {"cakd": small_cakd(teacher=teacher)}
    settings |= {"lr": 0.01, "clip_grad_norm": 5.0, "frequent": 1}
    there = train(small_config(faces, tmp_path / "gpu", **settings))
    here = on_cpu(monkeypatch, small_config(faces, tmp_path / "cpu", **settings))
    assert len(losses(here)) == len(losses(there)) == 18
    np.testing.assert_allclose(losses(there), losses(here), rtol=2e-3)
    np.testing.assert_allclose(losses(there)[:3], losses(here)[:3], rtol=2e-5)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("method", ["plain", "whole"])
def test_half_precision_stays_near_float32(tmp_path, faces, teacher, method, precision):
    settings = {} if method == "plain" else {"cakd": small_cakd(teacher=teacher)}
    settings |= {"lr": 0.01, "frequent": 1}
    full = losses(train(small_config(faces, tmp_path / "full", **settings)))
    result = train(small_config(faces, tmp_path / "half", **settings, **{precision: True}))
    half = losses(result)
    np.testing.assert_allclose(half[0], full[0], rtol=0.02)
    assert all(math.isfinite(value) for value in half)
    if precision == "bf16":
        np.testing.assert_allclose(half[:4], full[:4], rtol=0.05)
    else:  # its first steps overflow, are left out, and halve the scale
        scales = [line["grad_scale"] for line in result.history if "loss" in line]
        assert 1 <= scales[-1] <= scales[0]
        assert half[-1] < half[0]


@pytest.mark.parametrize("more", [{}, {"fp16": True}, {"optimizer": "adamw", "lr": 1e-3}])
def test_a_run_that_was_stopped_goes_on_as_one_that_was_not(tmp_path, faces, teacher, more):
    settings = dict(cakd=small_cakd(teacher=teacher), network="test_tiny_dropout", frequent=1)
    settings |= more
    settings["checkpoint_every"] = 7
    straight = train(small_config(faces, tmp_path / "straight", **settings))
    parts = small_config(faces, tmp_path / "parts", **settings)
    train(parts, stop_after_step=7)
    resumed = train(small_config(faces, tmp_path / "parts", **settings, resume=True))
    np.testing.assert_allclose(losses(resumed)[-11:], losses(straight)[-11:], rtol=1e-3)
    one, other = (
        torch.load(tmp_path / name / "model.pt", map_location="cpu", weights_only=True)
        for name in ("straight", "parts")
    )
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key].float(), other[key].float(), rtol=1e-2, atol=1e-3)


def test_the_random_state_of_the_gpu_is_kept(tmp_path, faces):
    settings = dict(network="test_tiny_dropout", frequent=1, checkpoint_every=9)
    train(small_config(faces, tmp_path, **settings), stop_after_step=9)
    before = torch.cuda.get_rng_state(GPU)
    torch.cuda.manual_seed(99)
    train(small_config(faces, tmp_path, **settings, resume=True), stop_after_step=9)
    assert_same_state(before, torch.cuda.get_rng_state(GPU))


@pytest.mark.parametrize("num_classes", [50, 20_000])
def test_partial_fc_gives_the_gradients_of_the_cpu(num_classes):
    grads = []
    for device in (torch.device("cpu"), GPU):
        layer = PartialFC(CombinedMarginLoss(32.0, 1.0, 0.0, 0.2), 64, num_classes, seed=3)
        layer = layer.to(device).train()
        generator = torch.Generator().manual_seed(1)
        features = torch.randn(24, 64, generator=generator).to(device).requires_grad_()
        labels = torch.randint(num_classes, (24,), generator=generator).to(device)
        loss = layer(features, labels)
        loss.backward()
        grads.append([loss, features.grad, layer.weight.grad])
    for here, there in zip(*grads, strict=True):
        near = 1e-5 * float(here.detach().abs().max())
        torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=near)


def test_the_prompted_teacher_is_that_of_the_cpu():
    teacher = get_model("swin_mini", num_features=16).eval().requires_grad_(False)
    prompts = AdaptablePrompts(teacher, num_tokens=3)
    images = torch.randn(4, 3, 112, 112)
    found = []
    for device in (torch.device("cpu"), GPU):
        prompts.zero_grad()
        features = prompts.to(device)(teacher.to(device), images.to(device))
        (features.embedding.sum() + features.prompts.pow(2).sum()).backward()
        gradients = [p.grad.cpu().clone() for p in prompts.parameters()]
        found.append([features.embedding.cpu(), features.prompts.cpu(), *gradients])
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-4)


def test_a_run_from_the_cache_is_one_without(tmp_path, faces, teacher):
    entry = dict(prompts=None, teacher=teacher)
    plain = train(
        small_config(faces, tmp_path / "without", lr=0.01, frequent=1, cakd=small_cakd(**entry))
    )
    entry["teacher"] = teacher | {"cache": str(tmp_path / "cache")}
    cached = train(
        small_config(faces, tmp_path / "with", lr=0.01, frequent=1, cakd=small_cakd(**entry))
    )
    np.testing.assert_allclose(losses(cached), losses(plain), rtol=5e-3)


def test_embeddings_are_those_of_the_cpu():
    network = get_model("r10_narrow", num_features=32).eval()
    images = np.random.default_rng(0).integers(256, size=(9, 112, 112, 3), dtype=np.uint8)
    here = embed(network, images)
    there = embed(network.to(GPU), images)
    np.testing.assert_allclose(there, here, rtol=1e-3, atol=1e-4)


RANK = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from helpers.engine_runs import small_cakd, small_config
from arcface_cakd.engine import train
settings = json.loads(sys.argv[4])
teacher = settings.pop("teacher")
result = train(small_config(Path(sys.argv[2]), Path(sys.argv[3]), **settings,
                            cakd=small_cakd(teacher=teacher)))
import torch.distributed as dist
print(json.dumps([dist.get_backend(), [l["loss"] for l in result.history if "loss" in l]]))
"""


@pytest.mark.parametrize("precision", [{}, {"fp16": True}])
def test_under_torchrun_with_nccl_it_is_the_run_of_one_process(tmp_path, faces, teacher, precision):
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    settings = {"lr": 0.01, "frequent": 1, **precision}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=1"]
    command += [
        f"--master_port={free_port()}",
        str(script),
        str(Path(__file__).parents[1]),
        str(faces),
    ]
    command += [str(tmp_path / "ranks"), json.dumps(settings | {"teacher": teacher})]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(PACKAGE), *sys.path])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    backend, found = json.loads(done.stdout.strip().splitlines()[-1])
    assert backend == "nccl"
    straight = train(
        small_config(faces, tmp_path / "one", cakd=small_cakd(teacher=teacher), **settings)
    )
    np.testing.assert_allclose(found, losses(straight), rtol=2e-2)


def test_no_step_waits_for_the_gpu_but_where_it_looks(tmp_path, faces, teacher):
    """Between the steps at which signals and losses are looked at nothing synchronises."""
    config = small_config(faces, tmp_path, cakd=small_cakd(teacher=teacher), frequent=100)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning) as said:
            result = train(config)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    ours = str(PACKAGE / "arcface_cakd")  # torch itself waits where weights are moved, once each
    waits = collections.Counter(
        f"{w.filename}:{w.lineno}"
        for w in said
        if "synchroniz" in str(w.message) and w.filename.startswith(ours)
    )
    assert all(count < result.global_step for count in waits.values()), waits
