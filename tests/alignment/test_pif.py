import math

import numpy as np
import pytest
import torch

from arcface_cakd.alignment import PIFSettings, piecewise_index
from arcface_cakd.alignment.geometry import (
    anchor_places,
    center_places,
    facial_distance,
    patch_places,
)
from arcface_cakd.config import ConfigError, check_settings


def reference(x, alpha, beta, gamma):
    """One distance at a time, in python floats."""
    if abs(x) <= alpha:
        return int(np.rint(x))
    y = alpha + math.log(abs(x) / alpha) / math.log(gamma / alpha) * (beta - alpha)
    return int(math.copysign(min(beta, float(np.rint(y))), x))  # int() truncates


@pytest.mark.parametrize("constants", [(1.9, 3.8, 15.2), (4, 8, 32), (1, 2, 8), (0.5, 9, 7.25)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_formula_for_signed_and_unsigned_distances(constants, dtype):
    # Thirds of a unit stay away from halves, where single and double precision may part.
    x = torch.arange(-120, 121, dtype=dtype) / 3
    expected = [reference(v / 3, *constants) for v in range(-120, 121)]
    index = piecewise_index(x, *constants)
    assert index.dtype == torch.int64
    assert index.tolist() == expected
    assert index.max() == math.floor(constants[1])


def test_halves_round_to_even_and_beta_is_clipped_before_it_is_cut():
    x = torch.tensor([0.5, 1.5, 2.5, 100.0, -100.0])
    assert piecewise_index(x, 4, 8, 32).tolist() == [0, 2, 2, 8, -8]
    assert piecewise_index(x, 1.9, 3.8, 15.2).tolist() == [0, 2, 2, 3, -3]


@pytest.mark.parametrize(
    ("ratio", "rows"), [(1.9, [1, 8, 36, 4]), (4.0, [1, 8, 12, 16, 12, 0, 0, 0, 0])]
)
def test_rows_around_the_centre_of_the_7x7_grid(ratio, rows):
    pif = PIFSettings(alpha=ratio, beta=2 * ratio, gamma=8 * ratio)
    distance = facial_distance(center_places(49), anchor_places("center"), None)
    assert torch.bincount(pif(distance).flatten(), minlength=pif.rows).tolist() == rows
    assert pif.rows == len(rows)


def test_published_constants_leave_the_default_distance_one_row():
    distance = facial_distance(center_places(49), anchor_places("nose"), "relative")
    assert torch.bincount(PIFSettings(1.9, 3.8, 15.2)(distance).flatten()).max() == 44


@pytest.mark.parametrize("kind", [None, "relative", "saliency"])
@pytest.mark.parametrize("where", ["nose", "center", "landmarks", (7, 7), (14, 14), (12, 12)])
def test_default_constants_spread_the_distances(kind, where):
    places = anchor_places(where) if isinstance(where, str) else patch_places(where)
    distance = facial_distance(center_places(49), places, kind)
    pif = PIFSettings.spread(distance)
    index = pif(distance)
    rows = torch.bincount(index.flatten(), minlength=pif.rows)
    assert len(rows) == pif.rows
    assert rows.max() <= distance.numel() / 3
    assert (rows > 0).sum() >= 7
    # A longer distance never has a lower row.
    order = distance.flatten().argsort()
    assert (index.flatten()[order].diff() >= 0).all()


@pytest.mark.parametrize("value", [0.0, 0.3, 3.7])
def test_default_constants_exist_for_equal_distances(value):
    pif = PIFSettings.spread(torch.full((1, 1), value))
    assert 0 <= pif(torch.tensor(value)) < pif.rows


@pytest.mark.parametrize(
    ("constants", "said"),
    [
        ({"alpha": 0.0, "beta": 2, "gamma": 8}, "alpha 0"),
        ({"alpha": 8.0, "beta": 9, "gamma": 8}, "gamma 8"),
        ({"alpha": 3.6, "beta": 3.8, "gamma": 8}, "raise beta"),
    ],
)
def test_impossible_constants_are_an_error(constants, said):
    with pytest.raises(ConfigError, match=said):
        PIFSettings(**constants)


def test_constants_are_checked_as_settings():
    checked = check_settings(PIFSettings, {"alpha": 1, "beta": 2, "gamma": 8}, "cakd.urfm.pif")
    assert PIFSettings(**checked).rows == 3
    with pytest.raises(ConfigError, match=r"gama.*gamma"):
        check_settings(PIFSettings, {"alpha": 1, "beta": 2, "gama": 8}, "cakd.urfm.pif")
