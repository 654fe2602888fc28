import json
import math

import numpy as np
import pytest
import torch
from golden.make_adaface import GOLDEN, LENGTHS
from golden.make_class_losses import CLASSES, SCALE, WIDTH, steps
from helpers.class_losses import check_golden
from helpers.processes import run_ranks

from arcface_cakd import distributed
from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.partial_fc import AdaFace, PartialFC, PartialFCError


class Reference:
    """One entry at a time."""

    def __init__(self, s, m, h, t_alpha):
        self.s, self.m, self.h, self.t_alpha = s, m, h, t_alpha
        self.mean, self.deviation = 20.0, 100.0

    def __call__(self, embeddings, cosines, labels, training=True):
        norms = [min(max(math.sqrt(e @ e), 0.001), 100.0) for e in embeddings]
        if training:
            kept = 1 - self.t_alpha
            self.mean = self.t_alpha * np.mean(norms) + kept * self.mean
            self.deviation = self.t_alpha * np.std(norms, ddof=1) + kept * self.deviation
        logits = self.s * cosines
        for row, label in enumerate(labels):
            if label < 0:
                continue
            z = self.h * (norms[row] - self.mean) / (self.deviation + 0.001)
            z = min(max(z, -1), 1)
            angle = math.acos(min(max(cosines[row, label], -0.999), 0.999)) - self.m * z
            angle = min(max(angle, 0.001), math.pi - 0.001)
            logits[row, label] = self.s * (math.cos(angle) - (self.m + self.m * z))
        return logits


def norms_of(embeddings):
    return torch.from_numpy(embeddings).norm(dim=1, keepdim=True)


def numbers(seed, batch=9, classes=7):
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(batch, 5)) * rng.uniform(0.1, 60, (batch, 1))
    cosines = rng.uniform(-0.9, 0.9, (batch, classes))
    labels = rng.integers(-1, classes, batch)
    cosines[0, 1], labels[0] = 1.0, 1
    cosines[1, 2], labels[1] = -1.0, 2
    return embeddings, cosines, labels


@pytest.mark.parametrize(
    "settings", [{}, {"m": 0.5, "h": 2.0, "t_alpha": 1.0}, {"h": 0.0, "t_alpha": 0.3}]
)
def test_logits_equal_a_float64_reference_over_many_batches(settings):
    margin = AdaFace(30.0, **check_settings(AdaFace, settings, "config.adaface")).double()
    reference = Reference(30.0, margin.m, margin.h, margin.t_alpha)
    for seed in range(4):
        embeddings, cosines, labels = numbers(seed)
        margin.train(seed != 2)  # in evaluation the statistics stay
        margin.observe(norms_of(embeddings))
        found = margin(torch.from_numpy(cosines), torch.from_numpy(labels)[:, None])
        expected = reference(embeddings, cosines, labels, training=seed != 2)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
        assert margin.batch_mean.item() == pytest.approx(reference.mean)
        assert margin.batch_std.item() == pytest.approx(reference.deviation)


CASES = json.loads(GOLDEN.read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['settings']}-{c['seed']}")
def test_equals_published_code(case):
    batches = steps(case["seed"])
    fc = PartialFC(AdaFace(SCALE, **case["settings"]), WIDTH, CLASSES).double()
    fc.set_centers(batches[0].teacher_centers)
    for batch in batches[:-1]:
        fc(LENGTHS * batch.student, batch.labels)
    last = batches[-1]
    check_golden(case, lambda student: fc(student, last.labels), LENGTHS * last.student)
    found = [fc.margin_softmax.batch_mean.item(), fc.margin_softmax.batch_std.item()]
    assert found == pytest.approx(case["statistics"])


def test_gradient_is_the_derivative_and_none_where_kept_in_range():
    embeddings, cosines, labels = numbers(5)
    labels = torch.from_numpy(labels)[:, None]
    margin = AdaFace(30.0, h=2.0, t_alpha=1.0).double()
    margin.observe(norms_of(embeddings))
    inner = torch.from_numpy(cosines).requires_grad_()
    margin(inner, labels).sum().backward()
    assert inner.grad[0, 1] == 0 and inner.grad[1, 2] == 0
    changed = inner.detach()[2:].clone().requires_grad_()
    margin.eval().observe(norms_of(embeddings[2:]))
    assert torch.autograd.gradcheck(lambda x: margin(x, labels[2:]), changed)


def test_quality_trades_one_margin_for_the_other():
    """z = -1 is ArcFace's margin on the angle, z = 0 CosFace's, z = 1 eases the angle and doubles
    the other; and what is added to z counts."""
    margin = AdaFace(1.0, m=0.4).eval()
    cosines, labels = torch.tensor([[0.3]]), torch.tensor([[0]])
    angle = math.acos(0.3)
    values = {-1.0: math.cos(angle + 0.4), 0.0: 0.3 - 0.4, 1.0: math.cos(angle - 0.4) - 0.8}
    for z, expected in values.items():
        margin.observe(torch.tensor([[20.0]]), addition=z)
        assert margin(cosines, labels).item() == pytest.approx(expected, rel=1e-5)


def test_needs_the_embeddings_of_the_batch():
    margin, cosines, labels = AdaFace(), torch.zeros(3, 2), torch.zeros(3, 1, dtype=torch.int64)
    with pytest.raises(PartialFCError, match="observe") as error:
        margin(cosines, labels)
    assert "\n" not in str(error.value)
    margin.observe(torch.ones(2, 1))
    with pytest.raises(PartialFCError, match="observe"):
        margin(cosines, labels)


@pytest.mark.parametrize("wrong", [{"m": -1.0}, {"t_alpha": 0.0}, {"t_alpha": 2.0}, {"s": 3.0}])
def test_settings_out_of_range(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        check_settings(AdaFace, wrong, "config.adaface")


def trained(sample_rate):
    """Two steps on this rank's share of the batches."""
    fc = PartialFC(AdaFace(t_alpha=0.5), 6, 11, sample_rate, seed=3).double()
    ranks, rank = distributed.world_size(), distributed.rank()
    found = {}
    for step in range(2):
        rng = np.random.default_rng(step)
        embeddings = rng.normal(size=(8, 6)) * rng.uniform(1, 60, (8, 1))
        labels = torch.from_numpy(rng.integers(0, 11, 8))
        share = slice(rank * 8 // ranks, (rank + 1) * 8 // ranks)
        own = torch.from_numpy(embeddings)[share].requires_grad_()
        value = fc(own, labels[share])
        value.backward()
        found = {"value": value.item(), "gradient": own.grad / ranks}
    statistics = fc.margin_softmax.batch_mean.item(), fc.margin_softmax.batch_std.item()
    return found | {"statistics": statistics}


def test_two_ranks_know_the_statistics_of_both(tmp_path):
    one, ranks = trained(1.0), run_ranks(trained, 2, tmp_path, 1.0)
    for found in ranks:
        assert found["value"] == pytest.approx(one["value"], rel=1e-12)
        assert found["statistics"] == pytest.approx(one["statistics"], rel=1e-12)
    gradient = torch.cat([found["gradient"] for found in ranks])
    torch.testing.assert_close(gradient, one["gradient"], rtol=1e-9, atol=1e-12)


def test_samples_classes_and_keeps_its_statistics_in_the_state_dict():
    assert math.isfinite(trained(0.5)["value"])
    fc = PartialFC(AdaFace(t_alpha=0.5), 6, 11)
    fc(30 * torch.randn(8, 6), torch.arange(8))
    fresh = PartialFC(AdaFace(), 6, 11)
    fresh.load_state_dict(fc.state_dict())
    assert torch.equal(fresh.margin_softmax.batch_mean, fc.margin_softmax.batch_mean)
    assert fresh.margin_softmax.batch_std.item() != 100.0
