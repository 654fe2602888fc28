import pytest
import torch

from arcface_cakd.engine.divergence import DivergenceGuard
from arcface_cakd.engine.errors import DivergenceError


def make_guard():
    return DivergenceGuard(torch.device("cpu"), lambda culprits: "lower lr")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_names_the_first_bad_step_and_its_terms_however_late_it_looks(bad):
    guard = make_guard()
    names = ("margin", "urfm_feature", "anchoring")
    guard.observe(6, names, torch.tensor([1.0, 2.0, 3.0]))
    guard.check()
    guard.observe(7, names, torch.tensor([1.0, bad, bad]))
    guard.observe(8, names, torch.tensor([bad, bad, bad]))
    guard.observe(9, names, torch.tensor([1.0, 1.0, 1.0]))
    with pytest.raises(DivergenceError) as error:
        guard.check()
    message = str(error.value)
    assert "step 7" in message and "urfm_feature, anchoring" in message
    assert "margin" not in message and "lower lr" in message and "\n" not in message


def test_kinds_of_values_are_watched_side_by_side():
    guard = make_guard()
    guard.observe(1, ("margin",), torch.tensor([1.0]))
    guard.observe(1, ("gradient of the student",), torch.tensor([float("nan")]))
    with pytest.raises(DivergenceError, match=r"step 1: not finite: gradient of the student;"):
        guard.check()


def test_nothing_seen_is_nothing_wrong():
    make_guard().check()
