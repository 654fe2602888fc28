"""Fixtures of the record file tests."""

import pytest
from helpers.record_sets import write_insightface_set


@pytest.fixture
def insightface_set(tmp_path):
    """26 images of 4 identities, key 0 written last; (folder, key -> (label, JPEG))."""
    return tmp_path, write_insightface_set(tmp_path)
