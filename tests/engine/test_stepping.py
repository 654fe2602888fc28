import pytest
import torch
from torch import nn

from arcface_cakd.engine.stepping import Stepper


def parameters(*sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(size, generator=generator)) for size in sizes]


def make_stepper(clip, scaler=None, lr=1.0, shared=False):
    groups = {
        "student": parameters(5, 3, seed=1),
        "prompts": parameters(4, seed=2),
        "urfm": parameters(6, 2, seed=3),
        "partial_fc": parameters(7, seed=4),
    }
    optimizer = torch.optim.SGD(
        [{"name": name, "params": params} for name, params in groups.items()], lr=lr
    )
    return groups, Stepper(optimizer, clip, scaler, shared)


def flat(params):
    return torch.cat([p.detach().reshape(-1) for p in params]).double()


def weigh(groups, weights):
    """A loss whose gradient on each group is that weight times (1, 2, 3, ...)."""
    return sum(
        weights[name] * (p * torch.arange(1.0, p.numel() + 1)).sum()
        for name, params in groups.items()
        for p in params
    )


@pytest.mark.parametrize("clip", [0.5, 5.0, 1e6, None])
def test_student_and_heads_have_separate_budgets_and_centres_none(clip):
    groups, stepper = make_stepper(clip)
    weights = {"student": 2.0, "prompts": 0.3, "urfm": 40.0, "partial_fc": 1000.0}
    before = {name: flat(params) for name, params in groups.items()}
    raw = {
        name: weights[name] * torch.cat([torch.arange(1.0, p.numel() + 1) for p in params]).double()
        for name, params in groups.items()
    }
    stepper.backward(weigh(groups, weights))
    norms = stepper.prepare()
    stepper.apply()
    steps = {name: before[name] - flat(params) for name, params in groups.items()}

    student_norm = raw["student"].norm()
    head_norm = torch.cat([raw["prompts"], raw["urfm"]]).norm()
    limit = float("inf") if clip is None else clip
    for names, norm in ((("student",), student_norm), (("prompts", "urfm"), head_norm)):
        factor = min(1.0, limit / float(norm))
        for name in names:
            torch.testing.assert_close(steps[name], raw[name] * factor, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(steps["partial_fc"], raw["partial_fc"], rtol=1e-4, atol=1e-2)
    if clip is None:
        assert norms == {}
    else:
        assert list(norms) == ["gradient of the student", "gradient of the distillation heads"]
        assert float(norms["gradient of the student"]) == pytest.approx(float(student_norm), 1e-4)


@pytest.mark.parametrize("clip", [0.5, 1e6])
def test_a_shared_budget_clips_student_and_heads_together(clip):
    groups, stepper = make_stepper(clip, shared=True)
    weights = {"student": 2.0, "prompts": 0.3, "urfm": 40.0, "partial_fc": 1000.0}
    before = {name: flat(params) for name, params in groups.items()}
    raw = {
        name: weights[name] * torch.cat([torch.arange(1.0, p.numel() + 1) for p in params]).double()
        for name, params in groups.items()
    }
    stepper.backward(weigh(groups, weights))
    (norm,) = stepper.prepare().values()
    stepper.apply()
    whole = torch.cat([raw[name] for name in ("student", "prompts", "urfm")]).norm()
    assert float(norm) == pytest.approx(float(whole), rel=1e-4)
    for name in ("student", "prompts", "urfm"):
        expected = raw[name] * min(1.0, clip / float(whole))
        step = before[name] - flat(groups[name])
        torch.testing.assert_close(step, expected, rtol=1e-4, atol=1e-4)


def test_gradients_of_micro_steps_are_summed():
    groups, stepper = make_stepper(None)
    before = flat(groups["student"])
    for weight in (1.0, 2.5):
        stepper.backward(weigh(groups, dict.fromkeys(groups, weight)))
    stepper.prepare()
    stepper.apply()
    expected = 3.5 * torch.cat([torch.arange(1.0, 6), torch.arange(1.0, 4)]).double()
    torch.testing.assert_close(before - flat(groups["student"]), expected, rtol=1e-5, atol=1e-5)
    assert all(p.grad is None for params in groups.values() for p in params)


def test_a_scaler_clips_unscaled_gradients_and_skips_an_overflow():
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    groups, stepper = make_stepper(0.5, scaler)
    plain_groups, plain = make_stepper(0.5)
    for each, step in ((groups, stepper), (plain_groups, plain)):
        step.backward(weigh(each, dict.fromkeys(each, 1.0)))
        step.prepare()
        step.apply()
    for name in groups:
        torch.testing.assert_close(flat(groups[name]), flat(plain_groups[name]))
    assert scaler.get_scale() == 1024.0

    before = flat(groups["student"])
    stepper.backward(weigh(groups, {**dict.fromkeys(groups, 1.0), "partial_fc": float("inf")}))
    stepper.prepare()
    stepper.apply()
    assert torch.equal(before, flat(groups["student"]))
    assert scaler.get_scale() == 512.0
