"""The last sets and the best are kept, and a run goes on from the last that is whole."""

import dataclasses
import logging
import shutil
from pathlib import Path

import pytest
import torch
from helpers.engine_runs import assert_same_state, small_config
from helpers.processes import as_torchrun, run_ranks

from arcface_cakd.backbones import get_model
from arcface_cakd.distributed import rank
from arcface_cakd.engine import CheckpointError, checkpoint_path, train
from arcface_cakd.engine import loop as loop_module
from arcface_cakd.engine.checkpoint import load_checkpoint
from arcface_cakd.engine.checkpoint_sets import best_folder, former_folder, link_or_copy
from arcface_cakd.engine.interrupts import Interrupts

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module")
def stopped(faces, tmp_path_factory):
    """A run with three sets, of steps 2, 4 and 6, and the same run as it ends."""
    folder = tmp_path_factory.mktemp("stopped")
    config = small_config(
        faces, folder / "run", num_epoch=1, checkpoint_every=2, keep_checkpoints=3
    )
    train(config, stop_after_step=6)
    straight = dataclasses.replace(config, output=str(folder / "straight"), resume=True)
    shutil.copytree(folder / "run", folder / "straight")
    train(straight)
    return config, torch.load(checkpoint_path(straight.output), weights_only=True)


def copied(stopped, folder):
    config, end = stopped
    shutil.copytree(config.output, folder)
    return dataclasses.replace(config, output=str(folder), resume=True), end


def steps(output):
    folders = [Path(output), *sorted((Path(output) / "checkpoints").glob("step_*"))]
    return [torch.load(checkpoint_path(f), weights_only=True)["global_step"] for f in folders]


def test_as_many_stay_as_asked_for(stopped, faces, tmp_path):
    assert steps(stopped[0].output) == [6, 2, 4]
    config = small_config(faces, tmp_path, num_epoch=1, checkpoint_every=2, keep_checkpoints=1)
    train(config, stop_after_step=6)
    assert steps(tmp_path) == [6] and not (tmp_path / "checkpoints").exists()


def truncate(path):
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize("damage", [truncate, Path.unlink])
@pytest.mark.parametrize("depth", [1, 2])
def test_damaged_ones_are_named_and_the_one_before_is_used(
    stopped, tmp_path, caplog, damage, depth
):
    config, end = copied(stopped, tmp_path / "out")
    folders = [Path(config.output), former_folder(config.output, 4)][:depth]
    for folder in folders:
        damage(checkpoint_path(folder))
    with caplog.at_level(logging.WARNING):
        train(config)
    (said,) = [r.getMessage() for r in caplog.records if "going on from" in r.getMessage()]
    assert str(checkpoint_path(config.output)) in said and "\n" not in said
    assert f"going on from step {6 - 2 * depth}, the former checkpoint in" in said
    assert_same_state(end, torch.load(checkpoint_path(config.output), weights_only=True))
    assert steps(config.output) == [9, 6, 8]


def test_all_damaged_is_one_line_that_names_the_newest(stopped, tmp_path):
    config, _ = copied(stopped, tmp_path / "out")
    for path in Path(config.output).rglob("checkpoint_gpu_0.pt"):
        truncate(path)
    with pytest.raises(CheckpointError) as error:
        train(config)
    assert str(checkpoint_path(config.output)) in str(error.value) and "\n" not in str(error.value)


def test_a_fresh_start_leaves_no_former_set_to_resume_from(stopped, tmp_path):
    config, _ = copied(stopped, tmp_path / "out")
    anew = dataclasses.replace(config, resume=False, force=True, checkpoint_every=None)
    train(anew, stop_after_step=1)
    assert not list(Path(config.output).glob("checkpoints/*/checkpoint_gpu_0.pt"))
    assert (Path(config.output) / "checkpoints.old" / "step_4" / "checkpoint_gpu_0.pt").is_file()


def test_sets_of_a_way_that_was_left_go(stopped, tmp_path):
    """Who goes on from an earlier one leaves the later ones, which are of another future."""
    config, _ = copied(stopped, tmp_path / "out")
    shutil.copy(checkpoint_path(former_folder(config.output, 2)), config.output)
    train(dataclasses.replace(config, checkpoint_every=3), stop_after_step=3)
    assert steps(config.output) == [3, 2]


def test_the_best_on_the_first_set_is_kept_with_its_student(faces, tmp_path, monkeypatch):
    found = iter([0.5, 0.7, 0.7, 0.6])
    monkeypatch.setattr(
        loop_module, "validate", lambda *args: {"lfw": (a := next(found)), "other": 1 - a}
    )
    config = small_config(
        faces, tmp_path, num_epoch=1, verbose=2, checkpoint_every=3, val_targets=("lfw",)
    )
    train(config, stop_after_step=8)
    best = torch.load(checkpoint_path(best_folder(tmp_path)), weights_only=True)
    assert best["global_step"] == 4 and steps(tmp_path)[0] == 8
    student = get_model("test_tiny", num_features=16)
    model = torch.load(best_folder(tmp_path) / "model.pt", weights_only=True)
    student.load_state_dict(model)
    assert_same_state(dict(model), dict(best["state_dict_backbone"]))


def test_no_best_where_none_is_wanted(faces, tmp_path):
    settings = dict(num_epoch=1, verbose=2, val_targets=("lfw",))
    for name, own in {
        "none": dict(save_all_states=True, keep_best=False),
        "no checkpoints": dict(keep_best=True),
    }.items():
        train(small_config(faces, tmp_path / name, **settings, **own), stop_after_step=2)
        assert not best_folder(tmp_path / name).exists()


def test_the_clock_asks_for_a_checkpoint(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    interrupts = Interrupts(torch.device("cpu"), minutes=0.5)
    asked = []
    for _ in range(7):
        now[0] += 12
        asked.append(interrupts.agreed().checkpoint)
        if asked[-1]:
            interrupts.saved()
    assert asked == [False, False, True, False, False, True, False]


def test_where_looks_are_rare_a_checkpoint_is_asked_for_once(faces, tmp_path, monkeypatch):
    """As on a GPU: what was heard at one look does not last until the next."""
    monkeypatch.setattr(loop_module, "_LOOKS_ALWAYS", ())
    monkeypatch.setattr(loop_module, "LOOK_EVERY", 3)
    saved, save = [], loop_module.save_checkpoint

    def saving(run, config, position, *args, **kwargs):
        saved.append(position.step)
        save(run, config, position, *args, **kwargs)

    monkeypatch.setattr(loop_module, "save_checkpoint", saving)
    train(
        small_config(
            faces, tmp_path, num_epoch=1, frequent=100, checkpoint_minutes=1e-9, keep_best=False
        )
    )
    assert saved == [3, 6, 9]


def test_a_set_of_a_step_that_is_done_again_is_no_former_one(stopped, tmp_path):
    """It went on from step 4, as that of step 6 had damage that shows in a digest alone."""
    config, end = copied(stopped, tmp_path / "out")
    path = checkpoint_path(config.output)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # a former set may be the same file
    path.write_bytes(content)
    train(dataclasses.replace(config, keep_checkpoints=2), stop_after_step=6)
    assert steps(config.output) == [6, 4]
    truncate(path)
    train(config)
    assert_same_state(end, torch.load(path, weights_only=True))


def test_a_link_replaces_what_stood_there(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    for _ in range(2):  # also where it is the same file already
        link_or_copy(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b").samefile(tmp_path / "a") and len(list(tmp_path.iterdir())) == 2


def torn_in_all_ways(config):
    """On which step the ranks go on, by what was left of the newest set."""
    as_torchrun()
    train(config, stop_after_step=4)
    whole = checkpoint_path(config.output, 1).read_bytes()
    former = checkpoint_path(former_folder(config.output, 2), 1)
    found = []
    for left in (whole, former.read_bytes(), whole[:3000], b""):
        if rank() == 1:
            checkpoint_path(config.output, 1).write_bytes(left)
        torch.distributed.barrier()
        resumed = dataclasses.replace(config, resume=True)
        run = loop_module.build_run(resumed, torch.device("cpu"))
        found.append(load_checkpoint(run, resumed)[0].step)
    return found


def test_ranks_agree_on_a_step(faces, tmp_path):
    """Also after a kill between the two ranks' files."""
    config = small_config(faces, tmp_path / "out", num_epoch=1, checkpoint_every=2)
    assert run_ranks(torn_in_all_ways, 2, tmp_path, config) == [[4, 2, 2, 2]] * 2


@pytest.fixture(params=[0, 1])
def golden_run(request, faces, tmp_path):
    """To be resumed from a checkpoint of ``make_checkpoint.py``, of each format that there was."""
    shutil.copy(GOLDEN / f"checkpoint_{request.param}.pt", checkpoint_path(tmp_path))
    return small_config(
        faces, tmp_path, embedding_size=4, num_epoch=1, save_all_states=True, resume=True
    )


def test_a_stored_checkpoint_is_gone_on_from(golden_run, request, caplog):
    then = torch.load(checkpoint_path(golden_run.output), weights_only=True)
    # Those of before there were formats do not say theirs.
    assert then.get("format", 0) == request.node.callspec.params["golden_run"]
    run = loop_module.build_run(golden_run, torch.device("cpu"))
    with caplog.at_level(logging.WARNING):
        position, meter = load_checkpoint(run, golden_run)
    assert dataclasses.astuple(position) == (0, 6, 6) and meter["count"] == 2
    assert "keep_checkpoints" not in caplog.text  # a setting that came later is no change
    assert_same_state(dict(then["state_dict_backbone"]), dict(run.model.state_dict()))
    assert_same_state(dict(then["state_dict_softmax_fc"]), dict(run.partial_fc.state_dict()))
    assert_same_state(then["state_optimizer"]["state"], run.optimizer.state_dict()["state"])
    assert torch.equal(then["rng"]["torch"], torch.get_rng_state())
    assert train(golden_run).global_step == 9


def test_a_checkpoint_of_a_later_version_is_said_to_be_one(golden_run):
    path = checkpoint_path(golden_run.output)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "format": 99}, path)
    with pytest.raises(CheckpointError, match=r"format 99.* install a newer one") as error:
        train(golden_run)
    assert "\n" not in str(error.value)
