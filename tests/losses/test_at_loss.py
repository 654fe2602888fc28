import numpy as np
import pytest
import torch
from helpers.feature_maps import agrees, cases, dims_of, features, ident, pooled, random_maps, value

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.losses.at_loss import ATLoss, at_loss
from arcface_cakd.registry import LOSSES


def reference(student, teacher, p=2.0):
    grid = tuple(np.minimum(student.shape[2:], teacher.shape[2:]))
    totals = []
    for ours, theirs in zip(student, teacher, strict=True):
        maps = []
        for x in (pooled(ours, grid), pooled(theirs, grid)):
            energy = np.array(
                [
                    [np.mean([abs(v) ** p for v in column]) for column in row]
                    for row in x.transpose(1, 2, 0)
                ]
            )
            maps.append(energy / np.sqrt((energy**2).sum()))
        totals.append(((maps[0] - maps[1]) ** 2).mean())
    return np.mean(totals)


@pytest.mark.parametrize(
    ("student", "teacher", "p"),
    [
        ((1, 2, 2, 2), (1, 3, 2, 2), 2.0),
        ((3, 4, 8, 8), (3, 6, 4, 4), 2.0),
        ((2, 5, 3, 7), (2, 2, 7, 3), 1.0),
        ((2, 5, 7, 7), (2, 3, 7, 7), 3.0),
    ],
)
def test_equals_a_float64_reference(student, teacher, p):
    ours, theirs = random_maps(student[0], student, teacher)
    expected = reference(ours.numpy(), theirs.numpy(), p)
    assert at_loss(ours, theirs, p).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("case", cases("at"), ids=ident)
def test_equals_published_code(case):
    agrees(case, lambda s, t: sum(at_loss(*pair) for pair in zip(s, t, strict=True)))


def test_the_papers_loss_is_the_norm_of_the_same_difference():
    ours, theirs = random_maps(1, (1, 4, 3, 3), (1, 6, 3, 3))
    flat = [(x**2).sum(1).flatten() for x in (ours, theirs)]
    norm = torch.linalg.norm(flat[0] / flat[0].norm() - flat[1] / flat[1].norm())
    assert (at_loss(ours, theirs) * 9).sqrt().item() == pytest.approx(norm.item())


def test_zero_at_equality_whatever_scale_and_width():
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert at_loss(x, 3 * torch.cat([x, -x], 1)).item() == pytest.approx(0, abs=1e-20)
    assert at_loss(x.half(), x.half()).dtype == torch.float32


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_gradients_equal_finite_differences_and_are_finite_at_zero(p):
    x = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: at_loss(x[0], x[1], p), x)
    zero = torch.zeros(1, 3, 2, 2, requires_grad=True)
    at_loss(zero, torch.randn(1, 3, 2, 2), p).backward()
    assert zero.grad.isfinite().all()


def test_module_adds_the_stages():
    ours = random_maps(1, (2, 4, 8, 8), (2, 5, 4, 4), (2, 3, 2, 2))
    theirs = random_maps(2, (2, 7, 4, 4), (2, 6, 4, 4))
    sides = features(ours[2], ours), features(theirs[1], theirs)
    dims = dims_of(*sides)
    plain = LOSSES.get("at")(dims)
    assert plain.needs == {"tokens"} and not list(plain.parameters())
    expected = reference(ours[2].numpy(), theirs[1].numpy())
    assert value(plain, *sides).item() == pytest.approx(expected)
    loss = ATLoss(dims, **check_settings(ATLoss, {"stages": [-2, -1], "p": 1}, "cakd.losses[0]"))
    assert loss.needs == {"stages"}
    expected = sum(reference(ours[i].numpy(), theirs[i].numpy(), 1.0) for i in (-2, -1))
    assert value(loss, *sides).item() == pytest.approx(expected)


def test_errors():
    side = features(torch.zeros(1, 3, 2, 2), [torch.zeros(1, 4, 4, 4)])
    with pytest.raises(ConfigError, match="at: the student has no stage 1"):
        ATLoss(dims_of(side, side), stages=(0, 1))
    with pytest.raises(ConfigError, match=r"losses\[0\]\.p must be at least 1"):
        check_settings(ATLoss, {"p": 0.5}, "cakd.losses[0]")
