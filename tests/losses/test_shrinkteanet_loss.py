import math

import numpy as np
import pytest
import torch
from golden.make_margindistillation_losses import cases, inputs
from helpers.class_losses import side

from arcface_cakd.config import ConfigError
from arcface_cakd.losses import FeatureDims, LossBatch
from arcface_cakd.losses.shrinkteanet_loss import ShrinkTeaNetLoss, shrinkteanet_loss
from arcface_cakd.registry import LOSSES


@pytest.mark.parametrize(("batch", "width"), [(1, 4), (5, 16), (32, 512)])
def test_equals_a_float64_reference(batch, width):
    student, teacher = np.random.default_rng(batch).normal(size=(2, batch, width))
    cosines = [s @ t / math.sqrt((s @ s) * (t @ t)) for s, t in zip(student, teacher, strict=True)]
    expected = sum((1 - c) ** 2 for c in cosines) / batch
    ours = shrinkteanet_loss(torch.from_numpy(student), torch.from_numpy(teacher))
    assert ours.item() == pytest.approx(expected, rel=1e-12)


def test_extremes():
    z = torch.randn(4, 8, dtype=torch.float64)
    assert shrinkteanet_loss(3 * z, z).item() == pytest.approx(0, abs=1e-12)
    assert shrinkteanet_loss(-z, z).item() == pytest.approx(4)
    right_angle = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    assert shrinkteanet_loss(*right_angle).item() == pytest.approx(1)


def test_gradients_equal_finite_differences():
    z = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: shrinkteanet_loss(z[0], z[1]), z)


@pytest.mark.parametrize("case", cases("angular_distillation"), ids=lambda c: str(c["seed"]))
def test_published_code_leaves_out_the_square(case):
    student, teacher = (torch.from_numpy(inputs(case["seed"])[k]) for k in ("student", "teacher"))
    images = list(zip(student.split(1), teacher.split(1), strict=True))
    roots = [shrinkteanet_loss(*pair).sqrt().item() for pair in images]
    assert sum(roots) / len(roots) == pytest.approx(case["value"], rel=1e-9)


def test_widths_that_differ_need_the_projection():
    dims = FeatureDims(8, 12, 3, 3)
    with pytest.raises(ConfigError, match=r"shrinkteanet.*8.*12.*projection=True"):
        ShrinkTeaNetLoss(dims)
    loss = LOSSES.get("shrinkteanet")(dims, projection=True)
    student, teacher = torch.randn(4, 8), torch.randn(4, 12)
    value = loss(side(student), side(teacher), LossBatch(labels=None))
    expected = shrinkteanet_loss(student @ loss.projection.weight.T, teacher)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    value.backward()
    assert loss.projection.weight.grad.abs().sum() > 0
