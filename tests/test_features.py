import pytest
import torch

from arcface_cakd.features import FaceFeatures


def test_pixel_features_are_the_tokens_and_their_grid():
    tokens = torch.randn(2, 6, 4)
    features = FaceFeatures(torch.randn(2, 3), tokens, (2, 3))
    assert features.pixel_features[0] is tokens and features.pixel_features[1] == (2, 3)


@pytest.mark.parametrize("tokens", [None, torch.zeros(2, 6, 4)])
def test_without_a_grid_there_are_none(tokens):
    with pytest.raises(ValueError, match="embeddings only"):
        _ = FaceFeatures(torch.randn(2, 3), tokens, None).pixel_features


def test_tokens_that_do_not_fill_their_grid_are_refused():
    with pytest.raises(ValueError, match=r"tokens \(2, 6, 4\) do not fill a grid of 2 x 2"):
        FaceFeatures(torch.randn(2, 3), torch.zeros(2, 6, 4), (2, 2))
