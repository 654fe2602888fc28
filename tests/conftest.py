"""What holds for every test: one thread, since small tensors gain nothing from two, and a seed.

And a fixture that the tests of several rooms use.
"""

import pytest
import torch
from helpers.record_sets import write_insightface_set

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def insightface_set(tmp_path):
    """26 images of 4 identities, key 0 written last; (folder, key -> (label, JPEG))."""
    return tmp_path, write_insightface_set(tmp_path)
