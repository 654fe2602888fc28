"""A checkpoint of a patched arcface_torch goes on with the teacher that it learned from."""

import re

import pytest
import torch
from easydict import EasyDict as edict
from helpers.engine_runs import save_teacher
from torch import nn

from arcface_cakd import arcface_torch as cakd
from arcface_cakd.backbones import get_model
from arcface_cakd.partial_fc import ArcFace, PartialFC

E, CLASSES = 16, 6
URFM = {"num_centers": 9, "num_heads": 2}


def make_cfg(output, weights, urfm, resume):
    return edict(
        network="r10_narrow",
        embedding_size=E,
        num_classes=CLASSES,
        num_image=40,
        num_epoch=2,
        batch_size=4,
        frequent=2,
        fp16=False,
        lr=0.1,
        weight_decay=5e-4,
        resume=resume,
        output=str(output),
        cakd=edict(
            teacher=edict(network="swin_mini", weights=str(weights)),
            prompts=edict(num_tokens=2),
            urfm=edict(urfm),
        ),
    )


def built(cfg):
    """backbone in its wrapper, Partial FC and optimiser, as ``train_v2.py`` holds them."""
    wrapped = nn.Module()
    wrapped.module = cakd.distill(get_model("r10_narrow", num_features=E), cfg)
    partial_fc = PartialFC(ArcFace(), E, CLASSES)
    groups = [*cakd.parameter_groups(wrapped, cfg), {"params": partial_fc.parameters()}]
    return wrapped, partial_fc, torch.optim.SGD(groups, lr=0.1)


@pytest.fixture
def stopped(tmp_path):
    """The folder of a run that was stopped, with its teacher's weights."""
    save_teacher(tmp_path / "teacher.pt", seed=1)
    backbone, partial_fc, optimizer = built(
        make_cfg(tmp_path, tmp_path / "teacher.pt", URFM, resume=False)
    )
    content = {
        "global_step": 1,
        "state_dict_backbone": backbone.module.state_dict(),
        "state_dict_softmax_fc": partial_fc.state_dict(),
        "state_optimizer": optimizer.state_dict(),
    }
    amp = torch.amp.GradScaler("cpu")
    kept = content | cakd.run_state(backbone, partial_fc, amp)
    cakd.save(kept, tmp_path / "checkpoint_gpu_0.pt")
    return tmp_path


def resumed(folder, weights="teacher.pt", **urfm):
    cfg = make_cfg(folder, folder / weights, URFM | urfm, resume=True)
    cakd.check_checkpoint(cfg, 0, *built(cfg))


def refused(capsys, *args, **urfm):
    with pytest.raises(SystemExit) as stop:
        resumed(*args, **urfm)
    line = capsys.readouterr().err
    assert stop.value.code == 1 and line.count("\n") == 1 and "checkpoint_gpu_0.pt" in line
    return line


def test_the_same_teacher_may_have_moved(stopped):
    resumed(stopped)
    (stopped / "teacher.pt").rename(stopped / "moved.pt")
    resumed(stopped, "moved.pt")


def test_a_teacher_of_other_weights_is_refused(stopped, capsys):
    save_teacher(stopped / "teacher.pt", seed=2)
    assert "teacher had other weights" in refused(capsys, stopped)


def test_other_settings_of_urfm_are_refused(stopped, capsys):
    line = refused(capsys, stopped, face_distance="saliency")
    assert "urfm.face_distance 'relative', the config 'saliency'" in line


def test_prompts_that_the_config_says_nothing_of_any_more_are_asked_for(stopped, capsys):
    cfg = make_cfg(stopped, stopped / "teacher.pt", URFM, resume=True)
    cfg.cakd.pop("prompts")
    with pytest.raises(SystemExit):
        cakd.check_checkpoint(cfg, 0, *built(cfg))
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "checkpoint_gpu_0.pt is of a run with prompts" in line
    (advice,) = re.findall(r"set cakd\.prompts=(edict\(.*?\))", line)
    cfg.cakd.prompts = eval(advice)
    cakd.check_checkpoint(cfg, 0, *built(cfg))


def test_settings_that_differ_are_said_on_one_line(stopped, caplog):
    caplog.set_level("WARNING", "arcface_cakd")
    then = make_cfg(stopped, stopped / "teacher.pt", URFM, resume=False)
    then.wandb_key = "secret"
    backbone, partial_fc, _ = built(then)
    path = stopped / "checkpoint_gpu_0.pt"
    content = torch.load(path, weights_only=True)
    kept = cakd.run_state(backbone, partial_fc, torch.amp.GradScaler("cpu"), then)
    assert "secret" not in str(kept["cakd"]["settings"])
    torch.save(content | kept, path)
    resumed(stopped)
    assert not caplog.records
    now = make_cfg(stopped, stopped / "teacher.pt", URFM, resume=True)
    now.lr, now.cakd.margin_weight = 0.01, 0.5
    cakd.check_checkpoint(now, 0, *built(now))
    (record,) = caplog.records
    said = record.getMessage().split("other settings: ")[1]
    assert said == "cakd.margin_weight 0.5 (was unset), lr 0.01 (was 0.1)"


def test_a_checkpoint_that_does_not_say_whose_pupil_it_is_is_refused(stopped, capsys):
    path = stopped / "checkpoint_gpu_0.pt"
    content = torch.load(path, weights_only=True)
    del content["cakd"]["fingerprint"]
    torch.save(content, path)
    assert "an older version of arcface_cakd wrote it" in refused(capsys, stopped)


@pytest.mark.parametrize("content", [{"fc.weight": torch.zeros(2, 2)}, [1, 2]])
def test_a_file_that_is_no_checkpoint_is_refused(stopped, capsys, content):
    torch.save(content, stopped / "checkpoint_gpu_0.pt")
    assert "not a checkpoint" in refused(capsys, stopped)


def test_the_weights_that_a_student_started_from_are_not_needed_again(stopped, capsys):
    for resume in (True, False):
        cfg = make_cfg(stopped, stopped / "teacher.pt", URFM, resume)
        cfg.cakd.student_weights = str(stopped / "gone.pt")
        if resume:
            cakd.check_checkpoint(cfg, 0, *built(cfg))
        else:
            with pytest.raises(SystemExit):
                built(cfg)
            assert "gone.pt" in capsys.readouterr().err


def test_a_person_who_was_added_is_told_the_way_on(stopped, capsys):
    path = stopped / "checkpoint_gpu_0.pt"
    content = torch.load(path, weights_only=True)
    weight = content["state_dict_softmax_fc"]["weight"]
    content["state_dict_softmax_fc"]["weight"] = weight[:-1]
    torch.save(content, path)
    line = refused(capsys, stopped)
    assert f"has {CLASSES - 1} class centres on rank 0, and this run {CLASSES}" in line
    assert f'init_weights="{stopped / "model.pt"}"' in line
