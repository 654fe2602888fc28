import pytest
import torch

from arcface_cakd.engine.schedule import Schedule, warmup_polynomial


def recurrence(base, warmup, total, power, steps):
    """The rates as arcface_torch's scheduler chains them: each decay from the rate before."""
    rates = [base]
    for i in range(1, steps + 1):
        if i > total:
            rates.append(rates[-1])
        elif i <= warmup:
            rates.append(base * i / warmup)
        else:
            now, before = (1 - (j - warmup) / (total - warmup) for j in (i, i - 1))
            rates.append(rates[-1] * (now / before) ** power)
    return rates


@pytest.mark.parametrize("warmup, total", [(0, 7), (1, 9), (5, 40), (30, 100)])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_equals_the_chained_form_of_arcface_torch(warmup, total, power):
    base = 0.3
    rates = [base * warmup_polynomial(i, warmup, total, power) for i in range(total + 3)]
    assert rates == pytest.approx(recurrence(base, warmup, total, power, total + 2), rel=1e-9)


def test_a_warm_up_as_long_as_the_run_never_divides_by_zero():
    assert [warmup_polynomial(i, 3, 3) for i in range(5)] == [1.0, 1 / 3, 2 / 3, 1.0, 0.0]


def make_schedule(rates=(0.2, 0.01), warmup=2, total=6):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    return optimizer, Schedule(optimizer, warmup, total)


def test_every_group_keeps_its_own_base_rate():
    optimizer, schedule = make_schedule()
    for factor in (0.5, 1.0, 0.75, 0.5, 0.25, 0.0):
        schedule.step()
        assert [g["lr"] for g in optimizer.param_groups] == pytest.approx(
            [0.2 * factor, 0.01 * factor]
        )


def test_a_restored_schedule_goes_on_with_the_new_run_s_length_and_rates():
    _, stopped = make_schedule()
    for _ in range(3):
        stopped.step()
    optimizer, schedule = make_schedule(rates=(0.4, 0.02), total=12)
    schedule.load_state_dict(stopped.state_dict())
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.4 * 0.9, 0.02 * 0.9])
