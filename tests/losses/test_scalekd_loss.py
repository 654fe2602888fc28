import numpy as np
import pytest
import torch
from golden.make_projector_losses import HEADS, WEIGHTS, cases
from helpers.feature_maps import (
    agrees,
    convolve,
    dims_of,
    features,
    fill,
    normalise,
    random_maps,
    value,
)

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.losses.scalekd_loss import ScaleKDLoss, mimicking_loss, without_mean
from arcface_cakd.registry import LOSSES


def module(student, teacher, **settings):
    settings = check_settings(ScaleKDLoss, settings, "cakd.losses[0]")
    return ScaleKDLoss(dims_of(student, teacher), **settings).double()


def unit_difference(ours, theirs):
    """Positions one at a time."""
    found = []
    for b, i, j in np.ndindex(ours.shape[0], *ours.shape[2:]):
        pair = (x[b, :, i, j] for x in (ours, theirs))
        ours_unit, theirs_unit = (x / np.sqrt(x @ x) for x in pair)
        found.append(((ours_unit - theirs_unit) ** 2).sum())
    return np.mean(found)


def linear(x, layer):
    out = x @ layer.weight.detach().numpy().T
    return out if layer.bias is None else out + layer.bias.detach().numpy()


def projected(p, x, grid, heads, sharpness):
    """One image, head and query at a time."""
    stem = normalise(convolve(x, p.stem[0].weight.detach().numpy()), p.stem[1])
    stem = np.maximum(stem, 0) + p.place.detach().numpy()
    query = linear(np.maximum(linear(p.queries.detach().numpy(), p.of_query[0]), 0), p.of_query[2])
    out = np.empty((len(x), len(query), query.shape[1]))
    for b, image in enumerate(stem):
        tokens = image.reshape(len(image), -1).T
        keys, values = linear(tokens, p.key), linear(tokens, p.value)
        attended = np.empty_like(query)
        for columns in np.split(np.arange(query.shape[1]), heads):
            for n, q in enumerate(query[:, columns]):
                score = np.exp(sharpness * keys[:, columns] @ q / np.sqrt(len(q)))
                attended[n, columns] = score @ values[:, columns] / score.sum()
        mixed = linear(attended, p.mix)
        mixed -= mixed.mean(1, keepdims=True)
        mixed /= np.sqrt((mixed**2).mean(1, keepdims=True) + 1e-5)
        normed = mixed * p.norm.weight.detach().numpy() + p.norm.bias.detach().numpy()
        out[b] = normed + linear(np.maximum(linear(normed, p.mlp[0]), 0), p.mlp[2])
    return out.transpose(0, 2, 1).reshape(len(x), -1, *grid)


@pytest.mark.parametrize(
    ("student", "teacher", "settings"),
    [
        ((2, 3, 4, 4), (2, 6, 3, 3), {"num_heads": 2}),
        ((3, 2, 2, 3), (3, 4, 3, 5), {"num_heads": 1, "sharpness": 2.0, "frequency_weight": 0.0}),
        ((2, 3, 3, 3), (2, 8, 3, 3), {"num_heads": 4, "spatial_weight": 0.0}),
    ],
)
def test_module_equals_a_float64_reference(student, teacher, settings):
    ours, theirs = random_maps(1, student, teacher)
    loss = module(features(ours), features(theirs), **settings)
    fill(loss.parameters(), 2)
    wanted = settings["num_heads"], settings.get("sharpness", 5.0)
    both = [
        projected(p, ours.numpy(), teacher[2:], *wanted) for p in (loss.spatial, loss.frequency)
    ]
    centred = (x - x.mean((2, 3))[:, :, None, None] for x in (both[1], theirs.numpy()))
    expected = settings.get("spatial_weight", 1.0) * unit_difference(both[0], theirs.numpy())
    expected += settings.get("frequency_weight", 0.75) * unit_difference(*centred)
    found = value(loss, features(ours), features(theirs)).item()
    assert found == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("case", cases("scalekd"), ids=lambda c: f"{c['teacher'][0]}-{c['seed']}")
def test_equals_published_code(case):
    """Whose second view goes through a cosine transform, and whose sums are over positions."""

    def loss(student, teacher):
        sides = features(*student), features(*teacher)
        ours = module(*sides, num_heads=HEADS, frequency_weight=WEIGHTS[1] / WEIGHTS[0])
        fill(ours.spatial.parameters(), case["seed"])
        fill(ours.frequency.parameters(), case["seed"] + 1)
        return value(ours, *sides)

    _, height, width = case["teacher"][0]
    agrees(case, loss, WEIGHTS[0] * height * width, tolerance=1e-8)


def test_gradients_equal_finite_differences():
    x = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: mimicking_loss(*(without_mean(side) for side in x)) + mimicking_loss(x[0], x[1]),
        x,
    )


def test_views_see_different_things():
    """The same vector everywhere is all of the first view and nothing of the second; lengths
    are of no account in either."""
    (x,) = random_maps(3, (2, 5, 3, 3))
    shift = random_maps(4, (1, 5, 1, 1))[0]
    assert mimicking_loss(3 * x, x).item() == pytest.approx(0, abs=1e-15)
    assert mimicking_loss(x + shift, x) > 0.1
    assert mimicking_loss(without_mean(x + shift), without_mean(x)).item() < 1e-15
    assert mimicking_loss(-x, x).item() == pytest.approx(4)
    assert mimicking_loss(x.half(), x.half()).dtype == torch.float32


def test_all_learns_on_grids_of_both_sides():
    ours, theirs = random_maps(1, (2, 3, 7, 7), (2, 6, 4, 5))
    for x in (ours, theirs):
        x.requires_grad_()
    loss = module(features(ours), features(theirs))
    value(loss, features(ours), features(theirs)).backward()
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())
    assert ours.grad.abs().sum() > 0 and theirs.grad.abs().sum() > 0


def test_settings():
    side = features(torch.zeros(1, 6, 2, 2))
    assert LOSSES.get("scalekd") is ScaleKDLoss
    wide = features(torch.zeros(1, 128, 2, 2))
    assert module(side, wide).spatial.num_heads == 2
    assert module(side, side).spatial.num_heads == 1
    with pytest.raises(ConfigError, match="scalekd: num_heads=4 does not divide 6") as error:
        module(side, side, num_heads=4)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="are both 0"):
        module(side, side, spatial_weight=0.0, frequency_weight=0.0)
    with pytest.raises(ConfigError, match="sharpness must be"):
        module(side, side, sharpness=0.0)
