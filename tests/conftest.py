"""What holds for every test: one thread, since small tensors gain nothing from two, and a seed.

Nothing waits for the disk either: that takes a millisecond or a hundred for each of many files.
And a fixture that the tests of several rooms use.
"""

import os

import pytest
import torch
from helpers.record_sets import write_insightface_set

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def insightface_set(tmp_path):
    """26 images of 4 identities, key 0 written last; (folder, key -> (label, JPEG))."""
    return tmp_path, write_insightface_set(tmp_path)
