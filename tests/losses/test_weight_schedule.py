import numpy as np
import pytest
import torch

from arcface_cakd.config import ConfigError, LossEntry
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses import FeatureDims, LossBatch, WeightedLosses, WeightSchedule


@pytest.mark.parametrize("steps", [1, 7, 1000])
@pytest.mark.parametrize("floor", [0.0, 0.25, 1.0])
def test_factors_are_linear_between_floor_and_one(steps, floor):
    times = np.unique([0, 1, steps // 2, steps - 1, steps, steps + 1, 10 * steps])
    warmup = np.interp(times, [0, steps], [floor, 1.0])
    for kind, expected in (
        ("warmup", warmup),
        ("decay", 1.0 + floor - warmup),
    ):
        schedule = WeightSchedule(kind=kind, steps=steps, floor=floor)
        found = [schedule.factor(int(time)) for time in times]
        np.testing.assert_allclose(found, expected, atol=1e-12)
    assert {WeightSchedule().factor(int(time)) for time in times} == {1.0}


@pytest.mark.parametrize("settings", [{"steps": 100}, {"floor": 0.5}, {"steps": 5, "floor": 1.0}])
def test_a_change_without_a_kind_is_refused(settings):
    with pytest.raises(ConfigError, match='set its kind to "warmup" or "decay"'):
        WeightSchedule(**settings)


@pytest.mark.parametrize("kind", ["warmup", "decay"])
@pytest.mark.parametrize("run", [1, 8, 300])
def test_without_steps_the_change_takes_the_whole_run(kind, run):
    whole, told = WeightSchedule(kind=kind), WeightSchedule(kind=kind, steps=run)
    for step in range(run + 2):
        assert whole.factor(step, run) == told.factor(step)
        assert told.factor(step, 10 * run) == told.factor(step)
        assert whole.factor(step) == 1.0  # of a run of unknown length


@pytest.mark.parametrize(
    ("settings", "run", "said"),
    [
        ({}, 9, ""),
        ({"kind": "decay"}, 9, " falling to 0 of it over 9 steps"),
        ({"kind": "decay"}, None, ""),
        ({"kind": "warmup", "steps": 5, "floor": 0.25}, 9, " rising from 0.25 of it over 5 steps"),
    ],
)
def test_what_becomes_of_a_weight_is_said(settings, run, said):
    assert WeightSchedule(**settings).describe(run) == said


def test_losses_fall_by_the_length_of_the_run():
    entry = LossEntry.from_entry(
        {"name": "embedding_l2", "weight": 3.0, "schedule": {"kind": "decay"}}, "here"
    )
    dims = FeatureDims(4, 4, 2, 2)
    draw = torch.Generator().manual_seed(0)
    student, teacher = (
        FaceFeatures(torch.randn(5, 4, generator=draw), None, None) for _ in range(2)
    )
    losses, alone = WeightedLosses([entry], dims, run_steps=6), WeightedLosses([entry], dims)
    assert losses.described == ["embedding_l2 x 3 falling to 0 of it over 6 steps"]
    assert (losses.unscheduled, alone.unscheduled) == ([], ["embedding_l2"])
    batch = LossBatch(labels=None)
    found = [losses(student, teacher, batch)["embedding_l2"].item() for _ in range(8)]
    first = alone(student, teacher, batch)["embedding_l2"].item()
    np.testing.assert_allclose(found, first * np.array([6, 5, 4, 3, 2, 1, 0, 0]) / 6, rtol=1e-6)
    assert alone(student, teacher, batch)["embedding_l2"].item() == first


def test_the_default_is_constant():
    assert WeightSchedule().factor(0) == 1.0
