import numpy as np
import pytest
import torch

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses import FeatureDims, LossBatch
from arcface_cakd.losses.iled_rpsd_loss import ILEDRPSDLoss, iled_loss, rpsd_loss
from arcface_cakd.registry import LOSSES

DIMS = FeatureDims(6, 6, 3, 3)


def side(embedding):
    return FaceFeatures(embedding, torch.zeros(len(embedding), 1, 3), (1, 1))


def run(loss, student, teacher):
    return loss(side(student), side(teacher), LossBatch(labels=None))


def unit(x):
    return x / np.sqrt((x * x).sum(-1, keepdims=True))


class Reference:
    """By loops, in float64, with a list for a bank."""

    def __init__(self, size, easy, relation):
        self.size, self.easy, self.relation = size, easy, relation
        self.bank = []

    def __call__(self, student, teacher):
        batch = list(zip(unit(student), unit(teacher), strict=True))
        distances = [1 - s @ t for s, t in batch]
        weights = [1 if d >= np.mean(distances) else self.easy for d in distances]
        instance = np.average(distances, weights=weights)
        rows = []
        for i, (s, t) in enumerate(batch):
            others = [other for j, other in enumerate(batch) if j != i] + self.bank
            gaps = np.array([s @ other_s - t @ other_t for other_s, other_t in others])
            mined = gaps[np.abs(gaps) >= np.abs(gaps).mean()]
            rows.append((mined**2).mean())
        self.bank = (self.bank + batch)[-self.size :] if self.size else []
        return instance + self.relation * np.mean(rows)


@pytest.mark.parametrize("size", [0, 3, 7, 40])
@pytest.mark.parametrize(("easy", "relation"), [(0.0, 1.0), (0.3, 2.0), (1.0, 0.0)])
def test_equals_a_float64_reference_over_many_batches(size, easy, relation):
    settings = {"bank_size": size, "easy_weight": easy, "relation_weight": relation}
    loss = ILEDRPSDLoss(DIMS, **check_settings(ILEDRPSDLoss, settings, "")).double()
    reference = Reference(size, easy, relation)
    rng = np.random.default_rng(size)
    for number in range(6):
        count = 9 if number == 3 else 5
        student, teacher = rng.normal(size=(2, count, 6))
        found = run(loss, torch.from_numpy(student), torch.from_numpy(teacher))
        assert found.item() == pytest.approx(reference(student, teacher), rel=1e-12)
    assert loss.banked == (0 if not size else sum(min(n, size) for n in (5, 5, 5, 9, 5, 5)))


def test_gradients_equal_finite_differences():
    torch.manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(2, 4, 3, dtype=torch.float64), dim=2)
    others = torch.randn(2, 5, 3, dtype=torch.float64)
    compared = torch.ones(4, 5, dtype=torch.float64)
    compared[0, 2] = compared[3] = 0
    assert torch.autograd.gradcheck(
        lambda x: iled_loss(x[0], x[1], 0.2) + rpsd_loss(x[0], x[1], *others, compared),
        x.requires_grad_(),
    )


def test_only_hard_images_and_pairs_have_gradient():
    student = torch.eye(4)[:3].requires_grad_()
    teacher = torch.eye(4)[:3].clone()
    teacher[2] = torch.tensor([0.0, 0.0, 0.6, 0.8])
    (gradient,) = torch.autograd.grad(iled_loss(student, teacher), student)
    assert gradient.abs().sum(1).bool().tolist() == [False, False, True]
    (gradient,) = torch.autograd.grad(iled_loss(student, teacher, 0.5), student)
    assert gradient.abs().sum(1).bool().tolist() == [True, True, True]
    # The first image has one of two pairs wrong.
    gap = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    value = rpsd_loss(student[:1], student[:1], gap @ torch.eye(3, 4), torch.zeros(2, 4),
                      torch.ones(1, 2))  # fmt: skip
    assert value.item() == pytest.approx(1.0)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_equal_distances_are_all_hard(count):
    """Whatever the rounding of their mean."""
    student = torch.full((count, 6), 0.1).requires_grad_()
    teacher = torch.tensor([0.1, 0.3, 0.1, 0.2, 0.1, 0.1]).expand(count, 6)
    loss = ILEDRPSDLoss(DIMS, bank_size=0)
    value = run(loss, student, teacher)
    expected = 1 - torch.cosine_similarity(student[:1], teacher[:1]).item()
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_the_bank_keeps_the_latest_and_is_left_alone_in_evaluation():
    loss = ILEDRPSDLoss(DIMS, bank_size=4).double()
    x = torch.randn(6, 6, dtype=torch.float64)
    run(loss, x, -x)
    unit_x = torch.nn.functional.normalize(x[-4:], dim=1)
    torch.testing.assert_close(loss.bank, torch.cat([unit_x, -unit_x], 1))
    kept = loss.bank.clone()
    run(loss.eval(), x[:2], x[:2])
    assert torch.equal(loss.bank, kept)
    run(loss.train(), x[:1], x[:1])
    assert (loss.bank != kept).any(1).sum() == 1


def test_settings():
    assert LOSSES.get("iled_rpsd") is ILEDRPSDLoss
    with pytest.raises(ConfigError, match=r"iled_rpsd.*6.*9.*projection=True"):
        ILEDRPSDLoss(FeatureDims(6, 9, 3, 3))
    loss = ILEDRPSDLoss(FeatureDims(6, 9, 3, 3), projection=True, bank_size=2)
    assert run(loss, torch.randn(4, 6), torch.randn(4, 9)).isfinite()
    with pytest.raises(ConfigError, match="easy_weight must be"):
        check_settings(ILEDRPSDLoss, {"easy_weight": 2.0}, "")
