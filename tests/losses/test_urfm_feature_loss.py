import numpy as np
import pytest
import torch

from arcface_cakd.alignment import Alignment, LocalFeatures
from arcface_cakd.losses import FeatureDims, LossBatch
from arcface_cakd.losses.urfm_feature_loss import urfm_feature_loss
from arcface_cakd.registry import LOSSES


@pytest.mark.parametrize("shape", [(1, 4, 2), (3, 9, 16)])
def test_equals_a_float64_reference(shape):
    a, b = np.random.default_rng(shape[1]).normal(size=(2, *shape))
    expected = sum((x - y) ** 2 for x, y in zip(a.flat, b.flat, strict=True)) / a.size
    ours = urfm_feature_loss(torch.from_numpy(a), torch.from_numpy(b))
    assert ours.item() == pytest.approx(expected, abs=1e-12)


def test_is_zero_where_both_are_equal_and_float32():
    x = torch.randn(2, 4, 8).half()
    assert urfm_feature_loss(x, x).item() == 0
    assert urfm_feature_loss(x, x).dtype == torch.float32


def test_gradients_equal_finite_differences():
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: urfm_feature_loss(x[0], x[1]), x)


def test_module_compares_what_was_attended():
    loss = LOSSES.get("urfm_feature")(FeatureDims(8, 8, 3, 3))
    h, attended, attention, lookup = torch.randn(4, 2, 3, 4, 4).unbind()
    sides = [LocalFeatures(h + k, attended * (1 + k), attention + k, lookup) for k in (0, 1)]
    value = loss(None, None, LossBatch(labels=None, alignment=Alignment(*sides, anchored=None)))
    assert value.item() == pytest.approx(attended.square().mean().item(), rel=1e-5)
    assert loss.needs == {"tokens", "alignment"}
