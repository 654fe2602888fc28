import itertools
import math

import numpy as np
import pytest
import torch
from golden.make_relational_losses import record
from helpers.relational_losses import cases, inputs, same

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses import FeatureDims, LossBatch, LossError
from arcface_cakd.losses.ekd_loss import (
    EKDLoss,
    false_positive_thresholds,
    pairs_of,
    rank_loss,
)
from arcface_cakd.registry import LOSSES

DIMS = FeatureDims(16, 20, 3, 3)


def side(embedding):
    return FaceFeatures(embedding, torch.zeros(len(embedding), 1, 3), (1, 1))


def run(loss, student, teacher, labels):
    return loss(side(student), side(teacher), LossBatch(labels=labels))


class Reference:
    """EKD by loops over pairs, in float64; it keeps the thresholds."""

    def __init__(self, rates, hard, temperature, momentum, weights):
        self.rates, self.hard, self.temperature = rates, hard, temperature
        self.momentum, self.weights = momentum, weights
        self.thresholds = None

    def __call__(self, student, teacher, labels):
        def cosine(x, i, j):
            return x[i] @ x[j] / math.sqrt((x[i] @ x[i]) * (x[j] @ x[j]))

        pairs = list(itertools.combinations(range(len(labels)), 2))
        both = {pair: [cosine(x, *pair) for x in (student, teacher)] for pair in pairs}
        positive = [c for (i, j), c in both.items() if labels[i] == labels[j]]
        negative = [c for (i, j), c in both.items() if labels[i] != labels[j]]
        now = []
        for which in (0, 1):
            ordered = sorted((c[which] for c in negative), reverse=True)
            now.append([ordered[len(ordered) // round(1 / rate)] for rate in self.rates])
        now = np.array(now)
        if self.thresholds is None:
            self.thresholds = now
        else:
            self.thresholds = self.momentum * now + (1 - self.momentum) * self.thresholds
        hard = sorted(negative, key=lambda c: -c[0])[: self.hard]
        return sum(
            weight * np.mean([(self.rank(c, 0) - self.rank(c, 1)) ** 2 for c in part])
            for weight, part in zip(self.weights, (positive, hard), strict=True)
        )

    def rank(self, cosines, which):
        steps = (cosines[which] - self.thresholds[which]) / self.temperature
        return sum(1 / (1 + math.exp(-min(max(s, -500), 500))) for s in steps)


@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize("hard", [7, 2000])
def test_equals_a_float64_reference(batches, hard):
    settings = {"hard_negatives": hard, "temperature": 0.1, "momentum": 0.3}
    settings |= {"false_positive_rates": (0.5, 0.1, 1e-3), "positive_weight": 2.0}
    loss = EKDLoss(DIMS, **settings, negative_weight=3.0).double()
    reference = Reference((0.5, 0.1, 1e-3), hard, 0.1, 0.3, (2.0, 3.0))
    for seed in range(batches):
        batch = inputs(seed + 10, 20)
        expected = reference(*(x.numpy() for x in batch))
        assert run(loss, *batch).item() == pytest.approx(expected, rel=1e-9)
        np.testing.assert_allclose(loss.thresholds, reference.thresholds, rtol=1e-12)
    assert loss.batches == batches


@pytest.mark.parametrize("case", cases("ekd"), ids=["TFace"])
def test_equals_published_code_from_thresholds_of_zero(case):
    loss = LOSSES.get("ekd")(DIMS).double()
    loss.batches += 1  # its thresholds begin at 0, as if a batch had set them
    for seed, expected in zip(case["seeds"], case["batches"], strict=True):
        student, teacher, labels = inputs(seed, 20)
        found = record(lambda s=student, t=teacher, y=labels: run(loss, s, t, y), student)
        same(found, expected)
        np.testing.assert_allclose(loss.thresholds, expected["thresholds"], rtol=1e-9)


def test_zero_where_both_sides_are_equal():
    student, _, labels = inputs(0)
    assert run(EKDLoss(FeatureDims(16, 16, 3, 3)), 3 * student, student, labels).item() < 1e-9


def test_thresholds_are_the_cosines_that_false_positives_reach():
    negatives = torch.arange(1000) / 1000
    found = false_positive_thresholds(negatives[torch.randperm(1000)], (0.1, 0.003, 1e-6))
    assert found.tolist() == pytest.approx([0.899, 0.996, 0.999])
    accepted = [(negatives > t).float().mean().item() for t in found]
    assert accepted == pytest.approx([0.1, 0.003, 0.0])


def test_pairs_are_each_two_images_once():
    positive, negative = pairs_of(torch.tensor([4, 9, 4]))
    assert positive.T.tolist() == [[0, 2]]
    assert negative.T.tolist() == [[0, 1], [1, 2]]


def test_gradients_equal_finite_differences():
    cosines = torch.rand(2, 5, dtype=torch.float64, requires_grad=True)
    thresholds = torch.rand(2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda c: rank_loss(c[0], c[1], thresholds, 0.3), cosines)
    student, teacher, labels = inputs(0, 20)
    loss = EKDLoss(DIMS, temperature=0.5).double()
    run(loss, student, teacher, labels)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: run(loss.eval(), s, teacher, labels), student)


def test_prompts_may_learn_from_it():
    student, teacher, labels = inputs(0, 20)
    teacher.requires_grad_()
    run(EKDLoss(DIMS, temperature=0.1), student, teacher, labels).backward()
    assert teacher.grad.abs().sum() > 0


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [5, 5, 5, 5]])
def test_batches_of_one_kind_of_pair_are_finite(labels):
    loss = EKDLoss(DIMS)
    student = torch.randn(4, 16, requires_grad=True)
    value = run(loss, student, torch.randn(4, 20), torch.tensor(labels))
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()
    assert loss.batches == (1 if labels[0] == 0 else 0)


def test_evaluation_and_constants_leave_the_state_alone():
    loss = EKDLoss(DIMS).double()
    run(loss.eval(), *inputs(0, 20))
    assert loss.batches == 0 and (loss.thresholds == 0).all()
    trained = run(loss.train(), *inputs(0, 20))
    kept = loss.thresholds.clone()
    assert run(loss.eval(), *inputs(0, 20)).item() == pytest.approx(trained.item())
    run(loss, *inputs(1, 20))
    assert torch.equal(loss.thresholds, kept)
    fresh = EKDLoss(DIMS).double()
    fresh.load_state_dict(loss.state_dict())
    expected = run(loss.train(), *inputs(2, 20)).item()
    assert run(fresh, *inputs(2, 20)).item() == expected


def test_errors():
    with pytest.raises(LossError, match=r"ekd needs labels"):
        run(EKDLoss(DIMS), *inputs(0, 20)[:2], None)
    with pytest.raises(ConfigError, match=r"false_positive_rates must be above 0"):
        check_settings(EKDLoss, {"false_positive_rates": [0.1, 0.0]}, "cakd.losses[0]")


@pytest.mark.parametrize(
    "settings, word",
    [
        ({"false_positive_rates": ()}, "false_positive_rates"),
        ({"positive_weight": 0.0, "negative_weight": 0.0}, "both 0"),
    ],
)
def test_settings_that_would_train_nothing_are_refused(settings, word):
    with pytest.raises(ConfigError, match=word):
        EKDLoss(FeatureDims(8, 8, 3, 3), **settings)
