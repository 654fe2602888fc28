"""The steps and loops that are timed are those of the built-in loop and of arcface_torch."""

import functools
import os
from pathlib import Path

import pytest
import torch

from arcface_cakd.bench import Report, step
from arcface_cakd.bench.faces import distilling_config, make_faces, random_weights, train_config
from arcface_cakd.bench.loops import compare_with_arcface_torch
from arcface_cakd.bench.step import FLOORS, METHODS, Steps, _with_bf16, measure_step
from arcface_cakd.config import ConfigError
from arcface_cakd.engine.loop import train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return make_faces(tmp_path_factory.mktemp("bench"), 2)


def weights_of(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_step_is_the_loops_to_the_bit(faces, tmp_path):
    config = train_config(
        faces, "r10_narrow", 2, num_epoch=1, val_targets=(), output=str(tmp_path / "run")
    )
    steps = Steps(config, CPU)
    steps.without()
    train(config)
    trained = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    for name, value in steps.run.student.state_dict().items():
        assert torch.equal(value, trained[name]), name


def test_a_step_from_the_cache_is_one_that_runs_no_teacher(faces, tmp_path):
    weights = random_weights(tmp_path, "swin_mini")
    entry = {"prompts": None, "urfm": None, "losses": [{"name": "embedding_cosine"}]}
    config = distilling_config(faces, "r10_narrow", 2, "swin_mini", weights, **entry)
    steps = Steps(config, CPU)
    ran = []
    steps.run.model.teacher.register_forward_hook(lambda *_: ran.append("forward"))
    forward_features = steps.run.model.teacher.forward_features
    steps.run.model.teacher.forward_features = lambda *args, **kwargs: (
        ran.append("features"),
        forward_features(*args, **kwargs),
    )[1]
    before = weights_of(steps.run.student)
    steps.with_cache()
    assert not ran
    assert not torch.equal(before, weights_of(steps.run.student))
    steps.without()
    assert ran


def test_each_method_has_what_its_name_says(faces, tmp_path):
    weights = random_weights(tmp_path, "swin_mini")
    for method, entry in METHODS.items():
        config = distilling_config(faces, "r10_narrow", 2, "swin_mini", weights, **entry)
        on = {part for part in ("urfm", "prompts", "preservation") if getattr(config.cakd, part)}
        assert ("urfm" in on) == ("URFM" in method)
        assert on - {"urfm"} == ({"prompts", "preservation"} if "prompts" in method else set())


def test_a_teacher_in_bf16_stands_beside_a_student_in_float32(faces, tmp_path):
    weights = random_weights(tmp_path, "swin_mini")
    entry = METHODS["embedding"]
    config = _with_bf16(distilling_config(faces, "r10_narrow", 2, "swin_mini", weights, **entry))
    model = Steps(config, torch.device("cpu")).run.model
    assert (model.student.amp_dtype, model.teacher.amp_dtype) == (None, torch.bfloat16)
    with pytest.raises(ConfigError, match="measure the same twice"):
        measure_step(Report("", {}), "mbf", "swin_t", precision="bf16", teacher_bf16=True)


def test_every_floor_is_of_sides_that_were_timed(monkeypatch):
    at_once = functools.partial(step.take_turns, warm_up=0)
    monkeypatch.setattr(step, "take_turns", at_once)
    report = Report("", {})
    measure_step(report, "r10_narrow", "swin_mini", batch_size=2, rounds=1, teacher_bf16=True)
    assert all(part in report.seconds for parts in FLOORS.values() for part in parts)
    assert {f"{method}, teacher in bf16" for method in METHODS} <= report.seconds.keys()
    both = report.ratios["URFM, teacher in bf16 / URFM"].median
    assert both == report.seconds["URFM, teacher in bf16"][0] / report.seconds["URFM"][0]
    took = report.seconds["URFM, teacher in bf16"][0]
    floor = sum(report.seconds[part][0] for part in FLOORS["URFM"])
    name = "URFM, teacher in bf16 / (plain step + teacher's forward)"
    assert report.ratios[name].median == took / floor
    assert all(len(rounds) == 1 and rounds[0] > 0 for rounds in report.seconds.values())
    took = report.seconds["URFM and prompts"][0]
    floor = sum(report.seconds[part][0] for part in FLOORS["URFM and prompts"])
    name = "URFM and prompts / (plain step + prompted forward and backward)"
    assert report.ratios[name].median == took / floor


@pytest.mark.skipif("ARCFACE_TORCH" not in os.environ, reason="no checkout of arcface_torch")
def test_arcface_torchs_own_loop_takes_turns_with_ours():
    checkout = Path(os.environ["ARCFACE_TORCH"])
    before = {path: path.stat().st_mtime_ns for path in checkout.rglob("*.py")}
    report = Report("", {})
    compare_with_arcface_torch(report, checkout, "mbf", batch_size=2, rounds=1)
    assert len(report.ratios["arcface_torch's loop / built-in loop"].rounds) == 1
    assert {path: path.stat().st_mtime_ns for path in checkout.rglob("*.py")} == before
    assert not torch.distributed.is_initialized()
