import numpy as np
import pytest
import torch
from helpers.relational_losses import agrees, cases, ident

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses import FeatureDims, LossBatch
from arcface_cakd.losses.sp_loss import SPLoss, sp_loss
from arcface_cakd.registry import LOSSES

DIMS = FeatureDims(8, 12, 3, 5)


def reference(student, teacher):
    def similarities(features):
        features = features.reshape(len(features), -1)
        products = np.array([[a @ b for b in features] for a in features])
        return products / np.sqrt((products**2).sum(1))[:, None]

    return ((similarities(student) - similarities(teacher)) ** 2).sum() / len(student) ** 2


@pytest.mark.parametrize(
    ("student", "teacher"), [((1, 4), (1, 4)), ((6, 16), (6, 20)), ((5, 9, 3), (5, 4, 8))]
)
def test_equals_a_float64_reference(student, teacher):
    rng = np.random.default_rng(student[0])
    student, teacher = rng.normal(size=student), rng.normal(size=teacher)
    ours = sp_loss(torch.from_numpy(student), torch.from_numpy(teacher))
    assert ours.item() == pytest.approx(reference(student, teacher), rel=1e-12, abs=1e-30)


@pytest.mark.parametrize("case", cases("sp"), ids=ident)
def test_equals_published_code(case):
    agrees(case, sp_loss)


def test_zero_at_equality_up_to_rotation():
    z = torch.randn(5, 8, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q
    assert sp_loss(2 * z @ rotation, z).item() == pytest.approx(0, abs=1e-20)


def test_gradients_equal_finite_differences():
    z = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: sp_loss(z[0], z[1]), z)


def test_setting_chooses_the_features():
    student = FaceFeatures(torch.randn(4, 8), torch.randn(4, 9, 3), (3, 3))
    teacher = FaceFeatures(torch.randn(4, 12), torch.randn(4, 4, 5), (2, 2))
    batch = LossBatch(labels=None)
    plain, tokens = LOSSES.get("sp")(DIMS), SPLoss(DIMS, features="tokens")
    assert (plain.needs, tokens.needs) == (frozenset(), {"tokens"})
    expected = sp_loss(student.embedding, teacher.embedding).item()
    assert plain(student, teacher, batch).item() == pytest.approx(expected)
    expected = sp_loss(student.tokens, teacher.tokens).item()
    assert tokens(student, teacher, batch).item() == pytest.approx(expected)
    with pytest.raises(ConfigError, match=r"embedding.*tokens"):
        check_settings(SPLoss, {"features": "logits"}, "cakd.losses[0]")
