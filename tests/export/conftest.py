"""What tests of several kinds of exported files start from."""

import pytest
import torch

from arcface_cakd.backbones import get_model, save_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """model.pt of an r10_narrow that embeds in 16 numbers, drawn at random."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    save_weights(get_model("r10_narrow", num_features=16), path)
    return path
