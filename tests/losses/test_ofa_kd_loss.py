import numpy as np
import pytest
import torch
from golden.make_class_losses import BATCH, cases, inputs
from helpers.class_losses import (
    HostHead,
    check_golden,
    cosines,
    frozen_head,
    log_probabilities,
    side,
)

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses import FeatureDims, LossBatch
from arcface_cakd.losses.ofa_kd_loss import ExitProjector, OFAKDLoss, ofa_kd_loss
from arcface_cakd.registry import LOSSES

DIMS = FeatureDims(8, 10, 3, 3, student_stages=(4, 6))


def reference(student, teacher, labels, eps, temperature):
    total = 0.0
    for z_s, z_t, y in zip(student, teacher, np.asarray(labels), strict=True):
        log_s = log_probabilities(z_s / temperature)
        p_t = np.exp(log_probabilities(z_t / temperature))
        for c in range(len(p_t)):
            total -= ((p_t[c] + (c == y)) ** eps - (c == y)) * log_s[c]
    return total / len(labels)


def numbers(rows, classes, scale=64.0):
    rng = np.random.default_rng(rows)
    student, teacher = scale * rng.uniform(-1, 1, (2, rows, classes))
    return student, teacher, rng.integers(0, classes, rows)


def ours(student, teacher, labels, *settings):
    columns = torch.as_tensor(labels).view(-1, 1)
    return ofa_kd_loss(torch.as_tensor(student), torch.as_tensor(teacher), columns, *settings)


def stages(count=BATCH):
    return [torch.randn(count, c, side, side).double() for c, side in ((4, 28), (6, 5))]


@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (4, 7), (9, 50)])
@pytest.mark.parametrize("settings", [(1.0, 1.0), (1.4, 1.0), (2.0, 4.0)])
def test_equals_a_float64_reference(rows, classes, settings):
    made = numbers(rows, classes)
    expected = reference(*made, *settings)
    assert ours(*made, *settings).item() == pytest.approx(expected, rel=1e-12)
    single = ours(*(x.astype(np.float32) for x in made[:2]), made[2], *settings)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_eps_of_one_is_cross_entropy_with_the_teacher():
    student, teacher, _ = (torch.as_tensor(x) for x in numbers(5, 9, 8.0))
    expected = torch.nn.functional.cross_entropy(student, teacher.softmax(1))
    assert ours(student, teacher, [0, 1, 2, 3, 8]).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("eps", [1.0, 1.5])
def test_gradients(eps):
    z = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: ours(z[0], z[1], [4, 0, 0], eps, 2.0), z)
    sure = torch.tensor([[400.0, -400.0, 0.0]], requires_grad=True)
    ours(sure, sure, [1], eps).backward()  # probabilities of exactly 0
    assert sure.grad.isfinite().all()


@pytest.mark.parametrize("case", cases("ofa_kd"), ids=lambda c: f"{c['settings']}-{c['seed']}")
def test_last_exit_equals_published_code(case):
    given, loss = inputs(case["seed"]), OFAKDLoss(DIMS, **case["settings"], stage_weight=0.0)
    batch = LossBatch(
        given.labels, HostHead(given.centers), teacher_fc=frozen_head(given.teacher_centers)
    )
    loss, maps = loss.double(), stages()
    check_golden(
        case, lambda student: loss(side(student, maps), side(given.teacher), batch), given.student
    )


def test_module_sums_over_its_exits():
    given, maps = inputs(3), stages()
    settings = {"eps": 1.5, "scale": 20, "temperature": 2, "stage_weight": 0.5}
    settings = check_settings(OFAKDLoss, settings, "cakd.losses[0]")
    loss = LOSSES.get("ofa_kd")(DIMS, **settings).double()
    head = HostHead(given.centers)
    batch = LossBatch(given.labels, head, teacher_fc=frozen_head(given.teacher_centers))
    value = loss(side(given.student, maps), side(given.teacher), batch)
    teacher = 20 * cosines(given.teacher, given.teacher_centers)
    logits = [20 * cosines(given.student, given.centers)]
    for projector, stage in zip(loss.projectors, maps, strict=True):
        embedding = projector(stage).detach()
        assert embedding.shape == (BATCH, 10)
        logits.append(20 * cosines(embedding, given.teacher_centers))
    last, *exits = (reference(z, teacher, given.labels, 1.5, 2.0) for z in logits)
    assert value.item() == pytest.approx(last + 0.5 * sum(exits), rel=1e-11)
    value.backward()
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())
    assert head.weight.grad.abs().sum() > 0
    assert loss.needs == {"student_stages", "labels", "logits", "centers"}


def test_exits_can_be_chosen():
    given, maps = inputs(3), stages()
    batch = LossBatch(
        given.labels, HostHead(given.centers), teacher_fc=frozen_head(given.teacher_centers)
    )
    settings = check_settings(OFAKDLoss, {"stages": [2]}, "cakd.losses[0]")
    loss = OFAKDLoss(DIMS, **settings).double()
    assert len(loss.projectors) == 1
    expected = loss(side(given.student, maps), side(given.teacher), batch)
    maps[0] = maps[0] * torch.nan
    assert loss(side(given.student, maps), side(given.teacher), batch) == expected
    with pytest.raises(ConfigError, match=r"2 stages and stages asks for number 3"):
        OFAKDLoss(DIMS, stages=(1, 3))
    for wrong in ({"stages": [0]}, {"eps": 0.9}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            check_settings(OFAKDLoss, wrong, "cakd.losses[0]")


def test_a_teacher_of_embeddings_suffices():
    given = inputs(3)
    loss = OFAKDLoss(FeatureDims(8, 10, 3, None, (4, 6), (), teacher_grid=None)).double()
    batch = LossBatch(
        given.labels, HostHead(given.centers), teacher_fc=frozen_head(given.teacher_centers)
    )
    value = loss(
        side(given.student, stages()), FaceFeatures(given.teacher, tokens=None, grid=None), batch
    )
    value.backward()
    assert value.isfinite() and all(p.grad.abs().sum() > 0 for p in loss.parameters())


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (56, 28)])
def test_exit_projector_takes_maps_of_any_size(size):
    projector = ExitProjector(6, 12)
    stage = torch.randn(2, 6, *size)
    out = projector(stage)
    assert out.shape == (2, 12)
    # Each face by itself.
    torch.testing.assert_close(projector(stage[1:]), out[1:])
