import itertools

import numpy as np
import pytest
import torch
from helpers.relational_losses import agrees, cases, ident, inputs

from arcface_cakd.config import ConfigError
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses import FeatureDims, LossBatch
from arcface_cakd.losses.rkd_loss import RKDLoss, rkd_loss
from arcface_cakd.registry import LOSSES


def huber(difference):
    size = abs(difference)
    return 0.5 * size**2 if size < 1 else size - 0.5


def relations(x):
    batch = range(len(x))
    distance = {(i, j): np.sqrt(((x[i] - x[j]) ** 2).sum()) for i in batch for j in batch}
    mean = np.mean([d for (i, j), d in distance.items() if i != j])
    angle = {}
    for i, j, k in itertools.product(batch, repeat=3):
        a, b = x[i] - x[j], x[k] - x[j]
        lengths = np.sqrt(a @ a) * np.sqrt(b @ b)
        angle[i, j, k] = a @ b / lengths if lengths > 0 else 0.0
    return {pair: d / mean for pair, d in distance.items()}, angle


def reference(student, teacher, distance_weight=25.0, angle_weight=50.0):
    parts = [
        np.mean([huber(s[key] - t[key]) for key in s])
        for s, t in zip(relations(student), relations(teacher), strict=True)
    ]
    return distance_weight * parts[0] + angle_weight * parts[1]


def side(embedding):
    return FaceFeatures(embedding, torch.zeros(len(embedding), 1, 3), (1, 1))


@pytest.mark.parametrize(("batch", "widths"), [(2, (3, 5)), (6, (16, 16)), (9, (8, 32))])
def test_equals_a_float64_reference(batch, widths):
    rng = np.random.default_rng(batch)
    student, teacher = (
        scale * rng.normal(size=(batch, w)) for scale, w in zip((1, 9), widths, strict=True)
    )
    ours = rkd_loss(torch.from_numpy(student), torch.from_numpy(teacher))
    assert ours.item() == pytest.approx(reference(student, teacher), rel=1e-9)


@pytest.mark.parametrize("case", cases("rkd"), ids=ident)
def test_equals_published_code(case):
    agrees(case, rkd_loss, tolerance=1e-6)


def test_zero_at_equality_up_to_scale_and_shift():
    z = torch.randn(5, 8, dtype=torch.float64)
    assert rkd_loss(3 * z + 1, z).item() == pytest.approx(0, abs=1e-12)


def test_weights_choose_the_parts():
    student, teacher = np.random.default_rng(0).normal(size=(2, 5, 4))
    both = torch.from_numpy(student), torch.from_numpy(teacher)
    for weights in ((1.0, 0.0), (0.0, 1.0), (2.0, 3.0)):
        ours = rkd_loss(*both, distance_weight=weights[0], angle_weight=weights[1])
        assert ours.item() == pytest.approx(reference(student, teacher, *weights), rel=1e-9)
        loss = LOSSES.get("rkd")(
            FeatureDims(4, 4, 3, 3), distance_weight=weights[0], angle_weight=weights[1]
        )
        value = loss(side(both[0]), side(both[1]), LossBatch(labels=None))
        assert value.item() == pytest.approx(ours.item(), rel=1e-12)
    with pytest.raises(ConfigError, match=r"distance_weight and angle_weight"):
        RKDLoss(FeatureDims(4, 4, 3, 3), distance_weight=0.0, angle_weight=0.0)


def test_gradients_equal_finite_differences():
    z = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: rkd_loss(z[0], z[1]), z)


def test_images_that_coincide_have_finite_gradients():
    for student in (torch.ones(4, 3), torch.tensor([[1.0, 0], [1.0, 0], [0, 2.0], [3, 3]])):
        student.requires_grad_()
        value = rkd_loss(student, torch.randn(4, 3))
        value.backward()
        assert value.isfinite() and student.grad.isfinite().all()


@pytest.mark.parametrize("scale", [1e-18, 1e-9, 1e9, 1e17])
def test_embeddings_of_any_length_compare_alike_in_float32(scale):
    student, teacher = torch.randn(2, 6, 16)

    def gradient(scale):
        x = (scale * student).requires_grad_()
        value = rkd_loss(x, teacher)
        value.backward()
        return value.detach(), x.grad * scale

    torch.testing.assert_close(gradient(scale), gradient(1.0), rtol=1e-4, atol=1e-4)
    # Squares of these are below float32's normal numbers.
    assert all(x.isfinite().all() for x in gradient(1e-20))


def test_angles_in_parts_and_of_some_vertices_add_up(monkeypatch):
    student, teacher, _ = inputs(3)
    student.requires_grad_()
    whole = rkd_loss(student, teacher)
    (expected,) = torch.autograd.grad(whole, student)
    monkeypatch.setitem(rkd_loss.__wrapped__.__globals__, "_MAX_ANGLES", 5 * 12**2)
    parts = rkd_loss(student, teacher)
    assert parts.item() == pytest.approx(whole.item(), rel=1e-12)
    for retain in (True, False):
        (found,) = torch.autograd.grad(parts, student, retain_graph=retain)
        torch.testing.assert_close(found, expected)
    halves = [rkd_loss(student, teacher, vertices=range(a, a + 6)) for a in (0, 6)]
    assert sum(halves).item() / 2 == pytest.approx(whole.item(), rel=1e-12)


@pytest.mark.parametrize("gap", [1e-5, 1e-7, 1e-20])
def test_nearly_equal_images_do_not_spoil_float32(gap):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 16, 32, generator=generator)
    student[1] = student[0]
    student[1, 0] += gap

    def gradient(dtype):
        x = student.to(dtype).detach().clone().requires_grad_()
        rkd_loss(x, teacher.to(dtype), distance_weight=0.0).backward()
        return x.grad.double()

    torch.testing.assert_close(
        gradient(torch.float32), gradient(torch.float64), rtol=1e-3, atol=1e-5
    )
