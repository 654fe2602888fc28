import numpy as np
import pytest
import torch
from golden.make_class_losses import cases, inputs
from helpers.class_losses import (
    HostHead,
    check_golden,
    cosines,
    frozen_head,
    log_probabilities,
    side,
)

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.losses import FeatureDims, LossBatch
from arcface_cakd.losses.dkd_loss import DKDLoss, dkd_loss
from arcface_cakd.losses.kd_loss import kd_loss
from arcface_cakd.registry import LOSSES

DIMS = FeatureDims(8, 10, 3, 3)


def reference(student, teacher, labels, alpha, beta, temperature):
    """By loops: the pair (p_y, 1 - p_y), then the other classes among themselves."""
    total = 0.0
    for z_s, z_t, y in zip(student, teacher, labels, strict=True):
        p_s = np.exp(log_probabilities(z_s / temperature))
        p_t = np.exp(log_probabilities(z_t / temperature))
        rest_s, rest_t = np.delete(p_s, y).sum(), np.delete(p_t, y).sum()
        total += alpha * (p_t[y] * np.log(p_t[y] / p_s[y]) + rest_t * np.log(rest_t / rest_s))
        others_s = log_probabilities(np.delete(z_s, y) / temperature)
        others_t = log_probabilities(np.delete(z_t, y) / temperature)
        total += beta * (np.exp(others_t) * (others_t - others_s)).sum()
    return temperature**2 * total / len(student)


def numbers(rows, classes, scale=64.0):
    rng = np.random.default_rng(rows)
    student, teacher = scale * rng.uniform(-1, 1, (2, rows, classes))
    return student, teacher, rng.integers(0, classes, rows)


def ours(student, teacher, labels, *settings):
    student, teacher = torch.as_tensor(student), torch.as_tensor(teacher)
    return dkd_loss(student, teacher, torch.as_tensor(labels).view(-1, 1), *settings)


@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (4, 7), (9, 50)])
@pytest.mark.parametrize("settings", [(1.0, 8.0, 4.0), (0.0, 1.0, 8.0), (3.0, 0.0, 4.0)])
def test_equals_a_float64_reference(rows, classes, settings):
    made = numbers(rows, classes)
    assert ours(*made, *settings).item() == pytest.approx(reference(*made, *settings), rel=1e-9)
    single = ours(*(x.astype(np.float32) for x in made[:2]), made[2], *settings)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(reference(*made, *settings), rel=1e-4)


def test_is_kd_with_the_teachers_weight_on_the_other_classes():
    """Zhao et al., eq. 5: KD = TCKD + (1 - p_T,y) NCKD."""
    student, teacher, labels = numbers(1, 9, 5.0)
    rest = 1 - np.exp(log_probabilities(teacher[0] / 4.0))[labels[0]]
    expected = kd_loss(torch.from_numpy(student), torch.from_numpy(teacher), 4.0)
    assert ours(student, teacher, labels, 1.0, rest, 4.0).item() == pytest.approx(expected.item())


def test_gradients_equal_finite_differences():
    z = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: ours(z[0], z[1], [4, 0, 0], 1.0, 8.0, 2.0), z)


@pytest.mark.parametrize("temperature", [4.0, 0.25])
def test_stays_finite_where_the_target_has_all_or_nothing(temperature):
    z = torch.full((2, 4), -64.0)
    z[0, 1] = z[1, :3] = 64.0
    student = z.clone().requires_grad_()
    teacher = z.flip(0).clone().requires_grad_()
    loss = ours(student, teacher, [1, 3], 1.0, 8.0, temperature)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all() and teacher.grad.isfinite().all()


def test_equal_sides_cost_nothing():
    z = (64 * torch.randn(4, 6, dtype=torch.float64)).requires_grad_()
    loss = ours(z, z.detach(), [0, 1, 5, 5])
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert z.grad.abs().max() < 1e-10


@pytest.mark.parametrize("case", cases("dkd"), ids=lambda c: f"{c['settings']['beta']}-{c['seed']}")
def test_equals_published_code(case):
    given, loss = inputs(case["seed"]), DKDLoss(DIMS, **case["settings"])
    head, teacher_fc = HostHead(given.centers), frozen_head(given.teacher_centers)
    batch = LossBatch(given.labels, head, teacher_fc=teacher_fc)
    check_golden(
        case, lambda student: loss(side(student), side(given.teacher), batch), given.student
    )


def test_module_equals_the_reference():
    given = inputs(5)
    settings = check_settings(DKDLoss, {"scale": 20.0}, "cakd.losses[0]")
    loss = LOSSES.get("dkd")(DIMS, **settings)
    batch = LossBatch(
        given.labels, HostHead(given.centers), teacher_fc=frozen_head(given.teacher_centers)
    )
    student = 20 * cosines(given.student, given.centers)
    teacher = 20 * cosines(given.teacher, given.teacher_centers)
    whole = reference(student, teacher, given.labels, 1.0, 8.0, 4.0)

    value = loss(side(given.student), side(given.teacher), batch).item()
    assert value == pytest.approx(whole, rel=1e-9)
    assert loss.needs == {"labels", "logits", "centers"}


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"alpha": -1.0}])
def test_settings_out_of_range(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        check_settings(DKDLoss, wrong, "cakd.losses[0]")


def test_no_part_left_is_refused():
    with pytest.raises(ConfigError, match="alpha and beta are both 0"):
        DKDLoss(DIMS, alpha=0.0, beta=0.0)
