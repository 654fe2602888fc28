import numpy as np
import pytest
import torch

from arcface_cakd.alignment import Anchoring
from arcface_cakd.config import ConfigError, check_settings


def test_equals_a_float64_reference():
    anchoring = Anchoring(6, 4, 5).double()
    h, embedding = torch.randn(3, 4, 6).double(), torch.randn(3, 5).double()
    pool, weight, bias = (
        p.detach().numpy()
        for p in (anchoring.pool, anchoring.predict.weight, anchoring.predict.bias)
    )
    losses = []
    for image, target in zip(h.numpy(), embedding.numpy(), strict=True):
        normed = [(row - row.mean()) / np.sqrt(row.var() + 1e-5) for row in image]
        predicted = weight @ np.sum([n * p for n, p in zip(normed, pool, strict=True)], 0) + bias
        cosine = predicted @ target / np.linalg.norm(predicted) / np.linalg.norm(target)
        losses.append(1 - cosine)
    assert anchoring(h, embedding).item() == pytest.approx(np.mean(losses), abs=1e-12)


def test_gradients_reach_h_and_not_the_embedding():
    anchoring = Anchoring(6, 4, 5).double()
    h = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    embedding = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h: anchoring(h, embedding.detach()), h)
    anchoring(h, embedding).backward()
    assert embedding.grad is None
    assert (h.grad.abs().sum((0, 2)) > 0).all()  # every centre counts


def test_is_float32_under_autocast():
    anchoring = Anchoring(8, 4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        loss = anchoring(torch.randn(3, 4, 8), torch.randn(3, 5))
    assert loss.dtype == torch.float32


def test_its_weight_is_a_setting():
    assert Anchoring(8, 4, 5, **check_settings(Anchoring, {"weight": 2}, "x")).weight == 2.0
    with pytest.raises(ConfigError, match="at least 0"):
        check_settings(Anchoring, {"weight": -1}, "cakd.anchoring")
