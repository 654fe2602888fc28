"""The real arcface_torch with ``cakd.margin_weight=0``, on images of nobody in particular."""

import math

import pytest
import torch
from helpers.record_sets import jpeg

from arcface_cakd.backbones import read_description
from arcface_cakd.backbones.weights import read_weights


@pytest.fixture(scope="module")
def run(host, teacher, tmp_path_factory):
    """Three steps on two processes, on one folder of 12 images, with no number of classes of its
    own."""
    folder = tmp_path_factory.mktemp("unlabelled")
    (folder / "all").mkdir()
    for number in range(12):
        (folder / "all" / f"{number}.jpg").write_bytes(jpeg(number))
    return host.train(
        "label_free",
        processes=2,
        rec=folder,
        batch_size=2,
        num_image=12,
        num_classes=1000,
        sample_rate=0.1,
        val_targets=[],
        cakd={"teacher": {"network": "swin_mini", "weights": teacher}, "margin_weight": 0.0},
    )


def test_the_loss_is_that_of_distillation_alone(run):
    for record in run.records:
        assert len(record["losses"]) == 3
        for loss, terms in zip(record["losses"], record["terms"], strict=True):
            assert loss == pytest.approx(sum(terms.values()), rel=1e-5) and math.isfinite(loss)
    assert " margin " not in run.log and " embedding_cosine " in run.log


def test_the_partial_fc_of_the_host_holds_one_row_and_stands_still(run):
    for rank, record in enumerate(run.records):
        first = record["first"]["centers"]
        last = run.checkpoint(rank)["state_dict_softmax_fc"]["weight"]
        assert first.shape == (1, 64) and torch.equal(first, last)
        groups = run.checkpoint(rank)["state_optimizer"]["param_groups"]
        (row,) = groups[-1]["params"]
        assert row not in run.checkpoint(rank)["state_optimizer"]["state"]
    assert "instead of config.num_classes 1000" in run.log


def test_the_student_learns(run):
    before, after = run.records[0]["first"]["state"], run.load("model.pt")
    assert any(not torch.equal(before[f"student.{name}"], after[name]) for name in after)


def test_what_model_pt_is_of_stands_beside_it(run):
    said = read_description(run.output / "model.pt")
    assert said.network == "r10_narrow" and said.training_set.name.startswith("unlabelled")
    assert (said.training_set.images, said.training_set.classes) == (12, None)
    assert read_weights(run.output / "model.pt")  # which its digest fits
