import numpy as np
import pytest
import torch
from helpers.feature_maps import agrees, cases, dims_of, features, ident, pooled, random_maps, value

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.losses.fsp_loss import FSPLoss, fsp_loss, fsp_matrix
from arcface_cakd.registry import LOSSES


def reference_matrix(first, second):
    height, width = np.minimum(first.shape[2:], second.shape[2:])
    first, second = (pooled(x, (height, width)) for x in (first, second))
    out = np.zeros((len(first), first.shape[1], second.shape[1]))
    for b, i, j in np.ndindex(out.shape):
        out[b, i, j] = (first[b, i] * second[b, j]).sum() / (height * width)
    return out


def reference(student, teacher):
    total = 0.0
    for i in range(len(student) - 1):
        ours, theirs = (reference_matrix(x[i], x[i + 1]) for x in (student, teacher))
        total += ((ours - theirs) ** 2).mean()
    return total


@pytest.mark.parametrize(
    ("first", "second"), [((1, 2, 4, 4), (1, 3, 4, 4)), ((3, 4, 8, 6), (3, 2, 4, 3))]
)
def test_matrix_equals_a_float64_reference(first, second):
    first, second = random_maps(1, first, second)
    expected = reference_matrix(first.numpy(), second.numpy())
    np.testing.assert_allclose(fsp_matrix(first, second), expected, atol=1e-12)


@pytest.mark.parametrize("seed", [1, 2])
def test_loss_equals_a_float64_reference(seed):
    ours = random_maps(seed, (2, 3, 8, 8), (2, 4, 4, 4), (2, 5, 2, 2))
    theirs = random_maps(seed + 9, (2, 3, 6, 6), (2, 4, 6, 6), (2, 5, 3, 3))
    expected = reference([x.numpy() for x in ours], [x.numpy() for x in theirs])
    assert fsp_loss(ours, theirs).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("case", cases("fsp"), ids=ident)
def test_equals_published_code(case):
    agrees(case, fsp_loss)


def test_zero_at_equality_and_float32_under_autocast():
    maps = [torch.randn(2, 3, 4, 4), torch.randn(2, 5, 2, 2)]
    assert fsp_loss(maps, maps).item() == 0
    other = [torch.randn_like(x) for x in maps]
    with torch.autocast("cpu", torch.bfloat16):
        inside = fsp_loss(maps, other)
    assert inside.dtype == torch.float32
    assert inside.item() == fsp_loss(maps, other).item()


def test_gradients_equal_finite_differences():
    x = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, y: fsp_loss((x[0], y[0]), (x[1], y[1])), (x, y))


def test_module_pairs_the_stages_from_the_last():
    ours = random_maps(1, (2, 9, 8, 8), (2, 3, 8, 8), (2, 4, 4, 4))
    theirs = random_maps(2, (2, 3, 4, 4), (2, 4, 2, 2))
    sides = features(None, ours), features(None, theirs)
    loss = LOSSES.get("fsp")(dims_of(*sides))
    assert loss.needs == {"stages"} and not list(loss.parameters())
    expected = reference([x.numpy() for x in ours[1:]], [x.numpy() for x in theirs])
    assert value(loss, *sides).item() == pytest.approx(expected)


def test_projection_brings_the_student_to_the_teachers_widths():
    ours = random_maps(1, (2, 2, 8, 8), (2, 3, 4, 4), (2, 4, 2, 2))
    theirs = random_maps(2, (2, 5, 8, 8), (2, 6, 4, 4), (2, 4, 2, 2))
    sides = features(None, ours), features(None, theirs)
    dims = dims_of(*sides)
    with pytest.raises(
        ConfigError, match=r"\[2, 3, 4\].*\[5, 6, 4\]: set projection=True"
    ) as error:
        FSPLoss(dims)
    assert "\n" not in str(error.value)
    settings = check_settings(FSPLoss, {"stages": [0, 2], "projection": True}, "cakd.losses[0]")
    loss = FSPLoss(dims, **settings).double()
    mapped = []
    for projection, x in zip(loss.projections, (ours[0], ours[2]), strict=True):
        weight = projection.weight.detach().numpy()[:, :, 0, 0]
        mapped.append(np.einsum("oc,bchw->bohw", weight, x.numpy()))
    found = value(loss, *sides)
    expected = reference(mapped, [theirs[0].numpy(), theirs[2].numpy()])
    assert found.item() == pytest.approx(expected)
    found.backward()
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


def test_too_few_stages_are_an_error():
    side = features(None, [torch.zeros(1, 4, 4, 4)])
    with pytest.raises(ConfigError, match="fsp needs networks with at least 2 stages"):
        FSPLoss(dims_of(side, side))
