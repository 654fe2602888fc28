"""A run that was stopped and resumed equals a straight one, to the bit."""

import dataclasses

import pytest
import torch
from engine.engine_helpers import assert_same_state, small_cakd, small_config

from arcface_cakd.engine import CheckpointError, checkpoint_path, train
from arcface_cakd.engine import checkpoint as checkpoint_module

TIMES = ("images_per_second", "seconds", "seconds_left")


def outcome(result):
    """Everything that a run left behind, but for times."""
    path = checkpoint_path(result.output)
    history = [{k: v for k, v in line.items() if k not in TIMES} for line in result.history]
    return {
        "checkpoint": torch.load(path, weights_only=True),
        "model": torch.load(result.output / "model.pt", weights_only=True),
        "history": history,
        "metrics": result.metrics,
        "step": result.global_step,
    }


SETTINGS = {
    "plain": dict(checkpoint_every=5),
    "adamw": dict(save_all_states=True, optimizer="adamw", lr=1e-3, warmup_epoch=0.5),
    "sampled classes": dict(save_all_states=True, sample_rate=0.5),
    "dropout": dict(save_all_states=True, network="test_tiny_dropout"),
    "workers": dict(save_all_states=True, network="test_tiny_dropout", num_workers=2),
    "accumulated": dict(save_all_states=True, gradient_acc=4, clip_grad_norm=None),
    "bf16": dict(save_all_states=True, bf16=True),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("stop", [6, 9, 13])
def test_equals_a_straight_run(faces, tmp_path, name, stop):
    if name in ("adamw", "workers", "bf16") and stop != 6:
        pytest.skip("one stop is enough")
    settings = {**SETTINGS[name], "val_targets": ("lfw",), "verbose": 8}
    straight = train(small_config(faces, tmp_path / "straight", **settings))
    config = small_config(faces, tmp_path / "resumed", **settings)
    stopped = train(config, stop_after_step=stop)
    assert stopped.global_step == stop
    torch.rand(7)  # another process would be in another random state
    resumed = train(dataclasses.replace(config, resume=True))
    assert_same_state(outcome(straight), outcome(resumed))


def test_equals_a_straight_run_when_distilling(faces, tmp_path):
    settings = dict(checkpoint_every=5, cakd=small_cakd(), sample_rate=0.5, num_epoch=1, frequent=3)
    straight = train(small_config(faces, tmp_path / "straight", **settings))
    config = small_config(faces, tmp_path / "resumed", **settings)
    train(config, stop_after_step=4)
    resumed = train(dataclasses.replace(config, resume=True))
    assert_same_state(outcome(straight), outcome(resumed))


@pytest.mark.parametrize(
    "saves, left",
    [(1, ["checkpoint_gpu_0.pt"]), (2, ["checkpoint_gpu_0.pt", "model.pt"])],
    ids=["in model.pt", "in the checkpoint"],
)
def test_a_kill_goes_back_to_the_last_checkpoint(faces, tmp_path, monkeypatch, saves, left):
    settings = dict(checkpoint_every=5, frequent=2)
    straight = train(small_config(faces, tmp_path / "straight", **settings))
    config = small_config(faces, tmp_path / "killed", **settings)

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", _save_then(killed, after=saves))
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert [p.name for p in config_files(tmp_path / "killed")] == left
    resumed = train(dataclasses.replace(config, resume=True))
    assert_same_state(outcome(straight), outcome(resumed))


def _save_then(kill, after):
    real, done = torch.save, []

    def save(content, path):
        if len(done) == after:
            path.write_bytes(b"half a fi")
            kill()
        done.append(path)
        real(content, path)

    return save


def config_files(folder):
    return sorted(p for p in folder.iterdir() if p.suffix == ".pt")


def test_a_finished_run_returns_at_once(faces, tmp_path, monkeypatch):
    config = small_config(faces, tmp_path, num_epoch=1, save_all_states=True, val_targets=("lfw",))
    first = train(config)
    monkeypatch.setattr(checkpoint_module, "atomic_path", None)  # nothing is saved again
    again = train(dataclasses.replace(config, resume=True))
    assert again == first


def test_more_epochs_stretch_the_schedule(faces, tmp_path):
    config = small_config(faces, tmp_path, num_epoch=1, save_all_states=True, frequent=1)
    train(config)
    longer = train(dataclasses.replace(config, num_epoch=3, resume=True))
    rates = {line["step"]: line["lr"] for line in longer.history}
    assert longer.global_step == 27
    # Step 10 is the first after the resume: 9 of 27 steps are done.
    assert rates[10] == pytest.approx(config.lr * (1 - 9 / 27))


def test_other_losses_start_their_averages_anew(faces, tmp_path):
    """Step 2 is in the middle of a log line's window, whose sums are of the former losses."""
    settings = dict(num_epoch=1, save_all_states=True)
    config = small_config(faces, tmp_path, cakd=small_cakd(), **settings)
    train(config, stop_after_step=2)
    fewer = small_cakd(losses=[dict(name="embedding_cosine")])
    resumed = train(dataclasses.replace(config, cakd=fewer, resume=True), stop_after_step=4)
    assert resumed.history[-1]["terms"].keys() == {"embedding_cosine", "anchoring"}


def test_a_checkpoint_that_cannot_be_written_is_one_line(faces, tmp_path, monkeypatch):
    def fail(content, path):
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 2 vs 1")

    monkeypatch.setattr(checkpoint_module.torch, "save", fail)
    config = small_config(faces, tmp_path / "out", checkpoint_every=2)
    with pytest.raises(CheckpointError, match=r"checkpoint_gpu_0\.pt cannot be written"):
        train(config)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"metrics.jsonl", "tensorboard"}


@pytest.fixture(scope="module")
def kept(faces, tmp_path_factory):
    """A finished run with a checkpoint."""
    config = small_config(faces, tmp_path_factory.mktemp("kept"), num_epoch=1, save_all_states=True)
    train(config)
    return config


def test_the_checkpoint_holds_the_keys_of_arcface_torch(kept):
    content = torch.load(checkpoint_path(kept.output), weights_only=True)
    assert {
        "epoch",
        "global_step",
        "state_dict_backbone",
        "state_dict_softmax_fc",
        "state_optimizer",
        "state_lr_scheduler",
    } <= content.keys()
    assert content["epoch"] == 1 and content["global_step"] == 9
    assert list(content["state_dict_softmax_fc"]) == ["weight"]


def refused(config):
    with pytest.raises(CheckpointError) as error:
        train(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_resuming_without_a_checkpoint_names_the_path(faces, tmp_path):
    message = refused(small_config(faces, tmp_path / "none", resume=True))
    assert str(tmp_path / "none" / "checkpoint_gpu_0.pt") in message
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(network="test_tiny_dropout"), "network 'test_tiny'"),
        (dict(embedding_size=8), "embedding_size 16"),
        (dict(num_classes=9), "num_classes 6"),
        (dict(batch_size=6), "batch_size 4"),
        (dict(optimizer="adamw"), "optimizer 'sgd'"),
        (dict(seed=4), "seed 3"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(kept, change, said):
    assert said in refused(dataclasses.replace(kept, resume=True, **change))


def rewrite(kept, output, **changes):
    content = torch.load(checkpoint_path(kept.output), weights_only=True)
    content.update(changes)
    output.mkdir(parents=True, exist_ok=True)
    torch.save(content, checkpoint_path(output))
    return dataclasses.replace(kept, output=str(output), resume=True)


def test_another_number_of_ranks_is_refused(kept, tmp_path):
    content = torch.load(checkpoint_path(kept.output), weights_only=True)
    config = rewrite(kept, tmp_path, config={**content["config"], "ranks": 4})
    assert "4 rank(s)" in refused(config)


def test_weights_of_another_shape_are_refused(kept, tmp_path):
    content = torch.load(checkpoint_path(kept.output), weights_only=True)
    state = {**content["state_dict_backbone"], "fc.weight": torch.zeros(2, 2)}
    message = refused(rewrite(kept, tmp_path, state_dict_backbone=state))
    assert "fc.weight is (2, 2) there and (16, 392) here" in message


@pytest.mark.parametrize("damage", ["cut", "foreign", "the host's"])
def test_a_damaged_or_foreign_checkpoint_is_refused(kept, tmp_path, damage):
    path = checkpoint_path(tmp_path)
    if damage == "cut":
        whole = checkpoint_path(kept.output).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "foreign":
        path.write_bytes(b"not a checkpoint")
    else:
        torch.save({"epoch": 1, "global_step": 9, "state_dict_backbone": {}}, path)
    assert str(path) in refused(dataclasses.replace(kept, output=str(tmp_path), resume=True))


def test_a_fresh_start_leaves_no_checkpoint_of_the_former_run_to_resume_from(faces, tmp_path):
    config = small_config(faces, tmp_path / "out", save_all_states=True)
    train(config)
    former = checkpoint_path(config.output).read_bytes()
    train(dataclasses.replace(config, save_all_states=False), stop_after_step=2)
    assert not checkpoint_path(config.output).exists()
    assert (tmp_path / "out" / "checkpoint_gpu_0.pt.old").read_bytes() == former
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        train(dataclasses.replace(config, resume=True))
