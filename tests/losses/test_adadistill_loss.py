import numpy as np
import pytest
import torch
from golden.make_class_losses import CLASSES, cases, inputs, steps
from helpers.class_losses import check_golden, cosines, log_probabilities, side

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.losses import FeatureDims, LossBatch
from arcface_cakd.losses.adadistill_loss import AdaDistillLoss, move_centers
from arcface_cakd.losses.arcdistill_loss import arcdistill_loss
from arcface_cakd.losses.cosdistill_loss import cosdistill_loss
from arcface_cakd.partial_fc import ArcFace, PartialFC
from arcface_cakd.registry import LOSSES

DIMS = FeatureDims(8, 8, 3, 3, num_classes=CLASSES)


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def moved(centers, student, teacher, labels):
    """By loops, in float64: of several faces of a class, the mean of what each would make."""
    centers, proposals = np.asarray(centers).copy(), {}
    for e_s, e_t, y in zip(np.asarray(student), np.asarray(teacher), labels, strict=True):
        settled = np.clip(cosine(centers[y], e_t), 1e-6, 1)
        rate = np.clip(cosine(e_s, e_t) * settled, 1e-6, 1)
        proposal = rate * centers[y] + (1 - rate) * e_t / np.sqrt(e_t @ e_t)
        proposals.setdefault(int(y), []).append(proposal)
    for y, made in proposals.items():
        centers[y] = np.mean(made, axis=0)
    return centers


def built(**settings):
    return AdaDistillLoss(DIMS, **settings).double()


def with_centers(loss, centers):
    """Go on from these centres, as from a checkpoint."""
    loss.load_state_dict({"centers": centers, "updates": torch.tensor(1)})
    return loss


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_centers_move_as_published(seed):
    rng = np.random.default_rng(seed)
    centers, teacher = rng.normal(size=(5, 6)), rng.normal(size=(12, 6))
    labels = rng.integers(0, 4, 12)  # several of each, none of the last
    teacher[:8] += 2 * centers[labels[:8]]
    student = teacher + rng.normal(size=(12, 6))
    got = torch.from_numpy(centers.copy())
    columns = torch.from_numpy(labels).view(-1, 1)
    move_centers(got, torch.from_numpy(student), torch.from_numpy(teacher), columns)
    np.testing.assert_allclose(got, moved(centers, student, teacher, labels), rtol=1e-12)
    assert np.array_equal(got[4], centers[4])


def test_rate_at_its_ends():
    teacher = torch.tensor([[2.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    columns = torch.tensor([[0], [1]])
    # The student is where the teacher is, and so is the centre's direction: nothing moves.
    centers = 5 * teacher
    move_centers(centers, teacher, teacher, columns)
    torch.testing.assert_close(centers, 5 * teacher)
    # The student knows nothing: the centre becomes the teacher's embedding.
    centers = 5 * teacher
    move_centers(centers, -teacher, teacher, columns)
    torch.testing.assert_close(centers, torch.eye(2).double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "case", cases("adadistill"), ids=lambda c: f"{c['settings']['kind']}-{c['seed']}"
)
def test_equals_published_code(case):
    loss, batches = built(**case["settings"]), steps(case["seed"])
    with_centers(loss, batches[0].teacher_centers)

    def step(student, given):
        return loss(side(student), side(given.teacher), LossBatch(given.labels))

    for given in batches[:-1]:
        step(given.student, given)
    last = batches[-1]
    check_golden(case, lambda student: step(student, last), last.student)
    np.testing.assert_allclose(loss.centers, case["centers"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("kind", "plain"), [("arc", arcdistill_loss), ("cos", cosdistill_loss)])
def test_module_moves_and_then_compares(kind, plain):
    given, before = inputs(4, 8), inputs(5, 8).teacher_centers
    settings = check_settings(
        AdaDistillLoss, {"kind": kind, "scale": 20, "margin": 0.3}, "cakd.losses[0]"
    )
    loss = with_centers(LOSSES.get("adadistill")(DIMS, **settings).double(), before)
    student, teacher = (
        given.student.clone().requires_grad_(),
        given.teacher.clone().requires_grad_(),
    )
    value = loss(side(student), side(teacher), LossBatch(given.labels))
    after = moved(before, given.student, given.teacher, given.labels)
    np.testing.assert_allclose(loss.centers, after, rtol=1e-12)
    cosine_to = torch.from_numpy(cosines(given.student, after))
    expected = plain(cosine_to, given.labels.view(-1, 1), 20.0, 0.3)
    assert value.item() == pytest.approx(expected.item(), rel=1e-11)
    value.backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0
    assert loss.needs == {"labels"} and loss.sharded_buffers == {"centers"}


def test_centers_start_at_random_whatever_was_broadcast_before():
    given = inputs(6, 8)
    loss = AdaDistillLoss(DIMS, seed=7).eval()
    loss.centers.fill_(3.0)
    loss(side(given.student), side(given.teacher), LossBatch(given.labels))
    expected = PartialFC(ArcFace(), 8, CLASSES, seed=7).weight
    assert torch.equal(loss.centers, expected)
    other = AdaDistillLoss(DIMS, seed=8).eval()
    other(side(given.student), side(given.teacher), LossBatch(given.labels))
    assert not torch.equal(other.centers, expected)
    # The first face of a class sets its centre.
    loss.train()(side(given.student), side(given.teacher), LossBatch(given.labels))
    unit = torch.nn.functional.normalize(given.teacher)
    alike = torch.nn.functional.cosine_similarity(loss.centers[given.labels].double(), unit)
    assert alike.min() > 0.99


def test_moves_in_training_only():
    given = inputs(6, 8)
    loss = with_centers(built(), given.teacher_centers).eval()
    for _ in range(2):
        loss(side(given.student), side(given.teacher), LossBatch(given.labels))
    assert torch.equal(loss.centers, given.teacher_centers) and loss.updates.item() == 1
    loss.train()(side(given.student), side(given.teacher), LossBatch(given.labels))
    assert not torch.equal(loss.centers, given.teacher_centers) and loss.updates.item() == 2


def test_goes_on_from_its_state():
    def run(loss, batches):
        return [loss(side(b.student), side(b.teacher), LossBatch(b.labels)).item() for b in batches]

    batches = steps(9)
    straight, stopped, resumed = built(), built(), built()
    expected = run(straight, batches)
    found = run(stopped, batches[:1])
    resumed.load_state_dict(stopped.state_dict())
    assert found + run(resumed, batches[1:]) == expected
    # Into a module that is under way, from one that has not begun.
    resumed.load_state_dict(built().state_dict())
    assert run(resumed, batches) == expected


def test_number_of_classes_must_be_known():
    with pytest.raises(ConfigError, match="give num_classes") as error:
        AdaDistillLoss(FeatureDims(8, 8, 3, 3))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("geometry", [0.0, 3.0])
def test_margin_by_quality_and_geometry_equals_a_float64_reference(geometry):
    """Over several batches, as centres and the norms' statistics move."""
    m, h, t_alpha, s = 0.4, 0.333, 0.01, 20.0
    loss = built(kind="ada", margin=m, geometry=geometry, scale=s)
    centers = steps(3)[0].teacher_centers.numpy()
    loss.centers.copy_(torch.from_numpy(centers))
    loss.updates += 1
    mean, deviation, raised = 20.0, 100.0, 0
    for given in steps(3):
        student, teacher = 9 * given.student.numpy(), given.teacher.numpy()
        labels = given.labels.numpy()
        norms = np.sqrt((student**2).sum(1))
        mean = t_alpha * norms.mean() + (1 - t_alpha) * mean
        deviation = t_alpha * norms.std(ddof=1) + (1 - t_alpha) * deviation
        quality = []
        for e_s, e_t, y, norm in zip(student, teacher, labels, norms, strict=True):
            settled = np.clip(cosine(centers[y], e_t), 1e-6, 1)
            behind = max(settled - cosine(e_s, e_t), 0)
            raised += behind > 0
            z = h * (norm - mean) / (deviation + 0.001) + geometry * settled * behind
            quality.append(np.clip(z, -1, 1))
        centers = moved(centers, student, teacher, labels)
        logits = s * cosines(student, centers)
        for row, (y, z) in enumerate(zip(labels, quality, strict=True)):
            angle = np.arccos(np.clip(logits[row, y] / s, -0.999, 0.999)) - m * z
            logits[row, y] = s * (np.cos(np.clip(angle, 0.001, np.pi - 0.001)) - m - m * z)
        expected = -np.mean([log_probabilities(logits[i])[y] for i, y in enumerate(labels)])
        value = loss(side(torch.from_numpy(student)), side(given.teacher), LossBatch(given.labels))
        assert value.item() == pytest.approx(expected, rel=1e-9)
        np.testing.assert_allclose(loss.centers, centers, rtol=1e-9, atol=1e-12)
    assert raised > 2


def test_geometry_needs_the_margin_by_quality():
    with pytest.raises(ConfigError, match='set kind="ada"') as error:
        built(geometry=1.0)
    assert "\n" not in str(error.value)


def test_margin_by_quality_goes_on_from_its_state():
    batches = steps(9)

    def run(loss, some):
        return [loss(side(b.student), side(b.teacher), LossBatch(b.labels)).item() for b in some]

    straight, stopped, resumed = (built(kind="ada", geometry=1.0) for _ in range(3))
    expected = run(straight, batches)
    found = run(stopped, batches[:1])
    resumed.load_state_dict(stopped.state_dict())
    assert found + run(resumed, batches[1:]) == expected
