"""What a run says or refuses before its first step, and of what a resumed one is told."""

import dataclasses
import logging
from pathlib import Path

import pytest
import torch
from helpers.engine_runs import made_face, make_faces, png, small_cakd, small_config

from arcface_cakd.config import ConfigError
from arcface_cakd.engine import checkpoint_path, train
from arcface_cakd.engine.builders import Run, build_run
from arcface_cakd.engine.run_settings import changed_settings, log_changes, run_settings
from arcface_cakd.locks import LOCK, FolderInUseError

CPU = torch.device("cpu")


@pytest.fixture
def said(caplog):
    """The warnings of what is called, a line each."""

    def lines(call, *args):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "arcface_cakd"):
            call(*args)
        return [record.getMessage() for record in caplog.records]

    return lines


@pytest.fixture(scope="module")
def finished(faces, tmp_path_factory):
    config = small_config(
        faces, tmp_path_factory.mktemp("finished"), num_epoch=1, save_all_states=True
    )
    train(config)
    return config


def test_a_second_run_in_an_output_is_refused_and_harms_nothing(faces, tmp_path, monkeypatch):
    """Also one by ``resume="auto"`` that finds a model.pt of the first and no checkpoint yet."""
    config = small_config(faces, tmp_path / "out", num_epoch=1, save_all_states=True)
    plain, before, during = Run.terms, [], []

    def terms(self, *batch):
        if not before:
            before.append(config.folder / "model.pt")
            before[0].write_bytes(b"the first's")
            with pytest.raises(FolderInUseError, match=r"out: process \d+ on .* is writing to it"):
                train(dataclasses.replace(config, resume="auto"))
            during.extend(sorted(path.name for path in config.folder.iterdir()))
        return plain(self, *batch)

    monkeypatch.setattr(Run, "terms", terms)
    train(config)
    assert "model.pt" in during and "model.pt.old" not in during and LOCK in during
    assert not (config.folder / LOCK).exists()


@pytest.mark.parametrize("left", ["model.pt", "checkpoint_gpu_0.pt", "checkpoint_gpu_1.pt"])
def test_an_output_that_holds_another_run_is_refused(faces, tmp_path, left):
    (tmp_path / left).write_bytes(b"of hours")
    config = small_config(faces, tmp_path, num_epoch=1)
    with pytest.raises(ConfigError, match="holds another run") as error:
        train(config, stop_after_step=1)
    line = str(error.value)
    assert left in line and str(tmp_path) in line and "\n" not in line
    # Only a checkpoint can be gone on with.
    assert ("resume=True" in line) == left.startswith("checkpoint")
    assert [path.name for path in tmp_path.iterdir()] == [left]
    assert (tmp_path / left).read_bytes() == b"of hours"
    train(dataclasses.replace(config, force=True), stop_after_step=1)  # as it advises
    assert (tmp_path / "metrics.jsonl").is_file()


def test_what_a_run_writes_is_no_person(tmp_path):
    """Else it could not go on: its output would be a folder without an image, to be removed."""
    rec = tmp_path / "people"
    for identity in range(3):
        (rec / f"p{identity}").mkdir(parents=True)
        for number in range(2):
            (rec / f"p{identity}" / f"{number}.png").write_bytes(png(made_face(identity, number)))
    cakd = small_cakd(teacher=dict(network="swin_mini", weights="random", cache=str(rec / "cache")))
    for config, said in (
        (small_config(rec, rec / "run"), "output"),
        (small_config(rec, rec), "output"),
        (small_config(rec, tmp_path / "run", cakd=cakd), "cakd.teacher.cache"),
    ):
        with pytest.raises(ConfigError, match="whose folders are taken for people") as error:
            train(config, stop_after_step=1)
        assert str(error.value).startswith(f"{said} ")
        assert sorted(path.name for path in rec.iterdir()) == ["p0", "p1", "p2"]
    for place in (rec / ".run", tmp_path / "people too"):
        assert train(small_config(rec, place), stop_after_step=1).global_step == 1


def test_what_a_run_left_that_kept_nothing_is_no_other_run(faces, tmp_path):
    config = small_config(faces, tmp_path)
    train(config, stop_after_step=2)
    assert (tmp_path / "metrics.jsonl").is_file()
    assert train(config, stop_after_step=2).global_step == 2


def test_more_classes_than_people_are_said(faces, tmp_path, said):
    assert not said(build_run, small_config(faces, tmp_path, num_classes=6), CPU)
    (line,) = said(build_run, small_config(faces, tmp_path, num_classes=9), CPU)
    for words in ("num_classes is 9", "6 identities", "3 class centres", "set it to 6"):
        assert words in line
    cakd = small_cakd(margin_weight=0.0, losses=[dict(name="embedding_cosine")])
    assert not said(build_run, small_config(faces, tmp_path, num_classes=9, cakd=cakd), CPU)


def test_a_set_of_one_identity_is_refused(tmp_path):
    faces = make_faces(tmp_path / "one", identities=1, images=8)
    for num_classes in (None, 5):
        with pytest.raises(ConfigError, match="has one identity") as error:
            build_run(small_config(faces, tmp_path, num_classes=num_classes), CPU)
        assert "\n" not in str(error.value) and str(faces) in str(error.value)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (dict(warmup_epoch=1.5), "warmup_epoch 1.5: the run ends after num_epoch 1, before it has"),
        (
            dict(margin_list=(1.0, 0.0, 0.4), margin_gradient="exact"),
            'margin_gradient="exact" has no effect: the gradient of CosFace',
        ),
        (dict(optimizer="adamw", momentum=0.8), "momentum=0.8 has no effect"),
        (dict(non_finite_limit=3), "non_finite_limit=3 has no effect"),
        (
            dict(interclass_filtering_threshold=1.0),
            "interclass_filtering_threshold 1 has no effect",
        ),
        (
            dict(cakd=small_cakd(clipping="shared"), clip_grad_norm=None),
            'cakd.clipping="shared" has no effect',
        ),
    ],
)
def test_a_setting_that_cannot_take_effect_is_said(faces, tmp_path, said, settings, line):
    config = small_config(faces, tmp_path, num_epoch=1, **settings)
    (found,) = said(build_run, config, torch.device("cpu"))
    assert found.startswith(line)


def test_micro_steps_that_teach_nothing_are_said_or_refused(faces, tmp_path, caplog):
    """Of the 9 of an epoch."""
    config = small_config(faces, tmp_path / "out", num_epoch=1)
    with pytest.raises(ConfigError, match=r"gradient_acc 10: .* 9 micro-steps, .* lower"):
        train(dataclasses.replace(config, gradient_acc=10))
    assert not (tmp_path / "out").exists()
    train(dataclasses.replace(config, gradient_acc=4))
    assert "gradient_acc 4: the last 1 of 9 micro-steps make no optimiser step" in caplog.text
    caplog.clear()
    train(dataclasses.replace(config, gradient_acc=3, force=True))
    assert "gradient_acc" not in caplog.text


@pytest.mark.parametrize("num_image, steps", [(None, 9), (36, 9), (39, 9), (80, 20), (7, 1)])
def test_another_number_of_images_is_said(faces, tmp_path, said, num_image, steps):
    lines = said(build_run, small_config(faces, tmp_path, num_image=num_image), CPU)
    assert len(lines) == (steps != 9)
    for line in lines:
        for words in (f"num_image {num_image}", f"after {steps} steps", "36 images", "9 steps"):
            assert words in line


def test_a_resumed_run_says_on_one_line_what_is_otherwise(finished, said):
    same = dataclasses.replace(finished, resume=True)
    assert not said(train, same)
    other = dataclasses.replace(same, lr=0.01, num_epoch=2, margin_list=(1.0, 0.5, 0.0))
    (line,) = said(train, other)
    assert str(checkpoint_path(finished.output)) in line and "\n" not in line
    assert "lr 0.01 (was 0.05)" in line and "num_epoch 2 (was 1)" in line
    assert "margin_list [1.0, 0.5, 0.0] (was [1.0, 0.0, 0.2])" in line
    assert line.count("(was ") == 3


def test_a_checkpoint_that_does_not_say_its_settings_is_taken_up_in_silence(
    finished, tmp_path, said
):
    content = torch.load(checkpoint_path(finished.output), weights_only=True)
    del content["settings"]
    torch.save(content, checkpoint_path(tmp_path))
    config = dataclasses.replace(finished, output=str(tmp_path), resume=True, lr=0.01)
    assert not said(train, config)


def test_settings_of_the_entry_have_dotted_names():
    losses = [dict(name="kd", weight=2.0, temperature=3.0), dict(name="rkd")]
    then = small_config("x", "y", cakd=small_cakd(losses=losses))
    losses[0]["temperature"] = 4.0
    now = small_config("x", "z", resume=True, force=True, cakd=small_cakd(losses=losses))
    changes = changed_settings(run_settings(then), run_settings(now))
    assert changes == "cakd.losses.0.settings.temperature 4.0 (was 3.0)"
    plain = changed_settings(run_settings(then), run_settings(small_config("x", "y")))
    assert "cakd None (was unset)" in plain and "cakd.margin_weight unset (was 1.0)" in plain


def test_settings_that_are_newer_than_a_checkpoint_were_at_their_defaults(caplog):
    teacher = {"network": "swin_mini", "weights": "random"}
    sets = ("lfw", "cfp_fp", "agedb_30")  # the default
    config = small_config("x", "y", cakd=small_cakd(teacher=teacher), val_targets=sets)
    new = ("cakd.teacher.bf16", "cakd.urfm.placing", "cakd.clipping", "cakd.lr_scale.prompts")
    new = (*new, "fp16", "val_targets")
    then = {name: value for name, value in run_settings(config).items() if name not in new}
    log_changes(then, config, Path("checkpoint_gpu_0.pt"))
    assert not caplog.messages
    own = small_cakd(teacher={**teacher, "bf16": True}, clipping="shared")
    log_changes(then, dataclasses.replace(config, cakd=own), Path("checkpoint_gpu_0.pt"))
    (line,) = caplog.messages
    assert line.endswith(
        "settings: cakd.clipping 'shared' (was 'separate'), cakd.teacher.bf16 True (was False)"
    )


def test_the_set_may_be_named_by_its_record_file(faces, tmp_path):
    for name in ("train.rec", "train.idx"):
        config = small_config(faces / name, tmp_path, val_targets=("lfw",), num_epoch=1)
        assert config.rec == str(faces)
    assert "lfw" in train(config, stop_after_step=9).metrics
