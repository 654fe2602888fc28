import numpy as np
import pytest
import torch

from arcface_cakd.alignment import effective_rank


def reference(rows):
    sigma = np.linalg.svd(rows, compute_uv=False)
    p = sigma / sigma.sum()
    p = p[p > 0]
    return np.exp(-(p * np.log(p)).sum())


@pytest.mark.parametrize("shape", [(5, 7, 16), (2, 3, 40), (100, 8)])
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_equals_the_definition_on_singular_values(shape, scale):
    features = np.random.default_rng(1).normal(0.3, 1, shape) * scale
    expected = reference(features.reshape(-1, shape[-1]))
    assert effective_rank(torch.from_numpy(features)) == pytest.approx(expected, rel=1e-6)


def test_a_subspace_has_its_dimension_and_no_more():
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(50, 4)))
    even = torch.from_numpy(basis @ np.eye(4, 32))
    assert effective_rank(even) == pytest.approx(4, rel=1e-6)


def test_a_constant_with_noise_on_it_has_collapsed():
    noise = 1e-4 * torch.randn(64, 32)
    assert effective_rank(noise) > 20
    assert effective_rank(noise + 1) < 1.1


def test_extremes():
    assert effective_rank(torch.zeros(3, 4, 5)) == 0.0
    assert effective_rank(torch.ones(3, 4, 5)) == pytest.approx(1.0)
    assert np.isnan(effective_rank(torch.full((3, 4), float("nan"))))
    assert isinstance(effective_rank(torch.randn(3, 4, requires_grad=True)), float)
