import math

import numpy as np
import pytest
import torch
from helpers.relational_losses import agrees, cases, ident

from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses import FeatureDims, LossBatch
from arcface_cakd.losses.cckd_loss import cckd_loss
from arcface_cakd.registry import LOSSES


def reference(student, teacher, gamma, order):
    def kernel(x):
        unit = [row / math.sqrt(row @ row) for row in x]
        return [[taylor(a @ b) for b in unit] for a in unit]

    def taylor(cosine):
        terms = ((2 * gamma) ** p / math.factorial(p) * cosine**p for p in range(order + 1))
        return math.exp(-2 * gamma) * sum(terms)

    return np.mean((np.array(kernel(student)) - np.array(kernel(teacher))) ** 2)


@pytest.mark.parametrize(("gamma", "order"), [(0.4, 2), (0.4, 1), (1.5, 5)])
@pytest.mark.parametrize(("batch", "widths"), [(1, (3, 5)), (7, (16, 16)), (24, (8, 64))])
def test_equals_a_float64_reference(batch, widths, gamma, order):
    rng = np.random.default_rng(batch)
    student, teacher = (rng.normal(size=(batch, width)) for width in widths)
    both = torch.from_numpy(student), torch.from_numpy(teacher)
    ours = cckd_loss(*both, gamma=gamma, order=order)
    assert ours.item() == pytest.approx(
        reference(student, teacher, gamma, order), rel=1e-9, abs=1e-30
    )


def test_a_high_order_is_the_gaussian_kernel():
    x, y = (np.random.default_rng(k).normal(size=(6, 4)) for k in (0, 1))

    def kernel(x):
        unit = x / np.sqrt((x**2).sum(1, keepdims=True))
        return np.exp(-0.7 * ((unit[:, None] - unit[None]) ** 2).sum(-1))

    ours = cckd_loss(torch.from_numpy(x), torch.from_numpy(y), gamma=0.7, order=25)
    assert ours.item() == pytest.approx(np.mean((kernel(x) - kernel(y)) ** 2), rel=1e-9)


@pytest.mark.parametrize("case", cases("cckd"), ids=ident)
def test_order_one_equals_published_code(case):
    agrees(case, lambda s, t: cckd_loss(s, t, order=1))


def test_zero_at_equality():
    z = torch.randn(5, 8, dtype=torch.float64)
    assert cckd_loss(3 * z, z).item() == pytest.approx(0, abs=1e-20)


def test_gradients_equal_finite_differences():
    z = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: cckd_loss(z[0], z[1]), z)


def test_module_equals_function():
    student, teacher = torch.randn(4, 8), torch.randn(4, 12)
    sides = [FaceFeatures(z, torch.zeros(4, 1, 3), (1, 1)) for z in (student, teacher)]
    for settings in ({}, {"gamma": 1.0, "order": 3}):
        loss = LOSSES.get("cckd")(FeatureDims(8, 12, 3, 3), **settings)
        expected = cckd_loss(student, teacher, **settings).item()
        assert loss(*sides, LossBatch(labels=None)).item() == pytest.approx(expected)
