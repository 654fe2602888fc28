import numpy as np
import pytest
import torch

from arcface_cakd.alignment import Anchoring
from arcface_cakd.config import ConfigError, check_settings


def test_equals_a_float64_reference():
    anchoring = Anchoring(6, 4, 5).double().eval()
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
    anchoring = Anchoring(6, 4, 5).double().eval()
    h = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    embedding = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h: anchoring(h, embedding.detach()), h)
    anchoring(h, embedding).backward()
    assert embedding.grad is None
    assert (h.grad.abs().sum((0, 2)) > 0).all()  # every centre counts


@pytest.mark.parametrize(
    ("drop", "kept"), [(0.0, 7), (0.2, 6), (0.5, 4), (0.9, 1), (1.0, 1)]
)  # of 7
def test_in_training_it_leaves_out_a_random_part_of_the_centres(drop, kept):
    anchoring = Anchoring(6, 7, 5, drop=drop).double()
    h = torch.randn(3, 7, 6, dtype=torch.float64, requires_grad=True)
    embedding = torch.randn(3, 5).double()
    counted = torch.zeros(7)
    for seed in range(40):
        torch.manual_seed(seed)
        loss = anchoring(h, embedding)
        (gradient,) = torch.autograd.grad(loss, h)
        counts = gradient.abs().sum((0, 2)) > 0
        assert counts.sum() == kept
        assert torch.equal(counts, gradient.abs().sum(2)[0] > 0)  # the same for all images
        counted += counts
        # The others weigh more, so that the sum keeps its size.
        alone = Anchoring(6, kept, 5, drop=0.0).double()
        alone.load_state_dict({**anchoring.state_dict(), "pool": anchoring.pool[counts] * 7 / kept})
        assert loss.item() == pytest.approx(alone(h[:, counts], embedding).item(), abs=1e-12)
    assert (counted > 0).all()  # none is left out for good
    anchoring.eval()(h, embedding).backward()
    assert (h.grad.abs().sum((0, 2)) > 0).all()


def test_is_float32_under_autocast():
    anchoring = Anchoring(8, 4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        loss = anchoring(torch.randn(3, 4, 8), torch.randn(3, 5))
    assert loss.dtype == torch.float32


def test_its_weight_is_a_setting():
    assert Anchoring(8, 4, 5, **check_settings(Anchoring, {"weight": 2}, "x")).weight == 2.0
    with pytest.raises(ConfigError, match="at least 0"):
        check_settings(Anchoring, {"weight": -1}, "cakd.anchoring")
