import numpy as np
import pytest
import torch
from helpers.feature_maps import (
    agrees,
    cases,
    dims_of,
    features,
    fill,
    ident,
    pooled,
    random_maps,
    value,
)
from torch.nn import functional as F

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.losses.vid_loss import VIDLoss, vid_loss
from arcface_cakd.registry import LOSSES


def reference(mean, teacher, raw):
    total = 0.0
    for index in np.ndindex(mean.shape):
        variance = np.log1p(np.exp(raw[index[1]])) + 1e-5
        total += 0.5 * ((mean[index] - teacher[index]) ** 2 / variance + np.log(variance))
    return total / mean.size


@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (3, 4, 5, 2)])
def test_equals_a_float64_reference(shape):
    mean, theirs, raw = random_maps(shape[0], shape, shape, shape[1:2])
    expected = reference(mean.numpy(), theirs.numpy(), raw.numpy())
    assert vid_loss(mean, theirs, raw).item() == pytest.approx(expected, rel=1e-12)


def test_is_a_gaussian_log_likelihood():
    mean, theirs, raw = random_maps(1, (2, 3, 2, 2), (2, 3, 2, 2), (3,))
    variance = (F.softplus(raw) + 1e-5).view(-1, 1, 1).expand_as(mean)
    expected = F.gaussian_nll_loss(mean, theirs, variance)
    assert vid_loss(mean, theirs, raw).item() == pytest.approx(expected.item(), rel=1e-12)


def module(student, teacher, **settings):
    sides = features(*student), features(*teacher)
    return VIDLoss(dims_of(*sides), **check_settings(VIDLoss, settings, "cakd.losses[0]")).double()


@pytest.mark.parametrize("case", cases("vid"), ids=ident)
def test_equals_published_code(case):
    def ours(student, teacher):
        loss = module(student, teacher)
        fill([*loss.regressors.parameters(), *loss.raw_variances], case["seed"])
        return value(loss, features(*student), features(*teacher))

    agrees(case, ours)


def test_gradients_equal_finite_differences():
    x = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    raw = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, raw: vid_loss(x[0], x[1], raw), (x, raw))


def test_is_finite_for_extreme_variances_and_float32():
    raw = torch.tensor([-200.0, 200.0], requires_grad=True)
    x = torch.randn(2, 2, 2, 2)
    loss = vid_loss(x.half(), x.half() + 1, raw)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite() and raw.grad.isfinite().all()


@pytest.mark.parametrize("initial", [1e-4, 0.5, 5.0, 200.0])
def test_initial_variance(initial):
    side = [torch.zeros(1, 3, 2, 2)]
    (raw,) = module(side, side, initial_variance=initial).raw_variances
    assert (F.softplus(raw) + 1e-5).tolist() == pytest.approx([initial] * 3, rel=1e-6)


def test_module_adds_the_stages_and_learns_all():
    ours = random_maps(1, (2, 2, 8, 8), (2, 3, 4, 4))
    theirs = random_maps(2, (2, 5, 4, 4), (2, 6, 2, 2))
    sides = features(None, ours), features(None, theirs)
    assert LOSSES.get("vid")(dims_of(*sides)).needs == {"tokens"}
    loss = VIDLoss(dims_of(*sides), stages=(0, 1)).double()
    assert loss.needs == {"stages"}
    fill([*loss.parameters()], 3)
    expected = 0.0
    for i in range(2):
        x = pooled(ours[i].numpy(), theirs[i].shape[2:])
        for layer in (0, 2, 4):
            weight = loss.regressors[i][layer].weight.detach().numpy()[:, :, 0, 0]
            x = np.einsum("oc,bchw->bohw", weight, x if layer == 0 else np.maximum(x, 0))
        expected += reference(x, theirs[i].numpy(), loss.raw_variances[i].detach().numpy())
    found = value(loss, *sides)
    assert found.item() == pytest.approx(expected, rel=1e-10)
    found.backward()
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


def test_errors():
    side = features(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ConfigError, match="vid: the student has no stage 0: it has none"):
        VIDLoss(dims_of(side, side), stages=(0,))
    with pytest.raises(ConfigError, match="initial_variance must be"):
        check_settings(VIDLoss, {"initial_variance": 0.0}, "cakd.losses[0]")
