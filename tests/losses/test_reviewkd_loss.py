import numpy as np
import pytest
import torch
from helpers.feature_maps import (
    agrees,
    cases,
    convolve,
    dims_of,
    features,
    fill,
    hierarchical,
    ident,
    nearest,
    normalise,
    random_maps,
    value,
)
from helpers.processes import run_ranks

from arcface_cakd import distributed
from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.losses.reviewkd_loss import (
    ReviewKDLoss,
    hierarchical_context_loss,
    reviewkd_loss,
)
from arcface_cakd.registry import LOSSES


def reference(loss, student, teacher):
    total, deeper = 0.0, None
    for level, ours, theirs in zip(loss.levels[::-1], student[::-1], teacher[::-1], strict=True):
        weights = {name: p.detach().numpy() for name, p in level.named_parameters()}
        x = normalise(convolve(ours, weights["reduce.0.weight"]), level.reduce[1])
        if deeper is not None:
            deeper = nearest(deeper, x.shape[2:])
            both = np.concatenate([x, deeper], 1)
            logits = convolve(both, weights["attention.weight"], weights["attention.bias"])
            a = 1 / (1 + np.exp(-logits))
            x = x * a[:, :1] + deeper * a[:, 1:]
        deeper = nearest(x, theirs.shape[2:])
        out = normalise(convolve(deeper, weights["expand.0.weight"]), level.expand[1])
        total += hierarchical(out, theirs)
    return total


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 7, 8])
def test_context_loss_equals_a_float64_reference(side):
    ours, theirs = random_maps(side, (2, 3, side, side), (2, 3, side, side))
    expected = hierarchical(ours.numpy(), theirs.numpy())
    found = hierarchical_context_loss(ours, theirs)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_context_loss_is_zero_at_equality_adds_up_and_is_float32():
    x, y = torch.randn(2, 2, 3, 8, 8)
    assert hierarchical_context_loss(x, x).item() == 0
    assert hierarchical_context_loss(x.half(), y.half()).dtype == torch.float32
    expected = hierarchical_context_loss(x, y) + hierarchical_context_loss(y, x + 1)
    assert reviewkd_loss([x, y], [y, x + 1]).item() == pytest.approx(expected.item())


def test_context_loss_knows_a_shift_from_noise():
    """Of two maps equally far from the teacher's, the one that is off everywhere alike loses."""
    teacher = torch.zeros(1, 1, 8, 8)
    noise = torch.ones(8, 8)
    noise[(torch.arange(8)[:, None] + torch.arange(8)) % 2 == 0] = -1
    shifted = hierarchical_context_loss(torch.ones(1, 1, 8, 8), teacher)
    assert shifted.item() == pytest.approx(1)
    assert hierarchical_context_loss(noise.view(1, 1, 8, 8), teacher) < 0.6


def test_gradients_equal_finite_differences():
    x = torch.randn(2, 1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: hierarchical_context_loss(x[0], x[1]), x)


def module(student, teacher, seed, **settings):
    dims = dims_of(features(None, student), features(None, teacher))
    settings = check_settings(ReviewKDLoss, settings, "cakd.losses[0]")
    loss = ReviewKDLoss(dims, **settings).double()
    fill(loss.parameters(), seed)
    return loss


@pytest.mark.parametrize("case", cases("reviewkd"), ids=ident)
def test_equals_published_code(case):
    def ours(student, teacher):
        loss = module(student, teacher, case["seed"])
        return value(loss, features(None, student), features(None, teacher))

    agrees(case, ours, tolerance=1e-8)


@pytest.mark.parametrize(("seed", "mid"), [(1, 512), (2, 3)])
def test_module_equals_a_float64_reference(seed, mid):
    ours = random_maps(seed, (2, 9, 9, 9), (2, 3, 8, 8), (2, 4, 4, 4), (2, 5, 2, 2))
    theirs = random_maps(seed + 9, (2, 6, 8, 8), (2, 7, 8, 8), (2, 4, 2, 2))
    loss = module(ours, theirs, seed, mid_channels=mid)
    assert loss.levels[0].reduce[0].weight.shape[0] == min(mid, 5)
    found = value(loss, features(None, ours), features(None, theirs))
    expected = reference(loss, [x.numpy() for x in ours[1:]], [x.numpy() for x in theirs])
    assert found.item() == pytest.approx(expected, rel=1e-10)
    found.backward()
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


def test_stages_setting_and_evaluation():
    ours = random_maps(1, (2, 3, 8, 8), (2, 4, 4, 4), (2, 5, 2, 2))
    theirs = random_maps(2, (2, 6, 8, 8), (2, 7, 4, 4), (2, 4, 2, 2))
    loss = module(ours, theirs, 3, stages=[0, 2])
    sides = features(None, ours), features(None, theirs)
    found = value(loss, *sides).item()
    chosen = ([x[0].numpy(), x[2].numpy()] for x in (ours, theirs))
    assert found == pytest.approx(reference(loss, *chosen), rel=1e-10)
    assert value(loss.eval(), *sides).item() == found
    assert not list(loss.buffers())
    assert LOSSES.get("reviewkd").needs == {"stages"}


def on_a_share():
    """Value, and gradients on its images and on the weights, of this rank's share of a batch."""
    share = 4 // distributed.world_size()
    rows = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    # Small, so that BatchNorm's epsilon counts.
    ours = [0.01 * x[rows] for x in random_maps(1, (4, 3, 4, 4), (4, 2, 2, 2))]
    theirs = [x[rows] for x in random_maps(2, (4, 3, 4, 4), (4, 2, 2, 2))]
    for x in ours:
        x.requires_grad_()
    loss = module(ours, theirs, 3)
    found = value(loss, features(None, ours), features(None, theirs))
    found.backward()
    return found.item(), [x.grad for x in ours], [p.grad for p in loss.parameters()]


def test_batch_norm_sees_the_batches_of_all_ranks(tmp_path):
    expected, of_images, of_weights = on_a_share()
    first, second = run_ranks(on_a_share, 2, tmp_path)
    assert (first[0] + second[0]) / 2 == pytest.approx(expected, rel=1e-10)
    for whole, *parts in zip(of_images, first[1], second[1], strict=True):
        torch.testing.assert_close(torch.cat(parts) / 2, whole)
    for whole, *parts in zip(of_weights, first[2], second[2], strict=True):
        torch.testing.assert_close(sum(parts) / 2, whole)


def test_without_stages_is_an_error():
    side = features(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ConfigError, match="reviewkd needs networks with at least 1 stages"):
        ReviewKDLoss(dims_of(side, side))
