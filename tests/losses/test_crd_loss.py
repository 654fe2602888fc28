import math

import numpy as np
import pytest
import torch
from golden.make_relational_losses import DIM, memory, record
from helpers.relational_losses import cases, same

from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses import FeatureDims, LossBatch
from arcface_cakd.losses.crd_loss import CRDLoss, contrastive_loss
from arcface_cakd.registry import LOSSES

DIMS = FeatureDims(6, 9, 3, 3)


def side(embedding):
    return FaceFeatures(embedding, torch.zeros(len(embedding), 1, 3), (1, 1))


def run(loss, student, teacher, labels=None):
    return loss(side(student), side(teacher), LossBatch(labels=labels))


class Reference:
    """CRD by loops, in float64, with a list for a queue."""

    def __init__(self, loss, size, temperature):
        self.parameters = {k: v.detach().numpy() for k, v in loss.named_parameters()}
        self.size, self.temperature = size, temperature
        self.queue, self.normalizer = [], None

    def unit(self, name, x):
        y = self.parameters[f"{name}.weight"] @ x + self.parameters[f"{name}.bias"]
        return y / math.sqrt(y @ y)

    def __call__(self, student, teacher, labels=None):
        batch = [
            (self.unit("student_projection", s), self.unit("teacher_projection", t), label)
            for s, t, label in zip(
                student, teacher, [None] * len(student) if labels is None else labels, strict=True
            )
        ]
        compared = []  # for each side and anchor: e of the positive, e of each negative
        for anchor_side in (0, 1):
            for i, anchor in enumerate(batch):

                def e(other, anchor=anchor, s=anchor_side):
                    return math.exp(anchor[s] @ other[1 - s] / self.temperature)

                others = [b for j, b in enumerate(batch) if j != i] + self.queue
                known = anchor[2] is not None
                negatives = [e(o) for o in others if not (known and o[2] == anchor[2])]
                compared.append((e(anchor), negatives))
        sides = compared[: len(batch)], compared[len(batch) :]
        if self.normalizer is None:
            self.normalizer = [np.mean([x for p, n in one for x in (p, *n)]) for one in sides]
        total = 0.0
        for c, one in zip(self.normalizer, sides, strict=True):
            for positive, negatives in one:
                noise = max(len(negatives), 1) * c
                value = -math.log(positive / (positive + noise))
                value -= sum(math.log(1 - n / (n + noise)) for n in negatives)
                total += value / len(batch)
        self.queue = (self.queue + batch)[-self.size :] if self.size else []
        return total


def batches(count, size, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.normal(size=(size, 6)), rng.normal(size=(size, 9)), rng.integers(0, 4, size)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("size", [0, 3, 7, 40])
def test_equals_a_float64_reference_over_many_batches(size, labelled):
    loss = CRDLoss(DIMS, dim=4, queue_size=size, temperature=0.3).double()
    reference = Reference(loss, size, 0.3)
    for student, teacher, labels in batches(6, 5):
        labels = labels if labelled else None
        expected = reference(student, teacher, labels)
        tensors = [None if x is None else torch.from_numpy(x) for x in (student, teacher, labels)]
        assert run(loss, *tensors).item() == pytest.approx(expected, rel=1e-9)
    kept = sorted(round(x, 9) for entry in reference.queue for x in np.concatenate(entry[:2]))
    filled = loss.queue[: len(reference.queue)].flatten().tolist()
    assert sorted(filled) == pytest.approx(kept, abs=1e-8)
    np.testing.assert_allclose(loss.normalizer, reference.normalizer, rtol=1e-9)


@pytest.mark.parametrize("case", cases("crd"), ids=["RepDistiller"])
def test_equals_published_code_with_a_memory_of_batch_and_queue(case):
    student, teacher, student_queue, teacher_queue = memory(case["seed"])
    size = len(student_queue)
    loss = CRDLoss(FeatureDims(DIM, DIM, 3, 3), dim=DIM, queue_size=size).double()
    for projection in (loss.student_projection, loss.teacher_projection):
        projection.weight.data = torch.eye(DIM, dtype=torch.float64)
        projection.bias.data.zero_()
    loss.queue.copy_(torch.cat([student_queue, teacher_queue], dim=1))
    loss.queued += size
    found = record(lambda: run(loss, student, teacher), student)
    same(found, case, tolerance=1e-4)  # it adds 1e-7 to probabilities, and its Z is float32


def test_gradients_equal_finite_differences():
    negative = torch.tensor([[0, 1, 1], [1, 0, 0]]).bool()
    scores = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    c = torch.tensor(2.0, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda s: contrastive_loss(s, torch.tensor([0, 1]), negative, c), scores
    )


def test_each_side_learns_from_its_own_anchors():
    loss = LOSSES.get("crd")(DIMS, dim=4, queue_size=8)
    student, teacher = torch.randn(5, 6, requires_grad=True), torch.randn(5, 9, requires_grad=True)
    run(loss, student, teacher).backward()
    for x in (student, teacher, *loss.parameters()):
        assert x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_images_of_the_same_identity_are_no_negatives():
    student, teacher = torch.randn(4, 6), torch.randn(4, 9)
    loss = CRDLoss(DIMS, dim=4, queue_size=0)
    value = run(loss, student, teacher, torch.tensor([3, 3, 3, 3]))
    normalizer = loss.normalizer.log()
    u, v = (
        torch.nn.functional.normalize(project(x), dim=1)
        for project, x in ((loss.student_projection, student), (loss.teacher_projection, teacher))
    )
    cosines = (u * v).sum(1) / 0.07
    expected = -sum(torch.sigmoid(cosines - n).log().mean() for n in normalizer)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_evaluation_changes_nothing_and_the_state_dict_holds_all():
    loss = CRDLoss(DIMS, dim=4, queue_size=8)
    student, teacher = torch.randn(5, 6), torch.randn(5, 9)
    before = {k: v.clone() for k, v in loss.state_dict().items()}
    run(loss.eval(), student, teacher)
    assert all(torch.equal(v, before[k]) for k, v in loss.state_dict().items())
    run(loss.train(), student, teacher)
    assert not torch.equal(loss.queue, before["queue"])
    fresh = CRDLoss(DIMS, dim=4, queue_size=8)
    fresh.load_state_dict(loss.state_dict())
    assert run(fresh, teacher[:, :6], teacher).item() == run(loss, teacher[:, :6], teacher).item()


def test_one_image_without_a_queue_is_finite():
    value = run(CRDLoss(DIMS, dim=4, queue_size=0), torch.randn(1, 6), torch.randn(1, 9))
    assert value.isfinite()
