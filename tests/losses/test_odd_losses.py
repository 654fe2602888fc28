"""Losses of users' own that are none, or that would change what others learn from."""

import pytest
import torch
from helpers.distillers import LABELS, make

from arcface_cakd.config import ConfigError, LossEntry
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses import DistillationLoss, FeatureDims, LossBatch, WeightedLosses
from arcface_cakd.losses.base import LossError
from arcface_cakd.registry import LOSSES

DIMS = FeatureDims(8, 8, 4, 4)


def of(compute):
    """A loss class whose forward is ``compute(student, teacher)``."""

    class Mine(DistillationLoss):
        def forward(self, student, teacher, batch):
            return compute(student, teacher)

    return Mine


def mean_square(student, teacher):
    return (student.embedding - teacher.embedding).square().mean()


def run(monkeypatch, component, name="mine", training=True, gradient=True):
    monkeypatch.setitem(LOSSES._components, name, component)
    losses = WeightedLosses([LossEntry.from_entry({"name": name}, "x")], DIMS).train(training)
    student = FaceFeatures(torch.randn(3, 8, requires_grad=gradient) * 1, None, None)
    teacher = FaceFeatures(torch.randn(3, 8), None, None)
    return losses(student, teacher, LossBatch(None))[name]


@pytest.mark.parametrize(
    "name", ["margin", "anchoring", "preservation", "lab.norm", "values", "weights", "training", ""]
)
def test_names_that_hide_something_else_are_refused(monkeypatch, name):
    with pytest.raises(
        ConfigError, match=r"no loss can have the name .* under another one"
    ) as error:
        run(monkeypatch, of(mean_square), name)
    assert repr(name) in str(error.value) and "\n" not in str(error.value)


def test_the_students_own_margin_softmax_stays(monkeypatch):
    monkeypatch.setitem(LOSSES._components, "margin", of(mean_square))
    with pytest.raises(ConfigError, match="'margin'"):
        make(losses=[{"name": "margin"}], prompts=None)


def test_a_loss_may_be_listed_twice(monkeypatch):
    monkeypatch.setitem(LOSSES._components, "mine", of(mean_square))
    entries = [LossEntry.from_entry({"name": "mine"}, "x")] * 2
    assert list(WeightedLosses(entries, DIMS)) == ["mine", "mine_2"]


@pytest.mark.parametrize(
    ("compute", "found"),
    [
        (lambda s, t: (s.embedding - t.embedding).square().sum(1), r"shape \(3,\)"),
        (lambda s, t: mean_square(s, t).view(1), r"shape \(1,\)"),
        (lambda s, t: s.embedding.argmax(), "int64"),
        (lambda s, t: 0.5, "gave a float"),
        (lambda s, t: {"a": mean_square(s, t)}, "gave a dict"),
        (lambda s, t: (mean_square(s, t), None), "gave a tuple"),
        (lambda s, t: None, "gave a NoneType"),
    ],
)
def test_what_is_no_scalar_is_refused(monkeypatch, compute, found):
    with pytest.raises(LossError, match=f"loss 'mine' .*{found}") as error:
        run(monkeypatch, of(compute))
    assert "\n" not in str(error.value)


def test_what_nothing_learns_from_is_refused_in_training_alone(monkeypatch):
    detached = of(lambda s, t: mean_square(s, t).detach())
    with pytest.raises(LossError, match="loss 'mine' has no gradient"):
        run(monkeypatch, detached)
    assert run(monkeypatch, detached, training=False) > 0
    assert run(monkeypatch, detached, gradient=False) > 0  # a frozen student
    with torch.no_grad():
        assert run(monkeypatch, detached) > 0
    # A queue that is not full, a batch without pairs.
    assert run(monkeypatch, of(lambda s, t: torch.zeros(()))) == 0


def test_features_that_a_loss_changes_in_place_are_refused(monkeypatch, images):
    with pytest.raises(LossError, match="loss 'mine' changes features in place"):
        run(monkeypatch, of(lambda s, t: s.embedding.mul_(2).square().mean()))
    monkeypatch.setitem(
        LOSSES._components, "mine", of(lambda s, t: t.tokens.relu_().mean() + mean_square(s, t))
    )
    distiller = make(losses=[{"name": "mine"}], prompts=None)
    distiller(images)
    with pytest.raises(LossError, match="in place"):
        distiller.terms(LABELS)


@pytest.fixture
def images():
    return torch.rand(4, 3, 112, 112) * 2 - 1


def test_a_function_is_no_loss(monkeypatch):
    def mine(student, teacher, batch):
        return mean_square(student, teacher)

    with pytest.raises(
        ConfigError, match=r"loss 'mine' cannot be built .* derive a class"
    ) as error:
        run(monkeypatch, mine)
    assert "\n" not in str(error.value)
    assert run(monkeypatch, lambda dims: of(mean_square)(dims)) > 0  # a factory is one


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("margin_distillation", {"margin_max": 28.6}),
        ("arcdistill", {"margin": 28.6}),
        ("cosdistill", {"margin": 40.0}),
        ("adadistill", {"margin": 28.6}),
        ("triplet_distillation", {"margin_max": 28.6}),
        ("cakd_liu", {"dropout": 1.0}),
    ],
)
def test_margins_in_degrees_name_loss_and_setting(name, settings):
    (key,) = settings
    with pytest.raises(ConfigError, match=rf"cakd\.losses\[0\]\.{key} must be .*at most"):
        LossEntry.from_entry({"name": name, **settings}, "cakd.losses[0]")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("adadistill", {"kind": "cos", "margin": 2.5}, "adadistill: margin 2.5 must be at most 2 "),
        ("adadistill", {"kind": "ada", "margin": 1.5}, "adadistill: margin 1.5 must be at most 1 "),
        ("triplet_distillation", {"distance": "angle", "margin_max": 3.5}, "must be at most pi"),
        ("ofa_kd", {"stages": (1, 1)}, "ofa_kd: stages .1, 1. must name each stage once"),
    ],
)
def test_what_one_setting_makes_of_another(name, settings, message):
    dims = FeatureDims(8, 8, 4, 4, (2, 3), (2, 3), num_classes=5)
    with pytest.raises(ConfigError, match=message):
        LOSSES.get(name)(dims, **settings)
