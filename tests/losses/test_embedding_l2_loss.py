import numpy as np
import pytest
import torch
from helpers.relational_losses import agrees, cases, ident

from arcface_cakd.config import ConfigError
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses import FeatureDims, LossBatch
from arcface_cakd.losses.embedding_l2_loss import EmbeddingL2Loss, embedding_l2_loss
from arcface_cakd.registry import LOSSES


def side(embedding):
    return FaceFeatures(embedding, torch.zeros(len(embedding), 1, 3), (1, 1))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("batch", "width"), [(1, 4), (5, 16), (32, 512)])
def test_equals_a_float64_reference(batch, width, normalize):
    student, teacher = np.random.default_rng(batch).normal(size=(2, batch, width))
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        if normalize:
            s, t = s / np.sqrt(s @ s), t / np.sqrt(t @ t)
        total += sum((a - b) ** 2 for a, b in zip(s, t, strict=True))
    both = torch.from_numpy(student), torch.from_numpy(teacher)
    ours = embedding_l2_loss(*both, normalize=normalize)
    assert ours.item() == pytest.approx(total / batch, rel=1e-12)


@pytest.mark.parametrize("case", cases("embedding_l2"), ids=ident)
def test_raw_over_the_width_is_what_published_code_computes(case):
    agrees(case, lambda s, t: embedding_l2_loss(s, t, normalize=False), factor=1 / 16)


def test_zero_at_equality_and_four_at_most():
    z = torch.randn(4, 8, dtype=torch.float64)
    assert embedding_l2_loss(3 * z, z).item() == pytest.approx(0, abs=1e-12)
    assert embedding_l2_loss(z, z, normalize=False).item() == 0
    assert embedding_l2_loss(-z, z).item() == pytest.approx(4)


@pytest.mark.parametrize("normalize", [True, False])
def test_gradients_equal_finite_differences(normalize):
    z = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: embedding_l2_loss(z[0], z[1], normalize=normalize), z)


def test_widths_that_differ_need_the_projection():
    dims = FeatureDims(8, 12, 3, 3)
    with pytest.raises(ConfigError, match=r"embedding_l2.*8.*12.*projection=True"):
        EmbeddingL2Loss(dims)
    loss = LOSSES.get("embedding_l2")(dims, projection=True, normalize=False)
    student, teacher = torch.randn(4, 8), torch.randn(4, 12)
    value = loss(side(student), side(teacher), LossBatch(labels=None))
    expected = (student @ loss.projection.weight.T - teacher).square().sum(1).mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    value.backward()
    assert loss.projection.weight.grad.abs().sum() > 0
