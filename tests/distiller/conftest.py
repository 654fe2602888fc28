import pytest
import torch


@pytest.fixture
def images():
    return torch.rand(4, 3, 112, 112, generator=torch.Generator().manual_seed(1)) * 2 - 1
