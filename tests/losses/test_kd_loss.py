import numpy as np
import pytest
import torch
from golden.make_class_losses import CLASSES, cases, inputs
from helpers.class_losses import (
    HostHead,
    check_golden,
    cosines,
    frozen_head,
    log_probabilities,
    own_head,
    side,
)

from arcface_cakd.config import check_settings
from arcface_cakd.losses import FeatureDims, LossBatch
from arcface_cakd.losses.kd_loss import KDLoss, kd_loss
from arcface_cakd.registry import LOSSES


def reference(student, teacher, temperature):
    """sum_c p_T log(p_T / p_S) by loops, in float64."""
    total = 0.0
    for z_s, z_t in zip(np.asarray(student), np.asarray(teacher), strict=True):
        log_s, log_t = log_probabilities(z_s / temperature), log_probabilities(z_t / temperature)
        total += sum(np.exp(t) * (t - s) for s, t in zip(log_s, log_t, strict=True))
    return temperature**2 * total / len(student)


@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (4, 7), (9, 50)])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_equals_a_float64_reference(rows, classes, temperature):
    student, teacher = 64 * np.random.default_rng(rows).uniform(-1, 1, (2, rows, classes))
    got = kd_loss(torch.from_numpy(student), torch.from_numpy(teacher), temperature)
    assert got.item() == pytest.approx(reference(student, teacher, temperature), rel=1e-12)
    single = kd_loss(torch.from_numpy(student).float(), torch.from_numpy(teacher).float())
    assert single.item() == pytest.approx(reference(student, teacher, 4.0), rel=1e-5, abs=1e-5)


def test_gradients_equal_finite_differences():
    z = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: kd_loss(z[0], z[1], 2.0), z)


def test_equal_sides_cost_nothing():
    z = (64 * torch.randn(4, 6, dtype=torch.float64)).requires_grad_()
    loss = kd_loss(z, z.detach())
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert z.grad.abs().max() < 1e-12


@pytest.mark.parametrize("case", cases("kd"), ids=lambda c: f"{c['repository']}-{c['seed']}")
def test_equals_published_code(case):
    given = inputs(case["seed"])
    head, teacher_fc = own_head(given.centers), frozen_head(given.teacher_centers)
    batch = LossBatch(None, partial_fc=head, teacher_fc=teacher_fc)
    loss = KDLoss(FeatureDims(8, 10, 3, 3), **case["settings"])
    check_golden(
        case, lambda student: loss(side(student), side(given.teacher), batch), given.student
    )


def test_module_takes_cosines_to_each_sides_own_centers():
    given = inputs(3)
    settings = check_settings(KDLoss, {"scale": 30, "temperature": 2}, "cakd.losses[0]")
    loss = LOSSES.get("kd")(FeatureDims(8, 10, 3, 3), **settings)
    batch = LossBatch(None, HostHead(given.centers), teacher_fc=frozen_head(given.teacher_centers))
    value = loss(side(given.student), side(given.teacher), batch)
    student = 30 * cosines(given.student, given.centers)
    teacher = 30 * cosines(given.teacher, given.teacher_centers)
    assert value.item() == pytest.approx(reference(student, teacher, 2.0), rel=1e-12)
    assert loss.needs == {"logits", "centers"}


def test_runs_over_the_classes_that_partial_fc_sampled():
    given = inputs(4)
    head = own_head(given.centers)
    head.sample_rate, head.num_sample = 0.8, int(0.8 * CLASSES)
    margin = head(given.student, given.labels)
    index = head.weight_index.numpy()
    assert set(given.labels.tolist()) <= set(index.tolist()) < set(range(CLASSES))
    batch = LossBatch(given.labels, head, teacher_fc=frozen_head(given.teacher_centers))
    value = KDLoss(FeatureDims(8, 10, 3, 3))(side(given.student), side(given.teacher), batch)
    student = 64 * cosines(given.student, given.centers[index])
    teacher = 64 * cosines(given.teacher, given.teacher_centers[index])
    assert value.item() == pytest.approx(reference(student, teacher, 4.0), rel=1e-12)
    (margin + value).backward()
    assert head.weight.grad[index].abs().sum(1).min() > 0
