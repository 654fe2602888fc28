import numpy as np
import pytest
import torch
from golden.make_class_losses import inputs
from golden.make_margindistillation_losses import cases
from golden.make_margindistillation_losses import inputs as published_inputs
from helpers.class_losses import check_golden, cosines, frozen_head, log_probabilities, side

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.losses import FeatureDims, LossBatch
from arcface_cakd.losses.arcdistill_loss import arcdistill_loss
from arcface_cakd.losses.margin_distillation_loss import (
    MarginDistillationLoss,
    distilled_margins,
    margin_distillation_loss,
)
from arcface_cakd.registry import LOSSES

DIMS = FeatureDims(8, 8, 3, 3)


def reference(of_student, of_teacher, labels, scale=64.0, low=0.2, high=0.5):
    """By loops over rows of cosines to the teacher's centres."""
    closeness = [max(row[y], 0.0) for row, y in zip(of_teacher, labels, strict=True)]
    total = 0.0
    for row, d, y in zip(of_student, closeness, labels, strict=True):
        logits = scale * row
        margin = (high - low) / max(closeness) * d + low
        logits[y] = scale * np.cos(np.arccos(row[y]) + margin)
        total -= log_probabilities(logits)[y]
    return total / len(labels)


def test_margins_grow_with_the_teachers_closeness():
    closeness = torch.tensor([[0.8], [0.4], [0.0], [-0.3]])
    expected = torch.tensor([[0.5], [0.35], [0.2], [0.2]])
    torch.testing.assert_close(distilled_margins(closeness), expected)
    torch.testing.assert_close(
        distilled_margins(closeness, 0.1, 0.9), torch.tensor([[0.9], [0.5], [0.1], [0.1]])
    )
    apart = torch.tensor([[-0.5], [-0.1]])
    torch.testing.assert_close(distilled_margins(apart), torch.full((2, 1), 0.2))


@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (4, 7), (9, 50)])
def test_equals_a_float64_reference(rows, classes):
    rng = np.random.default_rng(rows)
    of_student, of_teacher = rng.uniform(-1, 1, (2, rows, classes))
    labels = rng.integers(0, classes, rows)
    of_teacher[0, labels[0]] = 0.9  # one at least is on its centre's side
    columns = torch.from_numpy(labels).view(-1, 1)
    margins = distilled_margins(torch.from_numpy(of_teacher).gather(1, columns))
    got = margin_distillation_loss(torch.from_numpy(of_student), columns, margins)
    assert got.item() == pytest.approx(reference(of_student, of_teacher, labels), rel=1e-12)


@pytest.mark.parametrize("case", cases("margin_distillation"), ids=lambda c: str(c["seed"]))
def test_equals_published_code(case):
    given = {k: torch.from_numpy(array) for k, array in published_inputs(case["seed"]).items()}
    names = {"loss_s": "scale", "Mmin": "margin_min", "Mmax": "margin_max"}
    settings = {names[name]: setting for name, setting in case["settings"].items()}
    loss = MarginDistillationLoss(DIMS, **settings)
    batch = LossBatch(given["labels"], teacher_fc=frozen_head(given["centers"]))
    teacher = side(given["teacher"])
    # MXNet's SoftmaxOutput has 1 / B in float32.
    check_golden(case, lambda z: loss(side(z), teacher, batch), given["student"], 1e-7)


def test_equal_margins_are_arcface():
    x = torch.empty(5, 9, dtype=torch.float64).uniform_(-1, 1).requires_grad_()
    columns = torch.randint(0, 9, (5, 1))
    got = margin_distillation_loss(x, columns, torch.full((5, 1), 0.5), 20.0)
    expected = arcdistill_loss(x, columns, 20.0, 0.5)
    torch.testing.assert_close(got, expected)
    for one, other in zip(
        torch.autograd.grad(got, x), torch.autograd.grad(expected, x), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_gradients():
    x = torch.empty(3, 5, dtype=torch.float64).uniform_(-0.9, 0.9).requires_grad_()
    columns, margins = torch.tensor([[4], [0], [0]]), torch.tensor([[0.2], [0.5], [0.3]])
    assert torch.autograd.gradcheck(
        lambda x: margin_distillation_loss(x, columns, margins.double(), 8.0), x
    )
    extreme = torch.tensor([[1.0, -1.0], [1.0, -1.0]], requires_grad=True)
    margin_distillation_loss(extreme, torch.tensor([[0], [1]]), margins[:2]).backward()
    assert extreme.grad.isfinite().all()


def test_module():
    given = inputs(3, 8)
    settings = {"scale": 20, "margin_min": 0.1, "margin_max": 0.7}
    settings = check_settings(MarginDistillationLoss, settings, "cakd.losses[0]")
    loss = LOSSES.get("margin_distillation")(DIMS, **settings)
    batch = LossBatch(given.labels, teacher_fc=frozen_head(given.teacher_centers))
    teacher = given.teacher.clone().requires_grad_()
    student = given.student.clone().requires_grad_()
    value = loss(side(student), side(teacher), batch)
    sides = (
        cosines(given.student, given.teacher_centers),
        cosines(given.teacher, given.teacher_centers),
    )
    expected = reference(*sides, given.labels, 20.0, 0.1, 0.7)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    value.backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0
    assert loss.needs == {"labels", "centers"}


def test_margins_the_wrong_way_round():
    with pytest.raises(ConfigError, match=r"margin_min 0.6 is above margin_max 0.5"):
        MarginDistillationLoss(DIMS, margin_min=0.6)
