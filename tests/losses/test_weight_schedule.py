import numpy as np
import pytest

from arcface_cakd.losses import WeightSchedule


@pytest.mark.parametrize("steps", [1, 7, 1000])
@pytest.mark.parametrize("floor", [0.0, 0.25, 1.0])
def test_factors_are_linear_between_floor_and_one(steps, floor):
    times = np.unique([0, 1, steps // 2, steps - 1, steps, steps + 1, 10 * steps])
    warmup = np.interp(times, [0, steps], [floor, 1.0])
    for kind, expected in (
        ("warmup", warmup),
        ("decay", 1.0 + floor - warmup),
        ("constant", np.ones(len(times))),
    ):
        schedule = WeightSchedule(kind=kind, steps=steps, floor=floor)
        found = [schedule.factor(int(time)) for time in times]
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_default_is_constant():
    assert WeightSchedule().factor(0) == 1.0
