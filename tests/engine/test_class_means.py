"""``cakd.teacher.centers="from_data"``: what the centres are, and that a run keeps its own."""

import copy
import dataclasses
import logging

import numpy as np
import pytest
import torch
from helpers.engine_runs import made_face, make_faces, small_cakd, small_config
from helpers.processes import run_ranks

from arcface_cakd.backbones import get_model, save_weights
from arcface_cakd.config import ConfigError
from arcface_cakd.data import DataError
from arcface_cakd.distiller import Distiller
from arcface_cakd.engine import CheckpointError, TeacherError, class_means, give_centers, train
from arcface_cakd.engine.builders import build_model

IDENTITIES, IMAGES = 5, 7  # shares of two ranks differ, and so do their classes'
LOSSES = [{"name": "kd", "weight": 0.5}, {"name": "embedding_cosine", "projection": True}]


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return make_faces(tmp_path_factory.mktemp("faces") / "data", IDENTITIES, IMAGES)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "model.pt"
    torch.manual_seed(2)
    teacher = get_model("test_tiny", num_features=12)
    teacher.train()(torch.rand(8, 3, 112, 112) * 2 - 1)
    save_weights(teacher, path)
    return path


@pytest.fixture(autouse=True)
def every_line_is_caught(caplog):
    caplog.set_level(logging.INFO, logger="arcface_cakd")


def config_of(faces, output, weights, losses=LOSSES, centers="from_data", cache=None, **settings):
    teacher = {"network": "test_tiny", "weights": str(weights), "centers": centers, "cache": cache}
    cakd = small_cakd(teacher=teacher, prompts=None, urfm=None, losses=losses)
    return small_config(faces, output, cakd=cakd, save_all_states=True, frequent=1, **settings)


def waiting(faces, weights, num_classes=IDENTITIES):
    return build_model(config_of(faces, "unused", weights), num_classes).train()


def expected_means(teacher, directions=True):
    """In float64, image by image."""
    teacher = copy.deepcopy(teacher).double()
    means = np.zeros((IDENTITIES, 12))
    with torch.no_grad():
        for identity in range(IDENTITIES):
            for number in range(IMAGES):
                planes = made_face(identity, number).transpose(2, 0, 1)[None]
                embedding = teacher(torch.from_numpy(planes / 127.5 - 1)).numpy()[0]
                means[identity] += embedding / (np.linalg.norm(embedding) if directions else 1)
    return torch.from_numpy(means / np.linalg.norm(means, axis=1, keepdims=True)).float()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_they_are_the_means_of_directions(faces, weights, tmp_path, num_workers):
    distiller = waiting(faces, weights)
    modes = [m.training for m in distiller.modules()]
    torch.manual_seed(9)
    state = torch.get_rng_state()
    give_centers(distiller, faces, tmp_path, resume=False, num_workers=num_workers)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in distiller.modules()] == modes
    assert not distiller.awaits_centers
    found = distiller.teacher_fc.weight
    assert not found.requires_grad
    torch.testing.assert_close(found, expected_means(distiller.teacher), rtol=0, atol=2e-6)
    lengths = expected_means(distiller.teacher, directions=False)
    assert (lengths - found).abs().max() > 1e-4  # a mean of embeddings as they are is another


def rank_centers(faces, output, weights):
    distiller = waiting(faces, weights)
    give_centers(distiller, faces, output, resume=False)
    return distiller.teacher_fc.weight, distiller.teacher_fc.class_start


def test_ranks_share_the_images_and_each_keeps_its_own_classes(faces, weights, tmp_path):
    parts = run_ranks(rank_centers, 2, tmp_path, faces, tmp_path / "run", weights)
    assert [start for _, start in parts] == [0, 3]
    found = torch.cat([part for part, _ in parts])
    expected = expected_means(waiting(faces, weights).teacher)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    kept = torch.load(tmp_path / "run" / "teacher_centers.pt", weights_only=True)
    assert torch.equal(kept["centers"], found)


def test_a_class_without_images_is_said_and_harms_nothing(faces, weights, tmp_path, caplog):
    config = config_of(faces, tmp_path / "run", weights, num_classes=IDENTITIES + 2)
    result = train(config, stop_after_step=2)
    assert "2 of 7 classes have no image (5, 6): their centres are zero" in caplog.text
    assert "means of its embeddings, of 35 images of 5 classes" in caplog.text
    kept = torch.load(tmp_path / "run" / "teacher_centers.pt", weights_only=True)["centers"]
    assert not kept[IDENTITIES:].any()
    torch.testing.assert_close(kept[:IDENTITIES].norm(dim=1), torch.ones(IDENTITIES))
    assert all(np.isfinite(line["terms"]["kd"]) for line in result.history if "terms" in line)


def test_losses_compare_with_them(faces, weights, tmp_path):
    """The same run from a checkpoint that holds the same centres."""
    once = train(config_of(faces, tmp_path / "once", weights), stop_after_step=3)
    centers = torch.load(tmp_path / "once" / "teacher_centers.pt", weights_only=True)["centers"]
    torch.save(
        {"state_dict_softmax_fc": {"weight": centers}, "global_step": 1},
        tmp_path / "checkpoint_gpu_0.pt",
    )
    given = config_of(
        faces, tmp_path / "given", weights, centers=str(tmp_path / "checkpoint_gpu_0.pt")
    )
    again = train(given, stop_after_step=3)
    terms = [[line["terms"] for line in run.history if "terms" in line] for run in (once, again)]
    assert terms[0] == terms[1] and len(terms[0]) == 3


def test_a_teacher_whose_words_are_cached_gives_them_before_it_is_dropped(faces, weights, tmp_path):
    once = train(config_of(faces, tmp_path / "once", weights), stop_after_step=3)
    cached = config_of(faces, tmp_path / "run", weights, cache=str(tmp_path / "cache"))
    again = train(cached, stop_after_step=3)
    centers = [
        torch.load(r.output / "teacher_centers.pt", weights_only=True) for r in (once, again)
    ]
    assert torch.equal(centers[0]["centers"], centers[1]["centers"])
    assert again.history[-1]["loss"] == pytest.approx(once.history[-1]["loss"], rel=5e-3)


class TestResuming:
    @pytest.fixture
    def stopped(self, faces, weights, tmp_path):
        config = config_of(faces, tmp_path / "run", weights)
        train(config, stop_after_step=3)
        return config_of(faces, tmp_path / "run", weights, resume=True)

    def test_it_goes_on_with_what_it_started_with(
        self, stopped, faces, weights, tmp_path, monkeypatch, caplog
    ):
        monkeypatch.setattr("arcface_cakd.engine.class_means.class_means", None)  # not again
        resumed = train(stopped)
        assert "teacher_centers.pt, as the run started with them" in caplog.text
        monkeypatch.undo()
        straight = train(config_of(faces, tmp_path / "straight", weights))
        assert [line["loss"] for line in resumed.history if "loss" in line] == [
            line["loss"] for line in straight.history if "loss" in line
        ]
        one, other = (
            torch.load(tmp_path / run / "model.pt", weights_only=True)
            for run in ("run", "straight")
        )
        assert all(torch.equal(one[key], other[key]) for key in one)

    def test_a_lost_file_is_computed_again_and_that_is_said(self, stopped, caplog):
        (stopped.folder / "teacher_centers.pt").unlink()
        train(stopped, stop_after_step=4)
        assert "teacher_centers.pt is not there: the teacher's class means are" in caplog.text
        assert (stopped.folder / "teacher_centers.pt").is_file()

    @pytest.mark.parametrize("change", ["cut", "key"])
    def test_a_damaged_file_is_refused_and_the_advice_works(self, stopped, change):
        path = stopped.folder / "teacher_centers.pt"
        if change == "cut":
            path.write_bytes(path.read_bytes()[:200])
        else:
            torch.save({"centers": torch.zeros(1)}, path)
        with pytest.raises(CheckpointError, match=r"cannot be read .*: remove it, and"):
            train(stopped)
        path.unlink()
        train(stopped, stop_after_step=4)

    @pytest.mark.parametrize(
        ("name", "value"), [("teacher", "abc"), ("num_image", 9), ("num_classes", 4)]
    )
    def test_those_of_another_run_are_refused(self, stopped, name, value):
        path = stopped.folder / "teacher_centers.pt"
        content = torch.load(path, weights_only=True)
        torch.save({**content, name: value}, path)
        with pytest.raises(
            CheckpointError, match=f"of a run with {name} {value}, and now"
        ) as error:
            train(stopped)
        assert "\n" not in str(error.value)

    def test_a_new_run_computes_its_own(self, stopped, faces, weights):
        path = stopped.folder / "teacher_centers.pt"
        content = torch.load(path, weights_only=True)
        torch.save({**content, "centers": torch.zeros_like(content["centers"])}, path)
        anew = dataclasses.replace(config_of(faces, stopped.folder, weights), force=True)
        train(anew, stop_after_step=1)
        again = torch.load(path, weights_only=True)["centers"]
        assert torch.equal(again, content["centers"])


def test_where_nothing_needs_them_a_line_says_so(faces, weights, tmp_path, caplog):
    config = config_of(faces, tmp_path / "run", weights, losses=[{"name": "rkd"}])
    train(config, stop_after_step=1)
    assert "nothing needs class centres, so none are computed" in caplog.text
    assert not (tmp_path / "run" / "teacher_centers.pt").exists()


def test_a_loss_without_centres_is_told_of_both_ways():
    with pytest.raises(ConfigError, match=r"checkpoint_gpu_\*\.pt, or to 'from_data'"):
        cakd = small_cakd(prompts=None, urfm=None, losses=LOSSES)
        student, teacher = (get_model("test_tiny", num_features=8) for _ in range(2))
        Distiller(student, teacher, cakd, 3)


def test_a_distiller_says_what_it_waits_for(faces, weights):
    distiller = waiting(faces, weights)
    assert distiller.awaits_centers
    distiller(torch.zeros(2, 3, 112, 112))
    with pytest.raises(RuntimeError, match=r"terms\(\) needs take_centers\(\) first"):
        distiller.terms(torch.tensor([0, 1]))
    with pytest.raises(ConfigError, match="was not told: give it num_classes"):
        waiting(faces, weights, num_classes=None)


def test_embeddings_that_are_not_finite_stop_the_run(faces, weights):
    distiller = waiting(faces, weights)
    distiller.teacher.fc.bias.data.fill_(torch.inf)
    images = class_means.open_images(faces)
    with pytest.raises(TeacherError, match="'test_tiny' gives embeddings of the training set"):
        class_means.class_means(distiller, images)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_image_is_named_in_one_line(weights, tmp_path, num_workers):
    faces = make_faces(tmp_path / "data", 2, 3)
    record = bytearray((faces / "train.rec").read_bytes())
    where = record.rindex(b"IHDR")
    record[where : where + 4] = b"XXXX"
    (faces / "train.rec").write_bytes(record)
    distiller = waiting(faces, weights, 2)
    with pytest.raises(DataError, match=r"train\.rec, key 6: .*does not decode") as error:
        give_centers(distiller, faces, tmp_path / "run", resume=False, num_workers=num_workers)
    assert "\n" not in str(error.value)
