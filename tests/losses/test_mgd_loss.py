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

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.losses.mgd_loss import MGDLoss, mask_at_random, mgd_loss
from arcface_cakd.registry import LOSSES


def module(student, teacher, **settings):
    dims = dims_of(features(student), features(teacher))
    return MGDLoss(dims, **check_settings(MGDLoss, settings, "cakd.losses[0]")).double()


@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (4, 5, 7, 7)])
def test_equals_a_float64_reference(shape):
    ours, theirs = random_maps(shape[0], shape, shape)
    pairs = zip(ours.numpy().flat, theirs.numpy().flat, strict=True)
    expected = sum((a - b) ** 2 for a, b in pairs) / ours.numel()
    assert mgd_loss(ours, theirs).item() == pytest.approx(expected, abs=1e-12)
    assert mgd_loss(ours, ours).item() == 0
    assert mgd_loss(ours.half(), theirs.half()).dtype == torch.float32


def test_gradients_equal_finite_differences():
    x = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: mgd_loss(x[0], x[1]), x)


@pytest.mark.parametrize("case", cases("mgd"), ids=ident)
def test_equals_published_code(case, monkeypatch):
    detection = case["student"] != case["teacher"]
    weight, ratio = (2e-5, 0.65) if detection else (7e-5, 0.15)
    mask = "positions" if detection else "channels"
    if detection:  # its code masks where the number drawn is above 1 - ratio, not below ratio
        draw = torch.rand
        monkeypatch.setattr(torch, "rand", lambda *size, **at: 1 - draw(*size, **at))

    def ours(student, teacher):
        loss = module(*student, *teacher, mask_ratio=ratio, mask=mask)
        fill(loss.parameters(), case["seed"])
        torch.manual_seed(case["seed"])
        return value(loss, features(*student), features(*teacher))

    agrees(case, ours, factor=weight * np.prod(case["teacher"][0]))


@pytest.mark.parametrize("ratio", [0.0, 0.15, 0.65, 1.0])
@pytest.mark.parametrize("mask", ["positions", "channels"])
def test_masks_as_often_as_the_setting_says(ratio, mask):
    x = torch.rand(20, 50, 7, 7) + 1
    found = mask_at_random(x, ratio, mask)
    kept = found != 0
    assert torch.equal(found[kept], x[kept])
    assert kept.float().mean().item() == pytest.approx(1 - ratio, abs=0.05)
    groups = kept.flatten(2) if mask == "channels" else kept.flatten(2).transpose(1, 2)
    assert torch.equal(groups.all(2), groups.any(2))
    if 0 < ratio < 1:  # images differ
        assert (groups.any(2)[0] != groups.any(2)[1]).any()


def convolve(x, layer):
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    pad = weight.shape[2] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    out = np.empty((len(x), len(weight), *x.shape[2:]))
    for i, j in np.ndindex(x.shape[2:]):
        patch = padded[:, :, i : i + weight.shape[2], j : j + weight.shape[3]]
        out[:, :, i, j] = np.einsum("bchw,ochw->bo", patch, weight) + bias
    return out


@pytest.mark.parametrize(
    ("student", "teacher"),
    [((2, 3, 4, 4), (2, 5, 4, 4)), ((2, 3, 8, 8), (2, 3, 4, 4)), ((2, 4, 3, 3), (2, 5, 6, 6))],
)
def test_module_in_eval_generates_from_the_whole_map(student, teacher):
    ours, theirs = random_maps(1, student, teacher)
    loss = module(ours, theirs).eval()
    grid = tuple(np.minimum(student[2:], teacher[2:]))
    x = pooled(ours.numpy(), grid)
    if student[1] != teacher[1]:
        x = convolve(x, loss.align)
    else:
        assert not list(loss.align.parameters())
    x = convolve(np.maximum(convolve(x, loss.generate[0]), 0), loss.generate[2])
    expected = ((x - pooled(theirs.numpy(), grid)) ** 2).mean()
    found = [value(loss, features(ours), features(theirs)).item() for _ in range(2)]
    assert found == [pytest.approx(expected, rel=1e-10)] * 2


def test_a_seed_repeats_the_masks_and_all_learns():
    ours, theirs = random_maps(1, (2, 3, 4, 4), (2, 5, 4, 4))
    ours.requires_grad_()
    loss = module(ours, theirs)

    def drawn(seed):
        torch.manual_seed(seed)
        return value(loss, features(ours), features(theirs))

    assert drawn(1).item() == drawn(1).item() != drawn(2).item()
    drawn(1).backward()
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())
    assert (ours.grad.abs().sum(1) == 0).any() and ours.grad.abs().sum() > 0


def test_stage_setting_and_errors():
    stages = random_maps(1, (2, 3, 4, 4), (2, 4, 2, 2))
    side = features(None, stages)
    loss = LOSSES.get("mgd")(dims_of(side, side), stage=1).double()
    assert loss.needs == {"stages"}
    assert loss.generate[0].weight.shape[0] == 4
    assert value(loss, side, side).isfinite()
    with pytest.raises(ConfigError, match="mgd: the student has no stage -3"):
        MGDLoss(dims_of(side, side), stage=-3)
    with pytest.raises(ConfigError, match="mask_ratio must be"):
        check_settings(MGDLoss, {"mask_ratio": 1.5}, "cakd.losses[0]")
