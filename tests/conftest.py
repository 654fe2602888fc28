"""What holds for every test: one thread, since small tensors gain nothing from two, and a seed."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
