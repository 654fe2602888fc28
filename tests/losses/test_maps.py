import numpy as np
import pytest
import torch
from helpers.feature_maps import features, pooled

from arcface_cakd.config import ConfigError
from arcface_cakd.losses import FeatureDims
from arcface_cakd.losses.maps import (
    feature_map,
    map_widths,
    needs_of,
    shared_stages,
    to_common_grid,
)

DIMS = FeatureDims(8, 8, 3, 5, (4, 6, 8, 9), (7, 10, 11))


def test_widths_of_tokens_and_of_stages_from_either_end():
    assert map_widths("at", DIMS, (None, 0, -1)) == [(3, 5), (4, 7), (9, 11)]
    assert map_widths("at", DIMS, (2,)) == [(8, 11)]
    # Two stages of the student learn from one of the teacher.
    assert map_widths("at", DIMS, (2, -1)) == [(8, 11), (9, 11)]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((3,), "at: the teacher has no stage 3: set one of 0 to 2, or of -1 .the last. to -3"),
        ((-1, 4), "at: the student has no stage 4: set one of 0 to 3"),
        ((-5,), "at: the student has no stage -5"),
        ((), "at: stages is empty"),
        ((1, 1), "at: stages .1, 1. name the student's stage 1 and the teacher's stage 1 twice"),
    ],
)
def test_a_stage_that_is_not_there_is_named(stages, message):
    with pytest.raises(ConfigError, match=message) as error:
        map_widths("at", DIMS, stages)
    assert "\n" not in str(error.value)


def test_a_network_without_stages_is_named():
    with pytest.raises(ConfigError, match="fsp: the student has no stage 0: it has none"):
        map_widths("fsp", FeatureDims(8, 8, 3, 5), (0,))


def test_shared_stages_are_paired_from_the_last():
    assert shared_stages("fsp", DIMS, None, least=2) == (-3, -2, -1)
    assert shared_stages("fsp", DIMS, [0, 2], least=2) == (0, 2)
    with pytest.raises(ConfigError, match=r"fsp: stages needs at least 2 stages, got \[1\]"):
        shared_stages("fsp", DIMS, (1,), least=2)
    with pytest.raises(ConfigError, match=r"fsp needs networks with at least 2.*student has 1"):
        shared_stages("fsp", FeatureDims(8, 8, 3, 5, (4,), (7, 10)), None, least=2)


@pytest.mark.parametrize(
    ("stages", "side"),
    [((2, 1, 0), "student"), ((1, 1), "student"), ((-1, 2), "student"), ((2, -1), "teacher")],
)
def test_shared_stages_in_another_order_are_refused(stages, side):
    """Of 4 stages and of 3, the indices may be in order on one side alone."""
    with pytest.raises(ConfigError, match=f"the first stage first; of the {side} they are"):
        shared_stages("fsp", DIMS, stages, least=2)


def test_needs():
    assert needs_of((None,)) == {"tokens"}
    assert needs_of((0, None)) == {"tokens", "stages"}


def test_tokens_are_row_major_and_full_precision():
    token_map, stage = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 7, 8)
    side = features(token_map.bfloat16(), [stage])
    found = feature_map(side, None)
    assert found.dtype == torch.float32
    assert torch.equal(found, token_map.bfloat16().float())
    assert feature_map(side, -1) is stage


@pytest.mark.parametrize(
    ("student", "teacher"), [((14, 14), (7, 7)), ((5, 3), (12, 12)), ((7, 4), (5, 6))]
)
def test_the_larger_grid_is_averaged(student, teacher):
    ours, theirs = torch.randn(2, 3, *student).double(), torch.randn(2, 4, *teacher).double()
    grid = tuple(np.minimum(student, teacher))
    for x, found in zip((ours, theirs), to_common_grid(ours, theirs), strict=True):
        np.testing.assert_allclose(found, pooled(x.numpy(), grid), atol=1e-12)
    same = to_common_grid(ours, ours)
    assert same[0] is ours and same[1] is ours
