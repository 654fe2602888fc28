import dataclasses
import hashlib
import json
import logging
import random
import shutil

import numpy as np
import pytest
import torch
from helpers.engine_runs import TinyFace, made_face, png, small_cakd, small_config
from torch.nn.functional import cross_entropy, normalize, one_hot

import arcface_cakd
from arcface_cakd.backbones import get_model, load_weights
from arcface_cakd.config import ConfigError
from arcface_cakd.data import read_bin, write_bin
from arcface_cakd.engine import DivergenceError, train, validate, validation_sets
from arcface_cakd.engine.builders import Run, build_run
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.evaluation import EvaluationError, embed, verification_metrics

CPU = torch.device("cpu")


@pytest.mark.parametrize("cakd", [None, "whole"])
def test_model_pt_is_a_plain_student(faces, tmp_path, cakd):
    config = small_config(faces, tmp_path, num_epoch=1, cakd=cakd and small_cakd())
    train(config)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    plain = get_model("test_tiny", num_features=16).state_dict()
    assert {k: (v.shape, v.dtype) for k, v in state.items()} == {
        k: (v.shape, v.dtype) for k, v in plain.items()
    }
    assert list(state) == list(plain) and state._metadata == plain._metadata
    assert any(not torch.equal(state[k], plain[k]) for k in plain)


@pytest.mark.parametrize(
    ("cakd", "classes"),
    [(None, 6), ({}, 6), ({"margin_weight": 0}, None)],
    ids=["plain", "cakd", "no labels"],
)
def test_equal_runs_leave_equal_files(faces, tmp_path, cakd, classes):
    cakd = None if cakd is None else small_cakd(**cakd)
    for name in ("one", "other"):
        settings = dict(num_epoch=1, save_all_states=True, cakd=cakd)
        train(small_config(faces, tmp_path / name, **settings))
    for name in ("model.pt", "model.json", "checkpoint_gpu_0.pt"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    said = json.loads((tmp_path / "one" / "model.json").read_text())
    assert said == {
        "format": 1,
        "network": "test_tiny",
        "embedding_size": 16,
        "training_set": {"name": "faces", "images": 36, "classes": classes},
        "arcface_cakd": arcface_cakd.__version__,
        "sha256": hashlib.sha256((tmp_path / "one" / "model.pt").read_bytes()).hexdigest(),
    }


def test_learns_faces_that_can_be_told_apart(faces, tmp_path):
    result = train(small_config(faces, tmp_path, num_epoch=4, val_targets=("lfw",)))
    losses = [line["loss"] for line in result.history if "loss" in line]
    assert losses[-1] < 0.3 * losses[0]
    assert result.metrics["lfw"] > 0.8


def test_records_every_log_step_and_validation(faces, tmp_path):
    config = small_config(faces, tmp_path, frequent=4, verbose=6, val_targets=("lfw",))
    result = train(config)
    lines = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == result.history
    assert [line["step"] for line in lines if "loss" in line] == [4, 8, 12, 16, 18]
    assert [line["step"] for line in lines if "validation" in line] == [6, 12, 18]
    assert result.metrics == lines[-1]["validation"] and result.global_step == 18
    assert [line["epoch"] for line in lines if "loss" in line] == [0, 0, 1, 1, 1]
    assert list((tmp_path / "tensorboard").iterdir())
    assert not list(tmp_path.glob("checkpoint*"))  # nobody asked for one


def test_distillation_logs_terms_gradient_norms_and_diagnostics(faces, tmp_path):
    config = small_config(faces, tmp_path, num_epoch=1, frequent=4, cakd=small_cakd())
    line = train(config, stop_after_step=4).history[-1]
    names = {"embedding_cosine", "urfm_feature", "urfm_attention", "anchoring", "preservation"}
    assert line["terms"].keys() == names
    assert line["loss"] == pytest.approx(line["margin"] + sum(line["terms"].values()))
    assert line["gradient_norms"].keys() == names | {"margin"}
    assert line["gradient_norms"]["embedding_cosine"] > 0
    assert line["diagnostics"].keys() == {
        "teacher_rank",
        "attended_rank",
        "constant_feature",
        "feature_ratio",
        "lookup_variation",
        "prompted_cosine",
        "prompt_norm",
    }


def test_the_margin_weight_scales_the_margin_loss(faces, tmp_path):
    losses = []
    for weight in (1.0, 0.25):
        config = small_config(faces, tmp_path, cakd=small_cakd(margin_weight=weight))
        run = build_run(config, CPU)
        losses.append(run.terms(*next(iter(run.loader)))["margin"].item())
    assert losses[1] == pytest.approx(0.25 * losses[0])


def test_a_weight_that_changes_over_the_run_goes_by_its_length(faces, tmp_path):
    losses = [{"name": "embedding_cosine", "schedule": {"kind": "decay"}}]
    entry = small_cakd(losses=losses, urfm=None, anchoring=None, prompts=None, preservation=None)
    config = small_config(faces, tmp_path, cakd=entry, num_epoch=3)
    run = build_run(config, CPU)
    steps = 3 * len(run.loader)
    images, labels = next(iter(run.loader))
    found = []
    for done in (0, 1, steps // 2, steps):
        run.model.losses.steps_done = done
        found.append(run.terms(images, labels)["embedding_cosine"].item() / (1 - done / steps or 1))
    assert found[0] > 0 and found[3] == 0
    assert found[1:3] == pytest.approx([found[0]] * 2, rel=1e-5)


def test_accumulation_sums_gradients_and_schedules_by_micro_steps(faces, tmp_path):
    config = small_config(
        faces,
        tmp_path,
        gradient_acc=3,
        momentum=0.0,
        weight_decay=0.0,
        clip_grad_norm=None,
        num_epoch=1,
        save_all_states=True,
    )
    run = build_run(config, CPU)
    student = TinyFace(16, dropout=0.0)
    student.load_state_dict(run.student.state_dict())
    centers = run.partial_fc.weight.detach().clone().requires_grad_()
    batches = iter(run.loader)
    for _ in range(3):
        images, labels = next(batches)
        cosines = normalize(student(images)) @ normalize(centers).T
        cross_entropy(16 * (cosines - 0.2 * one_hot(labels, 6)), labels).backward()

    train(config, stop_after_step=2)
    state = torch.load(tmp_path / "checkpoint_gpu_0.pt", weights_only=True)
    assert torch.equal(state["state_dict_backbone"]["fc.weight"], student.fc.weight)  # not yet
    train(dataclasses.replace(config, resume=True), stop_after_step=3)
    state = torch.load(tmp_path / "checkpoint_gpu_0.pt", weights_only=True)
    rate = 0.05 * (1 - 2 / 9)  # two micro-steps of nine are done
    for name, parameter in student.named_parameters():
        expected = parameter.detach() - rate * parameter.grad
        torch.testing.assert_close(
            state["state_dict_backbone"][name], expected, rtol=1e-4, atol=1e-5
        )
    torch.testing.assert_close(
        state["state_dict_softmax_fc"]["weight"],
        centers.detach() - rate * centers.grad,
        rtol=1e-4,
        atol=1e-5,
    )


def nan_in_step(monkeypatch, number, name):
    plain, calls = Run.terms, []

    def terms(self, images, labels):
        calls.append(1)
        own = torch.tensor(float("nan") if len(calls) == number else 0.5)
        return {**plain(self, images, labels), name: own}

    monkeypatch.setattr(Run, "terms", terms)


def test_a_nan_stops_before_the_optimiser_and_saves_nothing(faces, tmp_path, monkeypatch):
    nan_in_step(monkeypatch, 3, "urfm_feature")
    seen = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: (seen.append(1), step(self)))
    config = small_config(faces, tmp_path, checkpoint_every=4, verbose=4, val_targets=("lfw",))
    with pytest.raises(DivergenceError, match="step 3: not finite: urfm_feature;") as error:
        train(config)
    assert "lower lr (now 0.05)" in str(error.value) and "\n" not in str(error.value)
    assert len(seen) == 2
    assert not list(tmp_path.glob("*.pt")) and not list(tmp_path.glob(".*"))


def test_a_gradient_that_is_not_finite_stops_before_the_optimiser(faces, tmp_path, monkeypatch):
    plain = Run.terms

    def terms(self, images, labels):
        # The square root's value at 0 is finite, its slope is not.
        return {**plain(self, images, labels), "root": (self.student.fc.bias * 0).sum().sqrt()}

    monkeypatch.setattr(Run, "terms", terms)
    with pytest.raises(DivergenceError, match="step 1: not finite: gradient of the student;"):
        train(small_config(faces, tmp_path, save_all_states=True))


def test_a_rate_that_is_absurd_diverges_in_one_line(faces, tmp_path):
    config = small_config(faces, tmp_path, lr=1e38, clip_grad_norm=None, save_all_states=True)
    with pytest.raises(DivergenceError, match=r"margin.*clip_grad_norm"):
        train(config)
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize(
    "settings, said",
    [
        (dict(num_classes=5), "num_classes"),
        (dict(batch_size=37), "batch"),
        (dict(fp16=True), "bf16=True"),
        (dict(network="test_tinny"), "test_tiny"),
        (dict(rec="nowhere"), "nowhere"),
        (dict(sample_rate=1.0, resume=True), "no checkpoint"),
    ],
)
def test_a_config_that_does_not_fit_writes_nothing(faces, tmp_path, settings, said):
    output = tmp_path / "out"
    config = dataclasses.replace(small_config(faces, output), **settings)
    with pytest.raises(ArcfaceCakdError, match=said) as error:
        train(config)
    assert "\n" not in str(error.value) and not output.exists()


def test_missing_teacher_weights_stop_before_anything_is_written(faces, tmp_path):
    teacher = dict(network="swin_mini", weights=str(tmp_path / "none.pt"))
    config = small_config(faces, tmp_path / "out", cakd=small_cakd(teacher=teacher))
    with pytest.raises(ArcfaceCakdError, match=r"none\.pt") as error:
        train(config)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_a_schedule_for_another_number_of_images_is_said(faces, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "arcface_cakd"):
        run = build_run(small_config(faces, tmp_path, num_image=80), CPU)
    assert run.schedule.total_steps == 2 * (80 // 4)
    assert "num_image 80" in caplog.text


def test_precision_of_the_config_reaches_the_networks(faces, tmp_path):
    assert build_run(small_config(faces, tmp_path), CPU).model.amp_dtype is None
    config = small_config(faces, tmp_path, bf16=True, cakd=small_cakd())
    run = build_run(config, CPU)
    assert run.student.amp_dtype == run.model.teacher.amp_dtype == torch.bfloat16
    result = train(dataclasses.replace(config, frequent=1), stop_after_step=3)
    assert all(torch.isfinite(torch.tensor(line["loss"])) for line in result.history)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_optimiser_groups(faces, tmp_path, optimizer):
    cakd = small_cakd(
        lr_scale=dict(prompts=0.5, urfm=2.0), weight_decay=dict(prompts=0.0, urfm=0.01)
    )
    config = small_config(faces, tmp_path, optimizer=optimizer, weight_decay=0.1, cakd=cakd)
    run = build_run(config, CPU)
    groups = run.optimizer.param_groups
    rows = [(g["name"], g["lr"], g["weight_decay"]) for g in groups]
    assert rows == [
        ("student", 0.05, 0.1),
        ("prompts", 0.025, 0.0),
        ("urfm", 0.1, 0.01),
        ("partial_fc", 0.05, 0.1),
    ]
    grouped = [id(p) for g in groups for p in g["params"]]
    learned = [id(p) for m in (run.model, run.partial_fc) for p in m.parameters()]
    assert sorted(grouped) == sorted(learned)
    assert not any(p.requires_grad for p in run.model.teacher.parameters())
    assert type(run.optimizer).__name__.lower() == optimizer


def test_plain_and_distilled_students_start_alike(faces, tmp_path):
    plain = build_run(small_config(faces, tmp_path), CPU)
    distilled = build_run(small_config(faces, tmp_path, cakd=small_cakd()), CPU)
    other = build_run(small_config(faces, tmp_path, seed=4), CPU)
    for name, tensor in plain.student.state_dict().items():
        assert torch.equal(tensor, distilled.student.state_dict()[name])
    assert torch.equal(plain.partial_fc.weight, distilled.partial_fc.weight)
    assert not torch.equal(plain.student.fc.weight, other.student.fc.weight)
    assert not torch.equal(plain.partial_fc.weight, other.partial_fc.weight)


def test_validation_is_the_ten_fold_accuracy_and_leaves_the_modes(faces, tmp_path):
    train(small_config(faces, tmp_path, num_epoch=1))
    student = get_model("test_tiny", num_features=16)
    load_weights(student, tmp_path / "model.pt")
    student.train()
    student.norm.eval()
    pairs = read_bin(faces / "lfw.bin")
    expected = verification_metrics(embed(student, pairs.images), pairs.issame).accuracy
    statistics = student.features.running_mean.clone()
    assert validate(student, {"lfw": pairs}) == {"lfw": expected}
    assert student.training and student.features.training and not student.norm.training
    assert torch.equal(statistics, student.features.running_mean)


def test_sets_that_are_missing_are_named_once(faces, caplog):
    with caplog.at_level(logging.WARNING, "arcface_cakd"):
        sets = validation_sets(str(faces), ("cfp_fp", "lfw", "agedb_30"))
    assert list(sets) == ["lfw"]
    (record,) = caplog.records
    assert "cfp_fp.bin, agedb_30.bin" in record.getMessage()


def test_a_set_that_cannot_be_judged_stops_the_run_before_it_starts(faces, tmp_path):
    shutil.copytree(faces, tmp_path / "faces")
    pairs = [png(made_face(number, 0)) for number in range(8)]
    write_bin(tmp_path / "faces" / "lfw.bin", pairs, [True, False] * 2)
    config = small_config(tmp_path / "faces", tmp_path / "out", val_targets=("lfw",))
    with pytest.raises(EvaluationError, match=r"lfw\.bin: 4 pairs do not make 10 folds"):
        train(config)
    assert not (tmp_path / "out").exists()


def test_the_seed_reaches_every_generator(faces, tmp_path):
    """A checkpoint holds their states, and a component of the user's may draw from them."""
    drawn = []
    for seed in (3, 3, 4):
        random.seed()
        np.random.seed()
        build_run(small_config(faces, tmp_path, seed=seed), CPU)
        drawn.append((float(torch.rand(())), random.random(), np.random.rand()))
    assert drawn[0] == drawn[1]
    assert all(same != other for same, other in zip(drawn[0], drawn[2], strict=True))


def test_num_classes_error_is_a_config_error(faces, tmp_path):
    with pytest.raises(ArcfaceCakdError):
        build_run(small_config(faces, tmp_path, num_classes=5), CPU)
    assert build_run(small_config(faces, tmp_path, num_classes=9), CPU).num_classes == 9
    with pytest.raises(ConfigError, match="fp16"):
        build_run(small_config(faces, tmp_path, fp16=True), CPU)
