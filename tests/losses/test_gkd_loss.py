import numpy as np
import pytest
import torch
from golden.make_class_losses import inputs
from helpers.class_losses import HostHead, cosines, frozen_head, log_probabilities, side

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.losses import FeatureDims, LossBatch
from arcface_cakd.losses.gkd_loss import GKDLoss, gkd_loss, primary_group
from arcface_cakd.losses.kd_loss import kd_loss
from arcface_cakd.registry import LOSSES

DIMS = FeatureDims(8, 10, 3, 3)


def group(probabilities, threshold):
    """Classes from the most probable down until they make the threshold."""
    chosen, total = [], 0.0
    for c in np.argsort(-probabilities):
        if total >= threshold:
            break
        chosen.append(c)
        total += probabilities[c]
    return chosen


def reference(student, teacher, threshold, temperature, primary, binary, secondary):
    total = 0.0
    for z_s, z_t in zip(student, teacher, strict=True):
        p_s, p_t = (np.exp(log_probabilities(z / temperature)) for z in (z_s, z_t))
        chosen = group(p_t, threshold)
        rest = np.setdiff1d(np.arange(len(p_t)), chosen)
        for classes, weight in ((chosen, primary), (rest, secondary)):
            if not len(classes):
                continue
            share_s, share_t = p_s[classes].sum(), p_t[classes].sum()
            total += binary * share_t * np.log(share_t / share_s)
            within_s, within_t = p_s[classes] / share_s, p_t[classes] / share_t
            total += weight * share_t * (within_t * np.log(within_t / within_s)).sum()
    return temperature**2 * total / len(student)


def numbers(rows, classes, scale=20.0):
    return scale * np.random.default_rng(rows).uniform(-1, 1, (2, rows, classes))


@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (4, 7), (9, 50)])
@pytest.mark.parametrize(
    "settings",
    [(0.9, 4.0, 1.0, 1.0, 0.0), (0.5, 8.0, 0.0, 1.0, 2.0), (0.99, 2.0, 3.0, 0.5, 0.0)],
)
def test_equals_a_float64_reference(rows, classes, settings):
    student, teacher = numbers(rows, classes)
    expected = reference(student, teacher, *settings)
    found = gkd_loss(torch.from_numpy(student), torch.from_numpy(teacher), *settings)
    assert found.item() == pytest.approx(expected, rel=1e-9)
    single = gkd_loss(*torch.from_numpy(np.stack([student, teacher])).float(), *settings)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("scale", [0.1, 4.0, 64.0])
def test_group_is_the_fewest_that_make_the_threshold(threshold, scale):
    logits = scale * np.random.default_rng(1).uniform(-1, 1, (8, 40))
    found = primary_group(torch.from_numpy(logits), threshold).numpy()
    for row, mask in zip(logits, found, strict=True):
        expected = group(np.exp(log_probabilities(row)), threshold)
        assert sorted(expected) == np.flatnonzero(mask).tolist()


def test_classes_that_are_equally_probable_go_together():
    logits = torch.tensor([[3.0, 1.0, 1.0, 1.0, -9.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert primary_group(logits, 0.75).tolist() == [[True] * 4 + [False], [True] * 5]
    assert primary_group(logits, 0.5).tolist() == [[True] + [False] * 4, [True] * 5]


def test_is_kd_where_all_three_parts_weigh_1():
    student, teacher = torch.from_numpy(numbers(6, 30))
    expected = kd_loss(student, teacher, 4.0).item()
    assert gkd_loss(student, teacher, 0.8, 4.0, 1, 1, 1).item() == pytest.approx(expected)
    assert gkd_loss(student, teacher, 0.8, 4.0, 1, 1, 0).item() < 0.999 * expected


def test_what_the_student_makes_of_the_tail_is_of_no_account():
    """Shifts among secondary classes that leave their sum change nothing by default."""
    student, teacher = (torch.randn(1, 9, dtype=torch.float64) for _ in range(2))
    teacher[0, :3] += 20
    changed = student.clone()
    changed[0, 3:] = student[0, 3:].flip(0)
    found = [gkd_loss(x, teacher, 0.9, 1.0).item() for x in (student, changed)]
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    whole = [gkd_loss(x, teacher, 0.9, 1.0, 1, 1, 1e6).item() for x in (student, changed)]
    assert abs(whole[0] - whole[1]) > 1e-6


def test_gradients_equal_finite_differences():
    z = 3 * torch.randn(2, 3, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda z: gkd_loss(z[0], z[1], 0.8, 2.0, 1.0, 1.0, 0.5), z.requires_grad_()
    )


def test_stays_finite_where_a_group_is_empty_or_has_it_all():
    teacher = torch.zeros(3, 4)
    teacher[1, 0] = teacher[2, 3] = 64.0
    for student in (teacher.flip(0).clone(), torch.zeros(3, 4), 64 * torch.eye(4)[:3]):
        student, target = student.requires_grad_(), teacher.clone().requires_grad_()
        for threshold in (0.5, 1.0):
            loss = gkd_loss(student, target, threshold, 0.25, 1.0, 1.0, 1.0)
            loss.backward()
            assert loss.isfinite()
            assert student.grad.isfinite().all() and target.grad.isfinite().all()


def test_module_equals_the_reference():
    given = inputs(5)
    settings = check_settings(GKDLoss, {"scale": 20.0, "threshold": 0.7}, "cakd.losses[0]")
    loss = LOSSES.get("gkd")(DIMS, **settings)
    batch = LossBatch(None, HostHead(given.centers), teacher_fc=frozen_head(given.teacher_centers))
    student = 20 * cosines(given.student, given.centers)
    teacher = 20 * cosines(given.teacher, given.teacher_centers)
    expected = reference(student, teacher, 0.7, 4.0, 1.0, 1.0, 0.0)
    value = loss(side(given.student), side(given.teacher), batch).item()
    assert value == pytest.approx(expected, rel=1e-9)
    assert loss.needs == {"logits", "centers"}


@pytest.mark.parametrize("wrong", [{"threshold": 0.0}, {"threshold": 1.5}, {"temperature": 0.0}])
def test_settings_out_of_range(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        check_settings(GKDLoss, wrong, "cakd.losses[0]")
    with pytest.raises(ConfigError, match="gkd: all its weights are 0"):
        GKDLoss(DIMS, primary_weight=0.0, binary_weight=0.0)
