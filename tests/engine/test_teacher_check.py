"""The teacher is looked at before the first step, and nothing moves for it."""

import copy
import dataclasses
import logging
import shutil

import numpy as np
import pytest
import torch
from helpers.engine_runs import save_teacher, small_cakd, small_config
from helpers.processes import as_torchrun, run_ranks

from arcface_cakd.backbones import get_model, save_weights
from arcface_cakd.config import ConfigError
from arcface_cakd.data import DataError, read_bin
from arcface_cakd.distributed import DistributedError, rank
from arcface_cakd.engine import TeacherError, check_teacher, loop, train
from arcface_cakd.engine.builders import build_model


def config_of(faces, output, network="test_tiny", weights="random", prompts=None, **teacher):
    teacher = dict(network=network, weights=str(weights), **teacher)
    cakd = small_cakd(teacher=teacher, prompts=prompts)
    return small_config(faces, output, cakd=cakd, val_targets=("cfp_fp", "lfw"))


def checked(config, **sets):
    distiller = build_model(config, num_classes=6).train()
    return distiller, check_teacher(distiller, config.rec, config.val_targets, **sets)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A teacher with BatchNorm statistics that are not those of a fresh one."""
    torch.manual_seed(2)
    teacher = get_model("test_tiny", num_features=16)
    for _ in range(3):
        teacher.train()(torch.rand(8, 3, 112, 112) * 2 - 1)
    path = tmp_path_factory.mktemp("teacher") / "model.pt"
    save_weights(teacher, path)
    return path


def reference_accuracy(network, faces):
    """LFW's protocol on images one by one, in numpy: ten folds, in order, of nearly one size."""
    pairs = read_bin(faces / "lfw.bin")
    units = []
    with torch.no_grad():
        for image in pairs.images:
            pixels = torch.from_numpy(image.transpose(2, 0, 1)[None] / 127.5 - 1).float()
            both = network.eval()(pixels) + network(pixels.flip(3))
            units.append((both / both.norm()).double().numpy()[0])
    distances = np.array(
        [((a - b) ** 2).sum() for a, b in zip(units[::2], units[1::2], strict=True)]
    )
    said_same = distances < np.arange(0, 4, 0.01)[:, None]
    right = said_same == pairs.issame
    accuracies = []
    for fold in np.array_split(np.arange(len(distances)), 10):
        best = np.delete(right, fold, axis=1).mean(axis=1).argmax()
        accuracies.append(right[best, fold].mean())
    return np.mean(accuracies)


@pytest.mark.parametrize("network, prompts", [("test_tiny", None), ("swin_mini", {})])
def test_the_log_says_the_unprompted_teachers_accuracy(faces, tmp_path, caplog, network, prompts):
    torch.manual_seed(4)
    teacher = get_model(network, num_features=16)
    save_weights(teacher, tmp_path / "model.pt")
    config = config_of(faces, tmp_path, network, tmp_path / "model.pt", prompts)
    with caplog.at_level(logging.INFO, "arcface_cakd"):
        _, accuracy = checked(config)
    assert accuracy == pytest.approx(reference_accuracy(teacher, faces))
    assert caplog.messages == [f"teacher: lfw {100 * accuracy:.2f} %"]


def test_a_teacher_below_the_bar_stops_before_anything_is_written(faces, tmp_path, weights):
    _, accuracy = checked(config_of(faces, tmp_path, weights=weights))
    assert 0 < accuracy < 1
    checked(config_of(faces, tmp_path, weights=weights, min_accuracy=accuracy))
    output = tmp_path / "out"
    config = config_of(faces, output, weights=weights, min_accuracy=accuracy + 0.001)
    with pytest.raises(TeacherError) as error:
        train(config)
    line = str(error.value)
    assert "\n" not in line and str(weights) in line and f"{accuracy:.4f} on lfw" in line
    assert f"cakd.teacher.min_accuracy {accuracy + 0.001:g}" in line
    assert not output.exists()


def test_random_weights_are_named_and_fall_short(faces, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "arcface_cakd"), pytest.raises(TeacherError):
        checked(config_of(faces, tmp_path, "swin_mini", min_accuracy=1.0))
    assert caplog.messages[0].endswith("of random weights: it has learned nothing")


def test_a_teacher_that_gives_no_numbers_is_refused(faces, tmp_path):
    config = config_of(faces, tmp_path)
    distiller = build_model(config, num_classes=6)
    distiller.teacher.fc.weight.data.fill_(float("nan"))
    with pytest.raises(TeacherError, match=r"'test_tiny' on lfw: 24 of 24 .* not finite"):
        check_teacher(distiller, config.rec, config.val_targets)


def test_the_first_set_that_is_there_is_taken(faces, tmp_path, caplog):
    folder = shutil.copytree(faces, tmp_path / "faces")
    shutil.copy(folder / "lfw.bin", folder / "agedb_30.bin")
    config = config_of(folder, tmp_path)
    config.val_targets = ("cfp_fp", "agedb_30", "lfw")
    with caplog.at_level(logging.INFO, "arcface_cakd"):
        checked(config)
        read = read_bin(folder / "lfw.bin")
        checked(config, sets={"lfw": read, "cfp_fp": read})
    assert [m.split()[1] for m in caplog.messages] == ["agedb_30", "cfp_fp"]
    (folder / "agedb_30.bin").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"agedb_30\.bin"):
        checked(config)


def test_without_a_set_only_a_bar_is_an_error(faces, tmp_path, caplog):
    config = config_of(tmp_path / "none", tmp_path)
    with caplog.at_level(logging.INFO, "arcface_cakd"):
        assert checked(config)[1] is None
    assert not caplog.messages
    for targets, said in ((("lfw", "x"), "lfw.bin, x.bin"), ((), "val_targets is empty")):
        config = config_of(tmp_path / "none", tmp_path, min_accuracy=0.5)
        config.val_targets = targets
        with pytest.raises(ConfigError, match=r"min_accuracy is 0\.5, but there is no") as error:
            checked(config)
        assert said in str(error.value) and "\n" not in str(error.value)


def test_nothing_moves(faces, tmp_path, weights):
    config = config_of(faces, tmp_path, weights=weights)
    distiller = build_model(config, num_classes=6).train()
    before = copy.deepcopy((distiller.state_dict(), distiller.teacher.state_dict()))
    modes = [m.training for m in distiller.modules()]
    random_state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()
    check_teacher(distiller, config.rec, config.val_targets)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    for was, network in zip(before, (distiller, distiller.teacher), strict=True):
        for key, value in network.state_dict().items():
            assert torch.equal(value, was[key]), key
    assert [m.training for m in distiller.modules()] == modes
    assert not distiller.teacher.training
    assert all(p.grad is None and not p.requires_grad for p in distiller.teacher.parameters())


def test_the_loop_looks_before_its_first_step_and_not_after_its_last(faces, tmp_path, monkeypatch):
    calls = []

    def look(distiller, rec, names, sets):
        calls.append((distiller.losses.steps_done, rec, names, list(sets)))

    monkeypatch.setattr(loop, "check_teacher", look)
    config = config_of(faces, tmp_path / "out")
    config = dataclasses.replace(config, num_epoch=1, save_all_states=True)
    once = (str(faces), ("cfp_fp", "lfw"), ["lfw"])
    train(config, stop_after_step=3)
    assert calls == [(0, *once)]
    resumed = dataclasses.replace(config, resume=True)
    train(resumed)
    assert calls == [(0, *once), (3, *once)]
    train(resumed)
    assert len(calls) == 2
    train(small_config(faces, tmp_path / "plain", num_epoch=1), stop_after_step=1)
    assert len(calls) == 2


def refused_on_ranks(config):
    as_torchrun()
    with pytest.raises((TeacherError, DistributedError)) as error:
        train(config)
    return rank(), type(error.value).__name__, str(error.value)


def test_all_ranks_stop_together(faces, tmp_path):
    config = config_of(faces, tmp_path / "out", min_accuracy=1.0)
    first, second = run_ranks(refused_on_ranks, 2, tmp_path, config)
    assert first[:2] == (0, "TeacherError") and "below cakd.teacher.min_accuracy 1" in first[2]
    assert second == (1, "DistributedError", f"rank 0: {first[2]}")
    assert not (tmp_path / "out").exists()


def trained_on_a_disk_of_its_own(config, folder):
    as_torchrun()
    teacher = dict(network="swin_mini", weights=str(folder / f"{rank()}.pt"))
    config = dataclasses.replace(config, cakd=small_cakd(teacher=teacher))
    with pytest.raises(TeacherError) as error:
        train(config)
    return str(error.value)


def test_ranks_whose_teachers_files_differ_stop_before_the_first_step(faces, tmp_path):
    for number in (0, 1):
        save_teacher(tmp_path / f"{number}.pt", seed=number)
    config = small_config(faces, tmp_path / "out", save_all_states=True)
    messages = run_ranks(trained_on_a_disk_of_its_own, 2, tmp_path, config, tmp_path)
    assert messages[0] == messages[1] and "weights on rank 1 are not rank 0's" in messages[0]
    assert not (tmp_path / "out").exists()
