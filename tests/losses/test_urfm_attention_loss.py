import numpy as np
import pytest
import torch

from arcface_cakd.alignment import Alignment, LocalFeatures
from arcface_cakd.config import ConfigError
from arcface_cakd.losses import FeatureDims, LossBatch
from arcface_cakd.losses.urfm_attention_loss import urfm_attention_loss
from arcface_cakd.registry import LOSSES


@pytest.mark.parametrize("shape", [(1, 2, 4), (3, 4, 9)])
def test_equals_a_float64_reference(shape):
    batch, heads, centers = shape
    a, b = np.random.default_rng(batch).dirichlet(np.ones(centers), (2, batch, heads, centers))
    rows = []
    for image in range(batch):
        for head in range(heads):
            for i in range(centers):
                pairs = zip(a[image, head, i], b[image, head, i], strict=True)
                rows.append(sum((x - y) ** 2 for x, y in pairs))
    ours = urfm_attention_loss(torch.from_numpy(a), torch.from_numpy(b))
    assert ours.item() == pytest.approx(np.mean(rows), abs=1e-12)


def test_extremes():
    maps = torch.eye(4).expand(2, 3, 4, 4)
    assert urfm_attention_loss(maps, maps).item() == 0
    assert urfm_attention_loss(maps, maps.flip(-1)).item() == 2
    assert urfm_attention_loss(maps.half(), maps.half()).dtype == torch.float32


def test_gradients_equal_finite_differences():
    x = torch.rand(2, 2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: urfm_attention_loss(x[0], x[1]), x)


def test_module_compares_the_maps():
    loss = LOSSES.get("urfm_attention")(FeatureDims(8, 8, 3, 3))
    h, attended = torch.randn(2, 2, 4, 8).unbind()
    maps = torch.rand(2, 3, 4, 4)
    sides = [LocalFeatures(h + k, attended + k, maps * (1 + k), maps + k) for k in (0, 1)]
    value = loss(None, None, LossBatch(labels=None, alignment=Alignment(*sides, anchored=None)))
    assert value.item() == pytest.approx(4 * maps.square().mean().item(), rel=1e-5)
    assert loss.needs == {"tokens", "alignment"}


def test_one_local_centre_is_refused():
    kind = LOSSES.get("urfm_attention")
    for centers in (2, None):
        kind(FeatureDims(8, 8, 3, 3, num_centers=centers))
    with pytest.raises(ConfigError, match=r"urfm_attention: with one local centre") as error:
        kind(FeatureDims(8, 8, 3, 3, num_centers=1))
    assert "cakd.urfm.num_centers" in str(error.value) and "\n" not in str(error.value)
