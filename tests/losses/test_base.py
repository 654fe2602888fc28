import pytest
import torch

from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses import (
    DistillationLoss,
    FeatureDims,
    LossBatch,
    LossError,
    URFMAttentionLoss,
    URFMFeatureLoss,
)
from arcface_cakd.losses.base import NEEDS
from arcface_cakd.registry import LOSSES

DIMS = FeatureDims(8, 8, 5, 6)


def side():
    return FaceFeatures(torch.randn(2, 8), torch.randn(2, 4, 5), (2, 2))


def test_a_need_that_does_not_exist_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'tokens'"):
        type("Misspelt", (DistillationLoss,), {"needs": frozenset({"token"})})


@pytest.mark.parametrize("loss", [URFMFeatureLoss, URFMAttentionLoss])
def test_a_urfm_loss_without_urfm_says_what_to_set(loss):
    with pytest.raises(LossError, match=r"set cakd\.urfm"):
        loss(DIMS)(side(), side(), LossBatch(labels=None))


@pytest.mark.parametrize("name", LOSSES.names())
def test_every_registered_loss_keeps_the_contract(name):
    loss = LOSSES.get(name)
    assert issubclass(loss, DistillationLoss)
    assert loss.needs <= NEEDS
    assert loss.__doc__ and "Args:" in loss.__doc__


def test_tokens_of_a_teacher_of_embeddings_are_refused():
    assert DIMS.teacher_map_shape == (6, (7, 7))
    with pytest.raises(LossError, match="embeddings only"):
        _ = FeatureDims(8, 8, 5, None, teacher_grid=None).teacher_map_shape


def test_a_loss_without_forward_says_which():
    class Empty(DistillationLoss):
        pass

    with pytest.raises(NotImplementedError, match="Empty"):
        Empty(DIMS)(side(), side(), LossBatch(labels=None))
