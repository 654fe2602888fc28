import os
import runpy

import numpy as np
import pytest
import torch

from arcface_cakd.errors import ArcfaceCakdWarning
from arcface_cakd.partial_fc import ArcFace, CombinedMarginLoss, CosFace, PartialFCError

ARCFACE, COSFACE = (1.0, 0.5, 0.0), (1.0, 0.0, 0.4)
GENERAL = [(1.35, 0.0, 0.0), (0.9, 0.4, 0.0), (1.2, 0.1, 0.0)]
THRESHOLDS = (0.0, 0.3)


def some_cosines(seed, batch=9, classes=7):
    """Cosines in float64, and labels of which some are -1."""
    rng = np.random.default_rng(seed)
    cosines = torch.from_numpy(rng.uniform(-0.99, 0.99, (batch, classes)))
    labels = torch.from_numpy(rng.integers(-1, classes, (batch, 1)))
    cosines[0, 0], labels[0] = 0.9, -1  # the first column is no target of a row without one
    return cosines, labels


def expected_logits(cosines, labels, s, m1, m2, m3, threshold):
    """The definition, one entry at a time."""
    logits = np.empty(cosines.shape)
    for row, column in np.ndindex(*logits.shape):
        cosine = float(cosines[row, column])
        if column == labels[row]:
            if m3 > 0:
                cosine -= m3
            else:
                cosine = np.cos(m1 * np.arccos(cosine) + m2) - m3
        elif 0 < threshold < cosine:
            cosine = 0.0
        logits[row, column] = s * cosine
    return logits


def gradient_through(margin, cosines, labels, upstream):
    cosines = cosines.clone().requires_grad_()
    margin(cosines, labels).backward(upstream)
    return cosines.grad


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("m", [ARCFACE, COSFACE, *GENERAL])
@pytest.mark.parametrize("seed", range(3))
def test_logits_are_the_definitions(m, threshold, seed):
    cosines, labels = some_cosines(seed)
    before = cosines.clone(), labels.clone()
    got = CombinedMarginLoss(30.0, *m, threshold)(cosines, labels)
    expected = expected_logits(cosines, labels, 30.0, *m, threshold)
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-12)
    assert torch.equal(cosines, before[0]) and torch.equal(labels, before[1])


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("m", [ARCFACE, COSFACE])
def test_straight_through_gradient_is_s_everywhere_but_where_dropped(m, threshold):
    cosines, labels = some_cosines(3)
    upstream = torch.randn(cosines.shape, dtype=torch.float64)
    got = gradient_through(CombinedMarginLoss(30.0, *m, threshold), cosines, labels, upstream)
    expected = 30.0 * upstream
    if threshold:
        is_target = torch.arange(cosines.shape[1]) == labels
        expected[(cosines > threshold) & ~is_target] = 0
        assert (expected == 0).any()
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("m", [ARCFACE, COSFACE, *GENERAL])
@pytest.mark.parametrize("seed", range(3))
def test_exact_gradient_is_the_derivative(m, threshold, seed):
    cosines, labels = some_cosines(seed)
    margin = CombinedMarginLoss(30.0, *m, threshold, gradient="exact")
    upstream = torch.randn(cosines.shape, dtype=torch.float64)
    got = gradient_through(margin, cosines, labels, upstream)
    step = 1e-6
    finite = (
        expected_logits(cosines + step, labels, 30.0, *m, threshold)
        - expected_logits(cosines - step, labels, 30.0, *m, threshold)
    ) / (2 * step)
    np.testing.assert_allclose(got.numpy(), finite * upstream.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("m", GENERAL)
def test_margins_that_the_host_lacks_are_exact_by_default(m):
    cosines, labels = some_cosines(5)
    upstream = torch.ones_like(cosines)
    default, exact = (
        gradient_through(CombinedMarginLoss(30.0, *m, **how), cosines, labels, upstream)
        for how in ({}, {"gradient": "exact"})
    )
    assert torch.equal(default, exact)
    assert not torch.allclose(default, torch.full_like(default, 30.0))


def test_exact_gradient_without_a_margin_is_s():
    cosines, labels = some_cosines(6)
    cosines[0, :3] = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
    labels[0] = 0
    margin = CombinedMarginLoss(30.0, 1.0, 0.0, 0.0, gradient="exact")
    got = gradient_through(margin, cosines, labels, torch.ones_like(cosines))
    torch.testing.assert_close(got, torch.full_like(got, 30.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("m", [ARCFACE, (1.35, 0.0, 0.0)])
def test_finite_at_the_ends(m, dtype):
    """Cosines of 1 and -1, and those that rounding has carried beyond."""
    beyond = 1 + 4 * torch.finfo(dtype).eps
    ends = torch.tensor([1.0, -1.0, beyond, -beyond], dtype=dtype)
    cosines = ends.view(-1, 1).repeat(1, 2)
    labels = torch.zeros(4, dtype=torch.long)
    for gradient in ("straight_through", "exact"):
        margin = CombinedMarginLoss(64.0, *m, gradient=gradient)
        logits = margin(cosines, labels)
        angles = m[0] * np.arccos(np.clip(ends.numpy(), -1, 1)) + m[1]
        np.testing.assert_allclose(logits[:, 0].numpy(), 64 * np.cos(angles), atol=1e-4)
        got = gradient_through(margin, cosines, labels, torch.ones_like(cosines))
        assert got.isfinite().all()


def test_named_margins_are_the_combined_ones():
    cosines, labels = some_cosines(7)
    upstream = torch.randn(cosines.shape, dtype=torch.float64)
    pairs = [
        (ArcFace(48.0, 0.3), CombinedMarginLoss(48.0, 1.0, 0.3, 0.0)),
        (ArcFace(), CombinedMarginLoss(64.0, *ARCFACE)),
        (
            ArcFace(gradient="exact"),
            CombinedMarginLoss(64.0, *ARCFACE, gradient="exact"),
        ),
        (CosFace(48.0, 0.2), CombinedMarginLoss(48.0, 1.0, 0.0, 0.2)),
        (CosFace(), CombinedMarginLoss(64.0, *COSFACE)),
    ]
    for named, combined in pairs:
        assert torch.equal(named(cosines, labels), combined(cosines, labels))
        assert torch.equal(
            gradient_through(named, cosines, labels, upstream),
            gradient_through(combined, cosines, labels, upstream),
        )


def test_shapes():
    cosines, labels = some_cosines(8)
    margin = CombinedMarginLoss(64.0, *ARCFACE, 0.3)
    assert torch.equal(margin(cosines, labels.view(-1)), margin(cosines, labels))
    nothing = torch.full((9, 1), -1)
    assert margin(cosines[:, :0], nothing).shape == (9, 0)
    assert margin(cosines.float(), labels).dtype == torch.float32


def test_impossible_settings():
    with pytest.raises(PartialFCError, match=r"'exact'.*'extact'"):
        CombinedMarginLoss(64.0, *ARCFACE, gradient="extact")
    with pytest.raises(PartialFCError, match="above 0"):
        CombinedMarginLoss(0.0, *ARCFACE)
    with pytest.warns(ArcfaceCakdWarning, match="ignores m1 and m2"):
        CombinedMarginLoss(64.0, 1.0, 0.3, 0.2)
    for m2, m3 in ((28.6, 0.0), (0.0, 40.0), (float("nan"), 0.0)):  # in degrees, in percent
        with pytest.raises(PartialFCError, match="in radians"):
            CombinedMarginLoss(64.0, 1.0, m2, m3)


@pytest.mark.parametrize(
    "m", [(0.0, 0.5, 0.0), (-1.0, 0.5, 0.0), (40.0, 0.0, 0.0), (1.0, -0.5, 0.0), (1.0, 0.0, -0.4)]
)
def test_margins_that_teach_nothing_or_the_contrary_are_refused(m):
    with pytest.raises(PartialFCError, match=r"m1 multiplies an angle, above 0") as error:
        CombinedMarginLoss(64.0, *m)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(
    "ARCFACE_TORCH" not in os.environ, reason="ARCFACE_TORCH names no arcface_torch checkout"
)
@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("m", [ARCFACE, COSFACE])
def test_equals_arcface_torch(m, threshold):
    host = runpy.run_path(os.path.join(os.environ["ARCFACE_TORCH"], "losses.py"))
    for seed in range(4):
        cosines, labels = some_cosines(seed)
        cosines = cosines.float()
        upstream = torch.randn(cosines.shape)
        leaf = cosines.clone().requires_grad_()
        # It writes into its input, so that must not be the leaf itself.
        theirs = host["CombinedMarginLoss"](64.0, *m, threshold)(leaf * 1, labels)
        theirs.backward(upstream)
        margin = CombinedMarginLoss(64.0, *m, threshold)
        torch.testing.assert_close(margin(cosines, labels), theirs, rtol=0, atol=1e-4)
        got = gradient_through(margin, cosines, labels, upstream)
        torch.testing.assert_close(got, leaf.grad)
