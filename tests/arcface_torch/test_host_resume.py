"""In the real arcface_torch, a distillation stopped and resumed equals a straight one."""

import pytest
import torch
from helpers.host import differences

from arcface_cakd.backbones import get_model

SAMPLING = {"sample_rate": 0.5, "num_classes": 40}
CASES = {
    "1 process": {"processes": 1},
    "2 processes": {"processes": 2},
    "1 process, sampling": {"processes": 1, **SAMPLING},
    "2 processes, sampling": {"processes": 2, **SAMPLING},
    # 7 steps an epoch: the stop falls between two micro-steps.
    "accumulating": {"processes": 1, "gradient_acc": 2},
}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.replace(", ", "-"))
def runs(request, distil):
    return distil(**CASES[request.param])


def test_steps_are_those_of_a_straight_run(runs):
    for rank, record in enumerate(runs.straight.records):
        first, second = runs.first.records[rank], runs.resumed.records[rank]
        assert len(first["losses"]) == len(second["losses"]) == 7
        assert record["losses"] == first["losses"] + second["losses"]
        assert record["labels"] == first["labels"] + second["labels"]


def test_files_are_those_of_a_straight_run_to_the_bit(runs):
    assert not differences(runs.resumed.load("model.pt"), runs.straight.load("model.pt"))
    for rank in range(len(runs.straight.records)):
        straight, resumed = runs.straight.checkpoint(rank), runs.resumed.checkpoint(rank)
        assert not differences(resumed, straight)
        assert straight["epoch"] == 2
        assert differences(straight, runs.first.checkpoint(rank))


def test_an_unfinished_step_is_kept(distil):
    kept = distil(**CASES["accumulating"]).first.checkpoint()["cakd"]["gradients"]
    assert any(gradient is not None and gradient.any() for gradient in kept)
    assert distil(**CASES["1 process"]).first.checkpoint()["cakd"]["gradients"] is None


def test_another_teacher_ends_the_run_in_one_line(host, distil, tmp_path):
    torch.manual_seed(8)
    other = tmp_path / "model.pt"
    torch.save(get_model("swin_mini", num_features=64).state_dict(), other)
    run = host.train(
        "another_teacher",
        check=False,
        output=distil(**CASES["1 process"]).first.output,
        resume=True,
        num_epoch=2,
        cakd={"teacher": {"network": "swin_mini", "weights": other}, "prompts": {}},
    )
    lines = [line for line in run.err.splitlines() if line.startswith("arcface-cakd: error: ")]
    assert run.code == 1 and len(lines) == 1 and "teacher had other weights" in lines[0]
    assert "Traceback" not in run.err and not run.records[0]["losses"]


def test_the_scaler_goes_on_where_it_was(host, few_records, teacher):
    settings = {
        "network": "swin_mini",  # an IResNet's float16 convolutions take the CPU seconds
        "rec": few_records,
        "batch_size": 4,
        "num_image": 12,
        "num_epoch": 2,
        "fp16": True,
        "cakd": {"teacher": {"network": "swin_mini", "weights": teacher}, "prompts": {}},
    }
    env = {"CPU_SCALER": "1"}
    run = host.train("scaler", env={**env, "STOP_BEFORE_EPOCH": "1"}, **settings)
    path = run.output / "checkpoint_gpu_0.pt"
    kept = run.checkpoint()
    assert kept["cakd"]["scaler"]["growth_interval"] == 100
    # A scale that nothing in these steps would arrive at.
    kept["cakd"]["scaler"].update(scale=48.0, _growth_tracker=7)
    torch.save(kept, path)
    run = host.train("scaler", env=env, resume=True, **settings)
    scaler = run.checkpoint()["cakd"]["scaler"]
    assert (scaler["scale"], scaler["_growth_tracker"]) == (48.0, 10)
