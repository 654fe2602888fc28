import numpy as np
import pytest
import torch

from arcface_cakd.losses import LossBatch, LossError
from arcface_cakd.losses.relations import (
    cosine_matrix,
    distance_matrix,
    full_precision,
    joined,
    labels_of,
)


def test_matrices_equal_float64_references():
    x = np.random.default_rng(0).normal(size=(5, 7))
    unit = [row / np.sqrt(row @ row) for row in x]
    cosines = [[a @ b for b in unit] for a in unit]
    distances = [[np.sqrt(((a - b) ** 2).sum()) for b in x] for a in x]
    np.testing.assert_allclose(cosine_matrix(torch.from_numpy(x)), cosines, atol=1e-12)
    np.testing.assert_allclose(distance_matrix(torch.from_numpy(x)), distances, atol=1e-12)


def test_near_images_keep_their_distance_in_float32():
    x = torch.full((2, 512), 10.0)
    x[1, 0] += 1e-3  # the difference of squared norms would be lost in their rounding
    assert distance_matrix(x)[0, 1].item() == pytest.approx(1e-3, rel=1e-2)


def test_gradient_at_a_distance_of_zero_is_zero():
    x = torch.ones(3, 4, requires_grad=True)
    distance_matrix(x).sum().backward()
    assert (x.grad == 0).all()


def test_full_precision_lifts_half_inputs_and_switches_autocast_off():
    @full_precision
    def products(x):
        return x @ x.T

    x = torch.randn(4, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = products(x)
        assert (x @ x.T).dtype == torch.bfloat16
    torch.testing.assert_close(found, x @ x.T)
    assert products(x.half()).dtype == torch.float32
    assert products(x.double()).dtype == torch.float64


def test_joined_is_both_sides_at_least_float32():
    student, teacher = joined(torch.ones(2, 3).bfloat16(), torch.ones(2, 5).double())
    assert (student.dtype, teacher.dtype) == (torch.float32, torch.float64)


def test_labels_that_are_missing_are_an_error_that_names_the_loss():
    with pytest.raises(LossError, match=r"ekd needs labels"):
        labels_of("ekd", LossBatch(labels=None))
    labels = torch.arange(3)
    assert labels_of("ekd", LossBatch(labels=labels)) is labels
