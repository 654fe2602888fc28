"""Fixtures of the data tests."""

import pytest
from helpers.record_sets import jpeg, write_records


@pytest.fixture
def insightface_set(tmp_path):
    """26 images of 4 identities, key 0 written last; (folder, key -> (label, JPEG))."""
    images = {key: (float((key - 1) // 7), jpeg(key)) for key in range(1, 27)}
    headers = {27 + i: ([1 + 7 * i, min(8 + 7 * i, 27)], b"") for i in range(4)}
    write_records(tmp_path, {**images, **headers, 0: ([27, 31], b"")})
    return tmp_path, images
