import numpy as np
import pytest
import torch
from helpers.feature_maps import agrees, cases, dims_of, features, ident, pooled, random_maps, value

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.losses.fitnet_loss import FitNetLoss, fitnet_loss
from arcface_cakd.registry import LOSSES


@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (4, 5, 7, 7)])
def test_equals_a_float64_reference(shape):
    ours, theirs = random_maps(shape[0], shape, shape)
    pairs = zip(ours.numpy().flat, theirs.numpy().flat, strict=True)
    expected = sum((a - b) ** 2 for a, b in pairs) / ours.numel()
    assert fitnet_loss(ours, theirs).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("case", cases("fitnet"), ids=ident)
def test_equals_published_code(case):
    agrees(case, lambda s, t: fitnet_loss(*s, *t))


def test_zero_at_equality_and_float32():
    x = torch.randn(2, 3, 4, 4).half()
    assert fitnet_loss(x, x).item() == 0
    assert fitnet_loss(x, x).dtype == torch.float32


def test_gradients_equal_finite_differences():
    x = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: fitnet_loss(x[0], x[1]), x)


@pytest.mark.parametrize(
    ("stage", "student", "teacher"),
    [
        (None, (2, 3, 7, 7), (2, 5, 7, 7)),
        (-1, (2, 4, 8, 8), (2, 5, 4, 4)),
        (1, (2, 4, 3, 3), (2, 5, 6, 6)),
    ],
)
def test_module_regresses_the_map_that_the_setting_names(stage, student, teacher):
    ours, theirs = random_maps(1, student, teacher)
    other = torch.zeros(2, 1, 1, 1).double()
    if stage is None:
        sides = features(ours, [other]), features(theirs, [other])
    else:
        sides = features(None, [other, ours]), features(None, [other, theirs])
    settings = check_settings(FitNetLoss, {"stage": stage}, "cakd.losses[0]")
    loss = LOSSES.get("fitnet")(dims_of(*sides), **settings).double()
    assert loss.needs == ({"tokens"} if stage is None else {"stages"})

    weight, bias = loss.regressor.weight.detach().numpy()[:, :, 0, 0], loss.regressor.bias
    mapped = np.einsum("oc,bchw->bohw", weight, ours.numpy())
    mapped = mapped + bias.detach().numpy()[:, None, None]
    grid = tuple(np.minimum(student[2:], teacher[2:]))
    expected = ((pooled(mapped, grid) - pooled(theirs.numpy(), grid)) ** 2).mean()
    found = value(loss, *sides)
    assert found.item() == pytest.approx(expected, abs=1e-12)
    found.backward()
    assert loss.regressor.weight.grad.abs().sum() > 0


def test_a_missing_stage_is_an_error_before_the_first_step():
    side = features(torch.zeros(1, 3, 2, 2), [torch.zeros(1, 4, 4, 4)])
    with pytest.raises(ConfigError, match="fitnet: the student has no stage 2"):
        FitNetLoss(dims_of(side, side), stage=2)
    with pytest.raises(ConfigError, match=r"losses\[0\]\.stage must be int or None"):
        check_settings(FitNetLoss, {"stage": "last"}, "cakd.losses[0]")
