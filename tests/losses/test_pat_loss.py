import numpy as np
import pytest
import torch
from golden.make_projector_losses import DIM, HEADS, cases
from helpers.feature_maps import (
    agrees,
    dims_of,
    features,
    fill,
    hierarchical,
    nearest,
    normalise,
    pooled,
    random_maps,
    value,
)

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.losses.pat_loss import PATLoss, RegionAttention, sinusoids
from arcface_cakd.registry import LOSSES


def module(student, teacher, **settings):
    dims = dims_of(features(None, student), features(None, teacher))
    settings = check_settings(PATLoss, settings, "cakd.losses[0]")
    return PATLoss(dims, **settings).double()


def encoding(count, dim):
    found = np.empty((count, dim))
    for n in range(count):
        for i in range(dim):
            angle = n / 10000 ** (2 * (i // 2) / dim)
            found[n, i] = np.cos(angle) if i % 2 else np.sin(angle)
    return found


def arrays(*tensors):
    return [x.detach().numpy() for x in tensors]


def reference(loss, student, teacher, side, patch, heads):
    regions = []
    for x, layer in zip(student, loss.attention.embed, strict=True):
        weight, bias = arrays(layer.weight, layer.bias)
        length = side * patch
        x = nearest(pooled(x, np.minimum(x.shape[2:], length)), (length, length))
        for i, j in np.ndindex(side, side):
            area = x[:, :, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch]
            regions.append(np.einsum("bchw,ochw->bo", area, weight) + bias)
    regions = np.stack(regions, 1)
    scale, shift, qkv, bias = arrays(
        *loss.attention.norm.parameters(), *loss.attention.qkv.parameters()
    )
    mean, variance = regions.mean(2, keepdims=True), regions.var(2, keepdims=True)
    normed = (regions - mean) / np.sqrt(variance + 1e-5) * scale + shift
    dim = len(scale)
    q, k, v = np.split(normed @ qkv.T + bias, 3, axis=2)
    q, k = (x + encoding(x.shape[1], dim) for x in (q, k))
    blended = np.empty_like(v)
    for b, n in np.ndindex(v.shape[:2]):
        for columns in np.split(np.arange(dim), heads):
            score = np.exp(k[b][:, columns] @ q[b, n, columns] / np.sqrt(len(columns)))
            blended[b, n, columns] = score @ v[b][:, columns] / score.sum()
    total = 0.0
    for number, (target, align) in enumerate(zip(teacher, loss.aligners, strict=True)):
        own = blended[:, number * side**2 : (number + 1) * side**2]
        x = normalise(own.transpose(0, 2, 1).reshape(len(own), dim, side, side), align[0])
        x = np.einsum("bchw,oc->bohw", x, align[1].weight.detach().numpy()[:, :, 0, 0])
        total += hierarchical(nearest(x, target.shape[2:]), target)
    return total


@pytest.mark.parametrize(
    ("side", "patch", "dim", "heads"), [(4, 2, 8, 2), (2, 3, 6, 1), (3, 1, 10, 5)]
)
def test_module_equals_a_float64_reference(side, patch, dim, heads):
    student = random_maps(side, (2, 3, 11, 11), (2, 4, 6, 6), (2, 5, 2, 3))
    teacher = random_maps(9, (2, 6, 7, 7), (2, 7, 5, 4), (2, 4, 2, 2))
    loss = module(student, teacher, side=side, patch=patch, dim=dim, num_heads=heads)
    fill(loss.parameters(), 2)
    expected = reference(loss, *([x.numpy() for x in y] for y in (student, teacher)), side, patch,
                         heads)  # fmt: skip
    found = value(loss, features(None, student), features(None, teacher))
    assert found.item() == pytest.approx(expected, rel=1e-6)  # places are kept in float32


@pytest.mark.parametrize("case", cases("pat"), ids=lambda c: f"{len(c['student'])}-{c['seed']}")
def test_equals_published_code(case):
    """With its encoding by region in place of by image, on grids where patches are the same."""

    def loss(student, teacher):
        ours = module(student, teacher, dim=DIM, num_heads=HEADS)
        fill(ours.parameters(), case["seed"])
        return value(ours, features(None, student), features(None, teacher))

    agrees(case, loss, tolerance=1e-5)


@pytest.mark.parametrize(("count", "dim"), [(1, 2), (64, 512), (7, 5)])
def test_sinusoids(count, dim):
    np.testing.assert_allclose(sinusoids(count, dim), encoding(count, dim), atol=2e-5)


def test_regions_of_all_stages_mix_and_images_do_not():
    torch.manual_seed(0)
    maps = random_maps(1, (2, 3, 4, 4), (2, 5, 2, 2))
    attention = RegionAttention([3, 5], 2, 1, 4, 2).double()
    before = attention(maps)
    changed = [maps[0].clone(), maps[1]]
    changed[0][1] += 1
    after = attention(changed)
    for stage in range(2):
        assert before[stage].shape == (2, 4, 2, 2)
        assert torch.equal(before[stage][0], after[stage][0])
        assert not torch.allclose(before[stage][1], after[stage][1])


def test_all_learns():
    student = random_maps(1, (2, 3, 8, 8), (2, 4, 4, 4))
    teacher = random_maps(2, (2, 6, 7, 7), (2, 5, 7, 7))
    for x in (*student, *teacher):
        x.requires_grad_()
    loss = module(student, teacher, dim=16, num_heads=2)
    value(loss, features(None, student), features(None, teacher)).backward()
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())
    assert all(x.grad.abs().sum() > 0 for x in (*student, *teacher))


def test_settings():
    maps = random_maps(1, (2, 3, 4, 4), (2, 4, 2, 2))
    assert LOSSES.get("pat") is PATLoss
    assert module(maps, maps).stages == (-2, -1)
    assert module(maps, maps, stages=[-1]).stages == (-1,)
    with pytest.raises(ConfigError, match=r"pat: num_heads=3 does not divide dim=8") as error:
        module(maps, maps, num_heads=3, dim=8)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="pat: the student has no stage 2"):
        module(maps, maps, stages=[2])
