"""PReLU's backward pass in vectors gives torch's own numbers."""

import numpy as np
import pytest
import torch
from torch import nn

from arcface_cakd.backbones import get_model
from arcface_cakd.backbones.prelu import PReLU

FORMATS = {"rows": torch.contiguous_format, "channels last": torch.channels_last}


def gradients(kind, x, gradient, slopes, amp=False):
    """Output and gradients of a layer, of the input and of the slopes."""
    layer = kind(x.shape[1]).to(slopes.dtype)
    layer.weight.data.copy_(slopes)
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        out = layer(x)
    out.backward(gradient.to(out.dtype))
    return out, x.grad, layer.weight.grad


def drawn(seed, shape, dtype=torch.float32, memory_format=torch.contiguous_format):
    """Inputs, some of them zero, gradients, and slopes, some of them negative or zero."""
    rng = np.random.default_rng(seed)
    x, gradient = rng.standard_normal((2, *shape))
    x[rng.random(shape) < 0.1] = 0.0
    slopes = rng.standard_normal(shape[1])
    slopes[0] = 0.0
    tensors = [torch.from_numpy(array).to(dtype) for array in (x, gradient, slopes)]
    return [t.to(memory_format=memory_format) if t.dim() == 4 else t for t in tensors]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 4), (4, 64, 14, 14), (3, 33, 7, 9)])
def test_equal_to_torchs_to_the_last_digit(shape, memory_format, dtype):
    for seed in range(3):
        told = drawn(seed, shape, dtype, memory_format)
        ours, theirs = gradients(PReLU, *told), gradients(nn.PReLU, *told)
        for found, expected in zip(ours, theirs, strict=True):
            assert torch.equal(found, expected)
            assert found.stride() == expected.stride()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast(dtype):
    x, gradient, slopes = drawn(0, (2, 8, 6, 6), dtype)
    told = x, gradient, slopes.float(), True
    ours, theirs = gradients(PReLU, *told), gradients(nn.PReLU, *told)
    for found, expected in zip(ours, theirs, strict=True):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)


def test_against_the_definition():
    x, gradient, slopes = drawn(5, (3, 4, 6, 5), torch.float64)
    _, of_x, of_slopes = gradients(PReLU, x, gradient, slopes)
    x, gradient = x.numpy(), gradient.numpy()
    by_channel = slopes.numpy()[:, None, None]
    np.testing.assert_array_equal(of_x.numpy(), np.where(x > 0, gradient, gradient * by_channel))
    expected = np.where(x > 0, 0, x * gradient).sum(axis=(0, 2, 3))
    np.testing.assert_allclose(of_slopes.numpy(), expected, rtol=1e-13, atol=1e-13)


def test_a_gradient_of_the_gradient():
    x, _, slopes = drawn(1, (2, 3, 2, 2), torch.float64)
    layer = PReLU(3).double()
    layer.weight.data.copy_(slopes)
    x[x == 0] = 1.0  # where it has no derivative
    assert torch.autograd.gradgradcheck(layer, x.requires_grad_())


def test_not_finite_stays_not_finite():
    x, gradient, slopes = drawn(2, (2, 3, 4, 4))
    for bad in (float("inf"), float("nan")):
        gradient[0, 1, 2, 3] = bad
        _, of_x, _ = gradients(PReLU, x, gradient, slopes)
        assert not of_x.isfinite().all()


@pytest.mark.parametrize("name", ["mbf", "r10_narrow"])
def test_the_students_have_it(name):
    model = get_model(name, num_features=16)
    layers = [module for module in model.modules() if isinstance(module, nn.PReLU)]
    assert layers
    assert all(type(layer) is PReLU for layer in layers)
