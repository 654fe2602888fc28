import math

import numpy as np
import pytest
import torch
from helpers.relational_losses import agrees, cases, ident

from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses import FeatureDims, LossBatch
from arcface_cakd.losses.pkt_loss import pkt_loss
from arcface_cakd.registry import LOSSES


def reference(student, teacher, epsilon=1e-7):
    def probabilities(x):
        unit = [row / math.sqrt(row @ row) for row in x]
        kernel = [[(a @ b + 1) / 2 for b in unit] for a in unit]
        return [[k / sum(row) for k in row] for row in kernel]

    total = 0.0
    for row_s, row_t in zip(probabilities(student), probabilities(teacher), strict=True):
        for s, t in zip(row_s, row_t, strict=True):
            total += t * math.log((t + epsilon) / (s + epsilon))
    return total / len(student) ** 2


@pytest.mark.parametrize(("batch", "widths"), [(2, (3, 5)), (7, (16, 16)), (24, (8, 64))])
def test_equals_a_float64_reference(batch, widths):
    rng = np.random.default_rng(batch)
    student, teacher = (rng.normal(size=(batch, width)) for width in widths)
    ours = pkt_loss(torch.from_numpy(student), torch.from_numpy(teacher))
    assert ours.item() == pytest.approx(reference(student, teacher), rel=1e-9)


@pytest.mark.parametrize("case", cases("pkt"), ids=ident)
def test_equals_published_code(case):
    epsilon = 1e-6 if case["repository"] == "JDAI-CV/FaceX-Zoo" else 1e-7
    # They add it to the lengths of embeddings too.
    agrees(case, lambda s, t: pkt_loss(s, t, epsilon=epsilon), tolerance=50 * epsilon)


def test_zero_at_equality_and_never_below():
    z = torch.randn(5, 8, dtype=torch.float64)
    assert pkt_loss(3 * z, z).item() == pytest.approx(0, abs=1e-15)
    assert pkt_loss(torch.randn(5, 8), torch.randn(5, 8)).item() > 0


def test_gradients_equal_finite_differences():
    z = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: pkt_loss(z[0], z[1]), z)


def test_opposite_embeddings_are_finite():
    student = torch.tensor([[1.0, 2, 3], [-1, -2, -3]], requires_grad=True)
    value = pkt_loss(student, torch.randn(2, 3))
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()


def test_module_equals_function():
    student, teacher = torch.randn(4, 8), torch.randn(4, 12)
    sides = (FaceFeatures(z, torch.zeros(4, 1, 3), (1, 1)) for z in (student, teacher))
    value = LOSSES.get("pkt")(FeatureDims(8, 12, 3, 3))(*sides, LossBatch(labels=None))
    assert value.item() == pytest.approx(pkt_loss(student, teacher).item())
