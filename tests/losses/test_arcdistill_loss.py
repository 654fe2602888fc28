import numpy as np
import pytest
import torch
from golden.make_class_losses import cases, inputs
from helpers.class_losses import check_golden, cosines, frozen_head, log_probabilities, side

from arcface_cakd.config import check_settings
from arcface_cakd.losses import FeatureDims, LossBatch
from arcface_cakd.losses.arcdistill_loss import ArcDistillLoss, arcdistill_loss
from arcface_cakd.registry import LOSSES

DIMS = FeatureDims(8, 8, 3, 3)


def reference(cosine, labels, scale, margin):
    total = 0.0
    for row, y in zip(cosine, labels, strict=True):
        logits = scale * row
        logits[y] = scale * np.cos(np.arccos(row[y]) + margin)
        total -= log_probabilities(logits)[y]
    return total / len(labels)


@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (4, 7), (9, 50)])
@pytest.mark.parametrize(("scale", "margin"), [(64.0, 0.5), (10.0, 0.0), (30.0, 0.8)])
def test_equals_a_float64_reference(rows, classes, scale, margin):
    rng = np.random.default_rng(rows)
    cosine, labels = rng.uniform(-1, 1, (rows, classes)), rng.integers(0, classes, rows)
    columns = torch.from_numpy(labels).view(-1, 1)
    got = arcdistill_loss(torch.from_numpy(cosine), columns, scale, margin)
    assert got.item() == pytest.approx(reference(cosine, labels, scale, margin), rel=1e-12)


def test_gradients():
    x = torch.empty(3, 5, dtype=torch.float64).uniform_(-0.9, 0.9).requires_grad_()
    columns = torch.tensor([[4], [0], [0]])
    assert torch.autograd.gradcheck(lambda x: arcdistill_loss(x, columns, 8.0, 0.5), x)
    # Straight through the margin: the softmax alone.
    gradients = torch.autograd.grad(arcdistill_loss(x, columns, 8.0, 0.5, "straight_through"), x)
    logits = 8 * x.detach()
    moved = 8 * torch.cos(logits.gather(1, columns).div(8).acos() + 0.5)
    logits.scatter_(1, columns, moved)
    expected = 8 * (logits.softmax(1) - torch.zeros(3, 5).scatter(1, columns, 1.0)) / 3
    torch.testing.assert_close(gradients[0], expected)


@pytest.mark.parametrize("case", cases("arcdistill"), ids=lambda c: str(c["seed"]))
def test_equals_published_code(case):
    given, loss = inputs(case["seed"], 8), ArcDistillLoss(DIMS, **case["settings"])
    batch = LossBatch(given.labels, teacher_fc=frozen_head(given.teacher_centers))
    check_golden(
        case, lambda student: loss(side(student), side(given.teacher), batch), given.student
    )


def test_module_uses_the_teachers_centers_and_nothing_else_of_it():
    given = inputs(3, 8)
    settings = check_settings(ArcDistillLoss, {"scale": 20, "margin": 0.3}, "cakd.losses[0]")
    loss = LOSSES.get("arcdistill")(DIMS, **settings)
    batch = LossBatch(given.labels, teacher_fc=frozen_head(given.teacher_centers))
    value = loss(side(given.student), side(torch.full((6, 8), torch.nan)), batch)
    cosine = cosines(given.student, given.teacher_centers)
    assert value.item() == pytest.approx(reference(cosine, given.labels, 20, 0.3), rel=1e-12)
    assert loss.needs == {"labels", "centers"}


def test_projection_brings_the_student_among_the_centers():
    given = inputs(3)  # widths 8 and 10
    loss = ArcDistillLoss(FeatureDims(8, 10, 3, 3), projection=True).double()
    batch = LossBatch(given.labels, teacher_fc=frozen_head(given.teacher_centers))
    value = loss(side(given.student), side(given.teacher), batch)
    projected = given.student @ loss.projection.weight.detach().T
    cosine = cosines(projected, given.teacher_centers)
    assert value.item() == pytest.approx(reference(cosine, given.labels, 64, 0.5), rel=1e-12)
    value.backward()
    assert loss.projection.weight.grad.abs().sum() > 0
