"""What the hooks find wrong in a host's config before it trains, without a host."""

import logging
import shutil
from pathlib import Path

import pytest
from easydict import EasyDict as edict
from helpers.engine_runs import make_faces
from helpers.record_sets import jpeg, write_records

from arcface_cakd import arcface_torch as cakd

CAKD = dict(teacher=dict(network="swin_mini", weights="random"))


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return make_faces(tmp_path_factory.mktemp("check") / "faces")


@pytest.fixture
def look(faces, tmp_path, caplog, capsys):
    """``look(**changes)``: the line that ends the program, or None; and the warnings."""

    def at(**changes):
        cfg = edict(
            rec=str(faces),
            output=str(tmp_path / "out"),
            network="r10_narrow",
            margin_list=(1.0, 0.5, 0.0),
            num_classes=6,
            num_image=36,
            num_epoch=2,
            warmup_epoch=0,
            gradient_acc=1,
            batch_size=4,
            val_targets=["lfw"],
            fp16=False,
            resume=False,
            dali=False,
            using_wandb=False,
            wandb_key="secret",
        )
        cfg.update(changes)
        caplog.clear()
        line, held = None, (tmp_path / "out").exists()
        with caplog.at_level(logging.WARNING, "arcface_cakd"):
            try:
                cakd.check_config(cfg)
            except SystemExit as stop:
                assert stop.code == 1
                line = capsys.readouterr().err
                assert line.count("\n") == 1 and line.startswith("arcface-cakd: error: ")
        # One that passes holds its output; one that is refused leaves nothing behind.
        assert line is None or held or not (tmp_path / "out").exists() or changes.get("output")
        return line, [record.getMessage() for record in caplog.records], cfg

    return at


@pytest.mark.parametrize("entry", [None, CAKD])
def test_a_config_that_fits_passes_in_silence(look, entry):
    before = look(cakd=entry)
    assert before[:2] == (None, [])


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"cadk": CAKD}, ["'cadk'", "did you mean 'cakd'"]),
        ({"CAKD": CAKD}, ["'CAKD'", "did you mean 'cakd'"]),
        ({"init_weight": "x.pt"}, ["did you mean 'init_weights'"]),
        ({"cakd": CAKD | {"prompst": None}}, ["prompst", "'prompts'"]),
        ({"fp16": True, "bf16": True}, ["fp16", "bf16"]),
        ({"num_classes": 5}, ["num_classes is 5", "6 identities"]),
        ({"rec": "/no/where"}, ["/no/where", "no such folder"]),
        ({"gradient_acc": 19, "cakd": CAKD}, ["gradient_acc 19: the run has 18", "lower it"]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_meant_is_one_line(look, changes, words):
    line, _, _ = look(**changes)
    assert line is not None and all(word in line for word in words), line


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"batchsize": 64}, ["config.batchsize", "'batch_size'"]),
        ({"loss": "cosface"}, ["loss 'cosface' has no effect", "margin_list=(1.0, 0.0, 0.4)"]),
        ({"loss": "softmax"}, ["loss 'softmax' has no effect", "(1.0, 0.5, 0.0)"]),
        ({"num_classes": 85742}, ["num_classes is 85742", "6 identities", "set it to 6"]),
        ({"num_image": 5179510}, ["num_image 5179510", "36 images"]),
        ({"val_targets": ["lfw", "cfp_fp"]}, ["no validation on cfp_fp.bin"]),
        ({"gradient_acc": 4}, ["gradient_acc 4: the last 2 of 18 micro-steps"]),
        ({"warmup_epoch": 3}, ["warmup_epoch 3: the run ends after num_epoch 2"]),
    ],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.parametrize("entry", [None, CAKD], ids=["plain", "cakd"])
def test_what_may_be_meant_is_said(look, changes, words, entry):
    line, warnings, _ = look(cakd=entry, **changes)
    assert line is None and len(warnings) == 1
    assert all(word in warnings[0] for word in words), warnings


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "arcface"},
        {"my_own_fork": 1, "notes": ""},
        {"loss": "cosface", "margin_list": (1.0, 0.0, 0.4)},
        {"rec": "synthetic", "num_classes": 30000, "num_image": 100000, "val_targets": []},
    ],
)
def test_a_fork_may_have_keys_of_its_own_and_data_that_is_none(look, changes):
    assert look(**changes)[:2] == (None, [])


def test_an_output_of_another_run_is_refused_in_distillation(look, tmp_path):
    (tmp_path / "model.pt").touch()
    output = {"output": str(tmp_path)}
    line, _, _ = look(cakd=CAKD, **output)
    assert "holds another run" in line and "force=True" in line
    assert look(cakd=CAKD, force=True, **output)[:2] == (None, [])
    assert look(cakd=CAKD, resume=True, **output)[:2] == (None, [])
    line, warnings, _ = look(**output)  # as the host has always done
    assert line is None and "holds another run" in warnings[0]


def test_resume_auto_is_decided_by_what_is_there(look, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "model.pt").write_bytes(b"of before")
    # It may be of a run that ended, where none keeps checkpoints.
    assert "holds another run" in look(cakd=CAKD, resume="auto")[0]
    line, warnings, cfg = look(cakd=CAKD, resume="auto", save_all_states=True)
    assert line is None and cfg.resume is False and "model.pt is now" in warnings[0]
    assert (output / "model.pt.old").read_bytes() == b"of before"
    (output / "checkpoint_gpu_1.pt").touch()
    line, warnings, cfg = look(cakd=CAKD, resume="auto")
    assert (line, warnings, cfg.resume) == (None, [], True)


def test_former_sets_of_a_run_that_is_written_over_are_set_aside(look, tmp_path):
    """Else they would pass for the new run's."""
    output = tmp_path / "out"
    for folder in (output, output / "checkpoints" / "step_9"):
        folder.mkdir(parents=True)
        (folder / "checkpoint_gpu_0.pt").write_text("of before")
    assert look(cakd=CAKD, resume=True)[0] is None
    assert (output / "checkpoints").is_dir()
    assert look(cakd=CAKD, force=True)[0] is None
    left = sorted(path.name for path in output.iterdir())
    assert left == [".lock", "checkpoint_gpu_0.pt.old", "checkpoints.old"]


@pytest.mark.parametrize("name", ["work_dirs", ".work_dirs"])
def test_an_output_in_a_folder_of_people_is_refused_in_distillation(look, tmp_path, name):
    """torchvision's ImageFolder, by which the host reads, takes hidden folders for people too."""
    people = tmp_path / "images"
    for person in ("a", "b"):
        (people / person).mkdir(parents=True)
        (people / person / "0.png").write_bytes(jpeg(1))
    settings = dict(rec=str(people), num_classes=2, num_image=2, val_targets=[])
    inside, outside = str(people / name / "run"), str(tmp_path / "run")
    for entry in (CAKD, CAKD | {"margin_weight": 0.0}):
        line = look(cakd=entry, output=inside, **settings)[0]
        assert f"config.output {inside} lies in {people}" in line
        cached = entry | {"teacher": dict(CAKD["teacher"], cache=inside)}
        line = look(cakd=cached, output=outside, **settings)[0]
        assert f"cakd.teacher.cache {inside} lies in {people}" in line
        assert look(cakd=entry, output=outside, **settings)[0] is None
    line, warnings, _ = look(output=inside, **settings)
    assert line is None and "lies in" in warnings[0]


def test_data_that_we_cannot_read_stops_distillation_alone(look, tmp_path):
    for name in ("train.rec", "train.idx"):
        (tmp_path / name).write_bytes(b"damaged")
    assert str(tmp_path) in look(cakd=CAKD, rec=str(tmp_path))[0]
    line, warnings, _ = look(rec=str(tmp_path))
    assert line is None and str(tmp_path) in warnings[0]


def test_without_labels_nobody_counts_identities(look, tmp_path, faces):
    entry = CAKD | {"margin_weight": 0.0, "losses": [dict(name="embedding_cosine")]}
    shutil.copytree(faces, tmp_path / "one")
    write_records(tmp_path / "one", {n: (0.0, jpeg(n)) for n in range(36)})
    (tmp_path / "one" / "property").write_text("1,112,112\n")
    rec = str(tmp_path / "one")
    assert look(cakd=entry, rec=rec, num_classes=10)[:2] == (None, [])
    assert "one identity" in look(cakd=CAKD, rec=rec, num_classes=10)[0]


def test_images_without_a_folder_around_them_are_none_to_the_host(look, tmp_path):
    entry = CAKD | {"margin_weight": 0.0}
    (tmp_path / "images" / "all").mkdir(parents=True)
    for number in range(4):
        (tmp_path / "images" / "all" / f"{number}.png").touch()
    settings = dict(cakd=entry, rec=str(tmp_path / "images"), num_image=4, val_targets=[])
    assert look(**settings)[:2] == (None, [])
    (tmp_path / "images" / "loose.png").touch()
    assert "1 images lie in no folder" in look(**settings)[0]


@pytest.mark.parametrize("labelled", [True, False])
def test_images_that_the_host_does_not_know_by_their_suffix_are_told(look, tmp_path, labelled):
    """Ours are told by content too; its ImageFolder goes by suffix."""
    for person in ("a", "b"):
        (tmp_path / "images" / person).mkdir(parents=True)
        for name in ("0.png", "1.JPG", "2.jfif", "3"):
            (tmp_path / "images" / person / name).write_bytes(jpeg(1))
    entry = CAKD | {"margin_weight": float(labelled)}
    settings = dict(num_classes=2, num_image=8, val_targets=[])
    line, warnings, _ = look(cakd=entry, rec=str(tmp_path / "images"), **settings)
    assert line is None
    (warning,) = warnings
    assert "arcface_torch leaves out 4 of 8 images, whose suffixes it does not know" in warning
    assert f"{tmp_path / 'images' / 'a' / '2.jfif'} first" in warning


def test_the_record_file_stands_for_its_folder(look, faces):
    line, warnings, cfg = look(rec=str(faces / "train.rec"))
    assert (line, warnings, Path(cfg.rec)) == (None, [], faces)
