import numpy as np
import pytest
import torch
from golden.make_margindistillation_losses import cases, inputs
from helpers.class_losses import check_golden, side

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.losses import EmbeddingCosineLoss, FeatureDims, LossBatch
from arcface_cakd.losses.embedding_cosine_loss import embedding_cosine_loss
from arcface_cakd.registry import LOSSES


@pytest.mark.parametrize(("batch", "width"), [(1, 4), (5, 16), (32, 512)])
def test_equals_a_float64_reference(batch, width):
    student, teacher = np.random.default_rng(batch).normal(size=(2, batch, width))
    expected = np.mean(
        [1 - s @ t / np.sqrt((s @ s) * (t @ t)) for s, t in zip(student, teacher, strict=True)]
    )
    ours = embedding_cosine_loss(torch.from_numpy(student), torch.from_numpy(teacher))
    assert ours.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("case", cases("angular_distillation"), ids=lambda c: str(c["seed"]))
def test_equals_published_code(case):
    student, teacher = (torch.from_numpy(inputs(case["seed"])[k]) for k in ("student", "teacher"))
    check_golden(case, lambda student: embedding_cosine_loss(student, teacher), student)


def test_extremes():
    z = torch.randn(4, 8, dtype=torch.float64)
    assert embedding_cosine_loss(3 * z, z).item() == pytest.approx(0, abs=1e-12)
    assert embedding_cosine_loss(-z, z).item() == pytest.approx(2, abs=1e-12)


def test_gradients_equal_finite_differences():
    z = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: embedding_cosine_loss(z[0], z[1]), z)


def test_module_equals_function_and_needs_nothing():
    loss = LOSSES.get("embedding_cosine")(FeatureDims(8, 8, 3, 3))
    student, teacher = torch.randn(2, 4, 8)
    value = loss(side(student), side(teacher), LossBatch(labels=None))
    assert value.item() == pytest.approx(embedding_cosine_loss(student, teacher).item())
    assert loss.needs == frozenset()
    assert not list(loss.parameters())


def test_widths_that_differ_need_the_projection():
    dims = FeatureDims(8, 12, 3, 3)
    with pytest.raises(ConfigError, match=r"8.*12.*projection=True"):
        EmbeddingCosineLoss(dims)
    settings = check_settings(EmbeddingCosineLoss, {"projection": True}, "cakd.losses[0]")
    loss = EmbeddingCosineLoss(dims, **settings)
    student, teacher = torch.randn(4, 8), torch.randn(4, 12)
    value = loss(side(student), side(teacher), LossBatch(labels=None))
    expected = embedding_cosine_loss(student @ loss.projection.weight.T, teacher)
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)
    value.backward()
    assert loss.projection.weight.grad.abs().sum() > 0


def test_is_float32_under_autocast():
    loss = EmbeddingCosineLoss(FeatureDims(8, 12, 3, 3), projection=True)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(side(torch.randn(4, 8)), side(torch.randn(4, 12)), LossBatch(labels=None))
    assert value.dtype == torch.float32
    half = torch.randn(2, 4, 8).half()
    assert embedding_cosine_loss(half[0], half[1]).dtype == torch.float32
