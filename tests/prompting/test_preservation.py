import pytest
import torch
from torch.nn import functional as F

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.losses import LossError
from arcface_cakd.prompting import Preservation
from arcface_cakd.registry import SECTIONS


def test_embedding_pulls_the_prompted_alone():
    preservation = Preservation()
    prompted = torch.randn(3, 8, requires_grad=True)
    unprompted = torch.randn(3, 8, requires_grad=True)
    loss = preservation(prompted, unprompted)
    a, b = F.normalize(prompted.detach()), F.normalize(unprompted.detach())
    assert loss.item() == pytest.approx((1 - (a * b).sum(1)).mean().item(), abs=1e-6)
    loss.backward()
    assert prompted.grad.abs().sum() > 0
    assert unprompted.grad is None
    assert preservation(prompted, prompted).item() == pytest.approx(0, abs=1e-6)


def test_margin_is_the_loss_of_the_teachers_head():
    centers = torch.randn(5, 8)
    labels = torch.tensor([0, 4, 2])

    def head(embeddings, labels):
        return F.cross_entropy(F.normalize(embeddings) @ F.normalize(centers).T * 16, labels)

    prompted = torch.randn(3, 8, requires_grad=True)
    loss = Preservation(kind="margin")(prompted, None, labels, head)
    assert loss.item() == head(prompted, labels).item()
    loss.backward()
    assert prompted.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("kind", "unprompted", "centers"), [("embedding", True, False), ("margin", False, True)]
)
def test_declares_what_it_needs_and_says_when_it_lacks_it(kind, unprompted, centers):
    preservation = Preservation(kind=kind, weight=2.0)
    assert (preservation.needs_unprompted, preservation.needs_centers) == (unprompted, centers)
    assert preservation.weight == 2.0
    with pytest.raises(LossError, match=kind):
        preservation(torch.randn(2, 4), labels=torch.tensor([0, 1]))


def test_its_settings_are_checked():
    assert SECTIONS.get("preservation") is Preservation
    with pytest.raises(ConfigError, match="'embedding' or 'margin'"):
        check_settings(Preservation, {"kind": "cosine"}, "cakd.preservation")
