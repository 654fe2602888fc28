import itertools

import numpy as np
import pytest
import torch
from golden.make_margindistillation_losses import cases, inputs
from helpers.class_losses import check_golden, side

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.losses import FeatureDims, LossBatch, LossError
from arcface_cakd.losses.triplet_distillation_loss import (
    TripletDistillationLoss,
    triplet_distillation_loss,
)
from arcface_cakd.registry import LOSSES

DIMS = FeatureDims(6, 9, 3, 3)


def reference(student, teacher, labels, low=0.2, high=0.5, angle=False):
    def distance(x, i, j):
        a, b = (x[k] / np.sqrt(x[k] @ x[k]) for k in (i, j))
        return np.arccos(a @ b) if angle else ((a - b) ** 2).sum()

    triplets = [
        (a, p, n)
        for a, p, n in itertools.product(range(len(labels)), repeat=3)
        if a != p and labels[a] == labels[p] and labels[a] != labels[n]
    ]
    gaps = [max(distance(teacher, a, n) - distance(teacher, a, p), 0) for a, p, n in triplets]
    values = []
    for (a, p, n), gap in zip(triplets, gaps, strict=True):
        margin = low + (high - low) * (gap / max(gaps) if max(gaps) else 0)
        values.append(max(distance(student, a, p) - distance(student, a, n) + margin, 0))
    return np.mean(values)


def made(batch, identities, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(batch - batch // 2), np.arange(batch // 2)]) % identities
    return rng.normal(size=(batch, 6)), rng.normal(size=(batch, 9)), labels


@pytest.mark.parametrize(("batch", "identities"), [(3, 2), (8, 3), (12, 5), (10, 2)])
def test_equals_a_float64_reference(batch, identities):
    student, teacher, labels = made(batch, identities, seed=batch)
    tensors = [torch.from_numpy(x) for x in (student, teacher, labels)]
    expected = reference(student, teacher, labels)
    assert triplet_distillation_loss(*tensors).item() == pytest.approx(expected, rel=1e-12)
    ours = triplet_distillation_loss(*tensors, margin_min=0.0, margin_max=2.0)
    assert ours.item() == pytest.approx(reference(student, teacher, labels, 0, 2), rel=1e-12)
    ours = triplet_distillation_loss(*tensors, distance="angle")
    expected = reference(student, teacher, labels, angle=True)
    assert ours.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "case",
    cases("triplet_distillation_L2") + cases("triplet_distillation_cos"),
    ids=lambda c: f"{c['loss']}-{c['seed']}",
)
def test_equals_published_code(case):
    given = {name: torch.from_numpy(array) for name, array in inputs(case["seed"]).items()}
    names = {"Mmin": "margin_min", "Mmax": "margin_max"}
    settings = {names[name]: setting for name, setting in case["settings"].items()}
    settings["distance"] = "angle" if case["loss"].endswith("cos") else "squared"
    settings = check_settings(TripletDistillationLoss, settings, "cakd.losses[0]")
    loss, batch = TripletDistillationLoss(DIMS, **settings), LossBatch(given["identities"])
    teacher = side(given["teacher"])
    check_golden(case, lambda student: loss(side(student), teacher, batch), given["student"])


def test_equal_and_opposite_embeddings_have_a_finite_gradient():
    x = torch.randn(1, 6)
    student = torch.cat([x, x, -x, x, 0 * x]).requires_grad_()
    labels = torch.tensor([0, 0, 0, 1, 0])
    for distance in ("squared", "angle"):
        value = triplet_distillation_loss(
            student, student.detach().roll(1, 0), labels, distance=distance
        )
        (gradient,) = torch.autograd.grad(value, student)
        assert value.isfinite() and gradient.isfinite().all()


def test_margins_span_the_range_that_is_set():
    # Two identities at right angles for the teacher; the student maps all faces to one place,
    # where the loss is the mean margin.
    teacher = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    student = torch.ones(3, 4)
    labels = torch.tensor([0, 0, 1])
    value = triplet_distillation_loss(student, teacher, labels, margin_min=0.1, margin_max=0.7)
    assert value.item() == pytest.approx(0.7)
    value = triplet_distillation_loss(student, student, labels, margin_min=0.1, margin_max=0.7)
    assert value.item() == pytest.approx(0.1)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [5, 5, 5, 5]])
def test_a_batch_without_triplets_gives_zero_with_a_graph(labels):
    student = torch.randn(4, 6, requires_grad=True)
    value = triplet_distillation_loss(student, torch.randn(4, 9), torch.tensor(labels))
    assert value.item() == 0
    value.backward()
    assert (student.grad == 0).all()


def test_gradients_equal_finite_differences_and_leave_the_teacher_alone():
    student, teacher, labels = (torch.from_numpy(x) for x in made(6, 2))
    student.requires_grad_()
    for distance in ("squared", "angle"):
        assert torch.autograd.gradcheck(
            lambda s, d=distance: triplet_distillation_loss(s, teacher, labels, distance=d), student
        )
    teacher.requires_grad_()
    triplet_distillation_loss(student, teacher, labels).backward()
    assert teacher.grad is None


def test_module_needs_labels_and_passes_its_settings_on():
    student, teacher, labels = (torch.from_numpy(x) for x in made(8, 3))
    sides = side(student), side(teacher)
    loss = LOSSES.get("triplet_distillation")(DIMS, margin_min=0.3, margin_max=0.9)
    expected = triplet_distillation_loss(student, teacher, labels, margin_min=0.3, margin_max=0.9)
    assert loss(*sides, LossBatch(labels=labels)).item() == pytest.approx(expected.item())
    assert loss.needs == {"labels"}
    with pytest.raises(LossError, match=r"triplet_distillation needs labels"):
        loss(*sides, LossBatch(labels=None))
    with pytest.raises(ConfigError, match=r"margin_min 0\.6 is above margin_max 0\.5"):
        TripletDistillationLoss(DIMS, margin_min=0.6)
