"""A run that was stopped and resumed equals a straight one, to the bit."""

import dataclasses
import re
import shutil

import onnx
import pytest
import torch
from helpers.engine_runs import (
    TinyFace,
    assert_same_state,
    save_teacher,
    small_cakd,
    small_config,
)
from helpers.full_disk import full_disk

from arcface_cakd.backbones import OnnxTeacher, weights_digest
from arcface_cakd.config import ConfigError
from arcface_cakd.engine import CheckpointError, checkpoint_path, load_distiller, train
from arcface_cakd.engine import loop as loop_module
from arcface_cakd.engine.builders import build_model
from arcface_cakd.engine.checkpoint_state import rescaling
from arcface_cakd.engine.fingerprint import check_same_teacher, fingerprint
from arcface_cakd.export import export_model

TIMES = ("images_per_second", "seconds", "seconds_left")


def outcome(result):
    """Everything that a run left behind, but for times."""
    path = checkpoint_path(result.output)
    history = [{k: v for k, v in line.items() if k not in TIMES} for line in result.history]
    return {
        "checkpoint": torch.load(path, weights_only=True),
        "model": torch.load(result.output / "model.pt", weights_only=True),
        "files": [(result.output / f"model.{suffix}").read_bytes() for suffix in ("pt", "json")],
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
    "adaface": dict(save_all_states=True, adaface=dict(m=0.3, h=0.5, t_alpha=0.1)),
    "bf16": dict(save_all_states=True, bf16=True),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("stop", [6, 9, 13])
def test_equals_a_straight_run(faces, tmp_path, name, stop):
    if name in ("adamw", "workers", "bf16", "adaface") and stop != 6:
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

    def save(content, file):
        if len(done) == after:
            file.write(b"half a fi")
            kill()
        done.append(file)
        real(content, file)

    return save


def config_files(folder):
    return sorted(p for p in folder.iterdir() if p.suffix == ".pt")


def test_a_finished_run_returns_at_once(faces, tmp_path, monkeypatch):
    config = small_config(faces, tmp_path, num_epoch=1, save_all_states=True, val_targets=("lfw",))
    first = train(config)
    monkeypatch.setattr(loop_module, "save_checkpoint", None)  # nothing is saved again
    again = train(dataclasses.replace(config, resume=True))
    assert again == first


def test_more_epochs_stretch_the_schedule(faces, tmp_path, caplog):
    caplog.set_level("INFO", logger="arcface_cakd")
    config = small_config(faces, tmp_path, num_epoch=1, save_all_states=True, frequent=1)
    train(config)
    assert "goes on after" not in caplog.text
    longer = train(dataclasses.replace(config, num_epoch=3, resume=True))
    assert f"{tmp_path}: goes on after step 9 of 27" in caplog.text
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
    assert resumed.history[-1]["terms"].keys() == {"embedding_cosine", "anchoring", "preservation"}


def test_losses_in_another_order_are_refused(faces, tmp_path):
    """The optimiser's state goes by the order of parameters: momentum would be another loss's."""
    fitnet, vid = dict(name="fitnet"), dict(name="vid")

    def distilled(*losses):
        return small_cakd(prompts=None, urfm=None, losses=list(losses))

    settings = dict(num_epoch=1, save_all_states=True)
    config = small_config(faces, tmp_path, cakd=distilled(fitnet, vid), **settings)
    train(config, stop_after_step=2)
    other = dataclasses.replace(config, cakd=distilled(vid, fitnet), resume=True)
    assert "losses in their former order" in refused(other)
    # What learns nothing may come and go, and a former order is taken.
    more = dataclasses.replace(config, cakd=distilled(dict(name="rkd"), fitnet, vid), resume=True)
    assert train(more, stop_after_step=4).global_step == 4


def test_a_checkpoint_that_cannot_be_written_is_one_line(faces, tmp_path):
    config = small_config(faces, tmp_path / "out", checkpoint_every=2)
    cannot = r"checkpoint_gpu_0\.pt cannot be written \(File too large\): free space"
    with full_disk(20_000), pytest.raises(CheckpointError, match=cannot):
        train(config)
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"metrics.jsonl", "run.json", "tensorboard"}


def test_a_later_checkpoint_that_cannot_be_written_leaves_the_one_before(faces, tmp_path):
    config = small_config(faces, tmp_path / "out", checkpoint_every=2, resume="auto")
    train(config, stop_after_step=2)
    before = checkpoint_path(config.output).read_bytes()
    cannot = r"free space on its disk, then set resume=True to go on from the one before"
    with full_disk(20_000), pytest.raises(CheckpointError, match=cannot):
        train(config)
    assert checkpoint_path(config.output).read_bytes() == before
    assert train(config, stop_after_step=4).global_step == 4


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


def test_to_start_anew_is_no_dead_end(kept, tmp_path):
    """In the same output it would be refused as another run's."""
    message = refused(dataclasses.replace(kept, resume=True, seed=4))
    assert message.endswith("start anew with resume=False and another output")
    output = str(tmp_path / "anew")
    anew = dataclasses.replace(kept, resume=False, seed=4, output=output)
    assert train(anew, stop_after_step=1).global_step == 1


def test_a_person_who_was_added_is_no_dead_end(kept, tmp_path):
    """The message names the way on, and that works."""
    message = refused(dataclasses.replace(kept, resume=True, num_classes=9))
    assert "goes on with the same people, images and ranks alone" in message
    (weights,) = re.findall(r'init_weights="(.*?)"', message)
    assert "resume=False and another output" in message
    on = dataclasses.replace(
        kept, num_classes=9, init_weights=weights, resume=False, output=str(tmp_path / "on")
    )
    train(on)
    assert (tmp_path / "on" / "model.pt").is_file()


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
    anew = dataclasses.replace(config, save_all_states=False, force=True)
    train(anew, stop_after_step=2)
    assert not checkpoint_path(config.output).exists()
    assert (tmp_path / "out" / "checkpoint_gpu_0.pt.old").read_bytes() == former
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        train(dataclasses.replace(config, resume=True))


@pytest.fixture(scope="module")
def distilled(faces, tmp_path_factory):
    """A run that stopped in its first epoch, and the folder of its teacher's weights."""
    folder = tmp_path_factory.mktemp("distilled")
    save_teacher(folder / "model.pt", seed=1)
    teacher = dict(network="swin_mini", weights=str(folder / "model.pt"))
    config = small_config(
        faces, folder / "out", cakd=small_cakd(teacher=teacher), num_epoch=1, save_all_states=True
    )
    train(config, stop_after_step=2)
    return config, folder


def elsewhere(config, output, **entry):
    """To go on in another folder, with changes to the ``cakd`` entry."""
    output.mkdir()
    shutil.copy(checkpoint_path(config.output), output)
    entry = dict(teacher=config.cakd.teacher) | entry
    return dataclasses.replace(config, output=str(output), resume=True, cakd=small_cakd(**entry))


def test_a_teacher_that_moved_teaches_on(distilled, tmp_path):
    config, folder = distilled
    moved = tmp_path / "elsewhere.pt"
    shutil.copy(folder / "model.pt", moved)
    teacher = config.cakd.teacher | dict(weights=str(moved))
    result = train(elsewhere(config, tmp_path / "out", teacher=teacher), stop_after_step=3)
    assert result.global_step == 3


@pytest.mark.parametrize("look", [train, load_distiller])
def test_a_teacher_of_other_weights_is_refused(distilled, tmp_path, look):
    config, folder = distilled
    config = elsewhere(config, tmp_path / "out")
    look(config)
    kept = (folder / "model.pt").read_bytes()
    try:
        save_teacher(folder / "model.pt", seed=2)  # one trained anew, under the same name
        with pytest.raises(CheckpointError, match="teacher had other weights") as error:
            look(config)
    finally:
        (folder / "model.pt").write_bytes(kept)
    assert str(checkpoint_path(config.output)) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("look", [train, load_distiller])
@pytest.mark.parametrize(
    "entry, said",
    [
        (
            dict(urfm=dict(num_centers=4, num_heads=2, face_distance="saliency")),
            "urfm.face_distance 'relative', the config 'saliency'",
        ),
        (dict(urfm=None), "urfm True, the config False"),
        (dict(prompts=None), "as it now is by default: set cakd.prompts=edict(num_tokens=2), or"),
        (
            dict(teacher=dict(network="vit_mini", weights="random")),
            "teacher.network 'swin_mini', the config 'vit_mini'",
        ),
    ],
    ids=["urfm", "no urfm", "no prompts", "teacher"],
)
def test_what_gives_tensors_their_meaning_must_be_the_same(distilled, tmp_path, look, entry, said):
    config, _ = distilled
    config = elsewhere(config, tmp_path / "out", **entry)
    with pytest.raises(CheckpointError) as error:
        look(config)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_plain_run_s_checkpoint_has_no_distiller(kept, tmp_path):
    config = dataclasses.replace(kept, cakd=small_cakd())
    with pytest.raises(CheckpointError, match="cakd False, the config True"):
        load_distiller(config)


def test_a_config_without_its_cakd_entry_has_no_distiller(distilled):
    config, _ = distilled
    with pytest.raises(ConfigError, match="no cakd entry") as error:
        load_distiller(dataclasses.replace(config, cakd=None))
    assert "\n" not in str(error.value)


def test_another_student_is_named_before_what_it_does_to_a_random_teacher(faces, tmp_path):
    cakd = small_cakd(teacher=dict(network="swin_mini", weights="random"))
    config = small_config(faces, tmp_path, cakd=cakd, num_epoch=1, save_all_states=True)
    train(config, stop_after_step=1)
    with pytest.raises(CheckpointError, match="network 'test_tiny', the config 'r10_narrow'"):
        load_distiller(dataclasses.replace(config, network="r10_narrow"))


def test_a_checkpoint_that_does_not_say_whose_pupil_it_is_is_refused(distilled, tmp_path):
    config, _ = distilled
    config = elsewhere(config, tmp_path / "out")
    path = checkpoint_path(config.output)
    content = torch.load(path, weights_only=True)
    del content["config"]["teacher's weights"]
    torch.save(content, path)
    message = refused(config)
    assert "does not say its teacher's weights" in message and "older version" in message


def test_an_onnx_teacher_is_known_by_its_content(faces, tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        torch.manual_seed(seed)
        export_model(TinyFace(16, dropout=0.0).eval(), tmp_path / f"{name}.onnx")
    shutil.copy(tmp_path / "a.onnx", tmp_path / "moved.onnx")

    def config(name, **settings):
        teacher = dict(network=f"onnx:{tmp_path / name}.onnx")
        cakd = small_cakd(
            teacher=teacher, prompts=None, urfm=None, losses=[dict(name="embedding_cosine")]
        )
        return small_config(
            faces, tmp_path / "out", cakd=cakd, num_epoch=1, save_all_states=True, **settings
        )

    train(config("a"), stop_after_step=2)
    assert "teacher had other weights" in refused(config("b", resume=True))
    assert train(config("moved", resume=True), stop_after_step=3).global_step == 3


def test_the_tensors_of_an_onnx_teacher_may_lie_beside_it(tmp_path):
    export_model(TinyFace(16, dropout=0.0).eval(), tmp_path / "whole.onnx")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        graph = onnx.load(tmp_path / "whole.onnx")
        onnx.save(
            graph,
            tmp_path / name / "teacher.onnx",
            save_as_external_data=True,
            location="teacher.data",
            size_threshold=0,
        )
    digests = [digest_of_onnx(tmp_path / name / "teacher.onnx") for name in ("a", "b")]
    assert digests[0] == digests[1]
    beside = tmp_path / "b" / "teacher.data"
    content = bytearray(beside.read_bytes())
    content[5] ^= 1
    beside.write_bytes(content)
    assert digest_of_onnx(tmp_path / "b" / "teacher.onnx") != digests[0]


def test_an_onnx_teacher_s_file_is_read_once(faces, tmp_path):
    path = tmp_path / "teacher.onnx"
    export_model(TinyFace(16, dropout=0.0).eval(), path)
    cakd = small_cakd(
        teacher=dict(network=f"onnx:{path}"),
        prompts=None,
        urfm=None,
        losses=[dict(name="embedding_cosine")],
    )
    distiller = build_model(small_config(faces, tmp_path / "out", cakd=cakd), num_classes=6)
    expected = digest_of_onnx(path)
    check_same_teacher(distiller)
    path.unlink()
    assert fingerprint(distiller)["teacher's weights"] == expected


def digest_of_onnx(path):
    return weights_digest(OnnxTeacher(path))


def test_a_digest_is_of_values_and_not_of_how_they_lie_in_memory():
    torch.manual_seed(0)
    network = TinyFace(16, dropout=0.0)
    plain = weights_digest(network)
    network.to(memory_format=torch.channels_last)
    assert network.stem.weight.stride() != torch.empty(6, 3, 4, 4).stride()
    assert weights_digest(network) == plain
    again = TinyFace(16, dropout=0.0)
    again.load_state_dict(dict(reversed(network.state_dict().items())))
    assert weights_digest(again) == plain
    for name, tensor in network.state_dict().items():
        last = (-1,) * tensor.dim()
        kept = tensor[last].clone()
        tensor[last] += 1
        assert weights_digest(network) != plain, name
        tensor[last] = kept
    assert weights_digest(network) == plain
    assert weights_digest(network.double()) != plain


def test_the_weights_that_a_student_started_from_are_not_needed_again(faces, tmp_path):
    start = tmp_path / "start.pt"
    torch.save(TinyFace(16, dropout=0.0).state_dict(), start)
    cakd = small_cakd(student_weights=str(start))
    config = small_config(faces, tmp_path / "out", cakd=cakd, num_epoch=1, save_all_states=True)
    train(config, stop_after_step=2)
    start.unlink()
    assert train(dataclasses.replace(config, resume=True), stop_after_step=3).global_step == 3
    load_distiller(config)


@pytest.mark.parametrize("scale", [1.0, 2.0**16])
def test_half_a_step_of_another_precision_goes_on(faces, tmp_path, scale):
    """Gradients that a float16 run summed up are times its scaler's factor."""
    settings = dict(num_epoch=1, save_all_states=True, gradient_acc=4)
    straight = outcome(train(small_config(faces, tmp_path / "straight", **settings)))
    config = small_config(faces, tmp_path / "out", **settings)
    path = checkpoint_path(train(config, stop_after_step=6).output)
    content = torch.load(path, weights_only=True)
    content["gradients"] = [None if g is None else g * scale for g in content["gradients"]]
    content["state_scaler"] = torch.amp.GradScaler("cpu", init_scale=scale).state_dict()
    torch.save(content, path)
    resumed = outcome(train(dataclasses.replace(config, resume=True)))
    for key in ("state_dict_backbone", "state_dict_softmax_fc"):
        assert_same_state(dict(resumed["checkpoint"][key]), dict(straight["checkpoint"][key]))


@pytest.mark.parametrize(("then", "now"), [(8.0, None), (None, 8.0), (8.0, 2.0), (None, None)])
def test_a_scaler_that_comes_or_goes(then, now):
    state = {} if then is None else torch.amp.GradScaler("cpu", init_scale=then).state_dict()
    scaler = None if now is None else torch.amp.GradScaler("cpu", init_scale=now)
    if now is not None:
        scaler.scale(torch.ones(()))  # it knows its factor by then
    assert rescaling(state, scaler) == (now or 1.0) / (then or 1.0)
