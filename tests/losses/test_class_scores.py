"""The shared part, and every loss that uses it on one, two and three ranks."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from helpers.class_losses import HostHead, cosines, frozen_head, own_head, side
from helpers.processes import run_ranks

from arcface_cakd import distributed
from arcface_cakd.config import ConfigError
from arcface_cakd.losses import FeatureDims, LossBatch, LossError
from arcface_cakd.losses.adadistill_loss import AdaDistillLoss
from arcface_cakd.losses.arcdistill_loss import ArcDistillLoss
from arcface_cakd.losses.class_scores import (
    ClassShard,
    at_labels,
    is_label,
    join,
    log_sum_exp,
    softmax_cross_entropy,
    z_scores,
)
from arcface_cakd.losses.cosdistill_loss import CosDistillLoss
from arcface_cakd.losses.dkd_loss import DKDLoss, dkd_loss
from arcface_cakd.losses.gkd_loss import GKDLoss, gkd_loss
from arcface_cakd.losses.kd_loss import KDLoss, kd_loss
from arcface_cakd.losses.margin_distillation_loss import MarginDistillationLoss
from arcface_cakd.losses.ofa_kd_loss import OFAKDLoss

PART, E, E_T, CHANNELS = 4, 5, 6, (3, 2)
STEPS = 2  # so that what moves has moved


@dataclass(frozen=True)
class Case:
    """Steps of one loss on the joined batch."""

    loss: type
    settings: dict = field(default_factory=dict)
    classes: int = 7
    sampled: tuple | None = None
    head: type = HostHead

    def numbers(self, ranks):
        """Embeddings of both sides, stages, centres of both, labels, of all ranks together."""
        rng = np.random.default_rng(self.classes)
        count = PART * ranks
        known = self.sampled or range(self.classes)
        labels = torch.from_numpy(rng.choice(known, 3 * PART))[:count]
        shapes = [(3 * PART, E), (3 * PART, E_T), *((3 * PART, c, 4, 4) for c in CHANNELS)]
        student, teacher, *stages = (torch.from_numpy(rng.normal(size=s))[:count] for s in shapes)
        centers = torch.from_numpy(rng.normal(size=(self.classes, E)))
        teacher_centers = torch.from_numpy(rng.normal(size=(self.classes, E_T)))
        return student, teacher, stages, centers, teacher_centers, labels

    def built(self):
        torch.manual_seed(1)
        dims = FeatureDims(E, E_T, 3, 3, student_stages=CHANNELS, num_classes=self.classes)
        return self.loss(dims, **self.settings).double()


def _cases():
    wide = {"projection": True}
    kinds = (
        (KDLoss, {}),
        (DKDLoss, {}),
        (GKDLoss, {"threshold": 0.8, "secondary_weight": 0.5}),
        (ArcDistillLoss, wide),
        (CosDistillLoss, wide),
        (MarginDistillationLoss, wide),
        (AdaDistillLoss, wide | {"kind": "arc"}),
        (AdaDistillLoss, wide | {"kind": "cos"}),
        (AdaDistillLoss, wide | {"kind": "ada", "geometry": 2.0}),
        (OFAKDLoss, {"eps": 1.5, "temperature": 4.0}),
    )
    for kind, settings in kinds:
        yield Case(kind, settings)
        yield Case(kind, settings, sampled=(0, 1, 3, 6))
        yield Case(kind, settings, classes=2)  # on three ranks, the last has none
    for sampled in (None, (0, 1, 3, 6)):  # of two classes the z-scores are always the same
        yield Case(DKDLoss, {"standardise": True, "temperature": 0.5}, sampled=sampled)
    yield Case(KDLoss, sampled=(1, 2), head=own_head)  # none on the last of three
    yield Case(DKDLoss, sampled=(0, 2, 5), head=own_head)


CASES = list(_cases())
PLAIN = [  # one for each loss
    Case(kind, {} if kind in (KDLoss, DKDLoss, GKDLoss, OFAKDLoss) else {"projection": True})
    for kind in dict.fromkeys(case.loss for case in CASES)
]
each_loss = pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.loss.__name__)


def run_steps(case, ranks):
    """What this process has of the steps on its part of ``ranks`` ranks' batches."""
    student, teacher, stages, centers, teacher_centers, labels = case.numbers(ranks)
    parts = PART * ranks // distributed.world_size()
    mine = slice(parts * distributed.rank(), parts * (distributed.rank() + 1))
    leaves = [t[mine].clone().requires_grad_() for t in (student, teacher, *stages)]
    head, loss = case.head(centers, case.sampled), case.built()
    batch = LossBatch(labels[mine], partial_fc=head, teacher_fc=frozen_head(teacher_centers))
    for _ in range(STEPS):
        loss.zero_grad()
        for leaf in (*leaves, head.weight):
            leaf.grad = None
        value = loss(side(leaves[0], leaves[2:]), side(leaves[1]), batch)
        value.backward()
    assert batch.teacher_fc.weight.grad is None
    moving = getattr(loss, "centers", None)
    return {
        "value": value.item(),
        "student": leaves[0].grad,
        "teacher": leaves[1].grad,
        "stages": [leaf.grad for leaf in leaves[2:]],
        "centers": head.weight.grad,
        "parameters": [p.grad for p in loss.parameters()],
        "moving": None if moving is None else moving[: head.num_local],
    }


def on_each_rank():
    return [run_steps(case, distributed.world_size()) for case in CASES]


@pytest.fixture(scope="module", params=[2, 3])
def world(request, tmp_path_factory):
    return run_ranks(on_each_rank, request.param, tmp_path_factory.mktemp("world"))


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_ranks_together_do_what_one_process_does(world, number):
    case, ranks = CASES[number], len(world)
    expected, results = run_steps(case, ranks), [result[number] for result in world]
    for result in results:
        assert result["value"] == pytest.approx(expected["value"], rel=1e-11)
    # DistributedDataParallel divides what the backbones and heads get by the number of ranks.
    for key in ("student", "teacher"):
        if expected[key] is None:
            assert all(result[key] is None for result in results)
        else:
            assert expected[key].abs().max() > 1e-6
            close(torch.cat([result[key] for result in results]) / ranks, expected[key])
    for level, stage in enumerate(expected["stages"]):
        if stage is not None:
            close(torch.cat([result["stages"][level] for result in results]) / ranks, stage)
    for index, parameter in enumerate(expected["parameters"]):
        close(sum(result["parameters"][index] for result in results) / ranks, parameter)
    # Centres are on one rank each and nobody averages them.
    for key in ("centers", "moving"):
        if expected[key] is not None:
            close(torch.cat([result[key] for result in results]), expected[key])


def test_which_losses_teach_the_teacher_and_the_centers():
    for case in CASES:
        result = run_steps(case, 1)
        of_probabilities = case.loss in (KDLoss, DKDLoss, GKDLoss, OFAKDLoss)
        assert (result["teacher"] is not None) == of_probabilities
        assert (result["centers"] is not None) == of_probabilities
        assert (result["moving"] is not None) == (case.loss is AdaDistillLoss)
        if of_probabilities and case.sampled:
            left_out = sorted(set(range(case.classes)) - set(case.sampled))
            assert result["centers"][left_out].abs().max() == 0


@pytest.mark.parametrize("case", [c for c in CASES if c.sampled], ids=lambda c: c.loss.__name__)
def test_sampled_classes_are_all_there_is(case):
    """A step on sampled classes equals one with centres of these alone, renumbered."""
    student, teacher, stages, centers, teacher_centers, labels = case.numbers(1)
    kept = torch.tensor(case.sampled)
    renumbered = torch.searchsorted(kept, labels)
    small = frozen_head(teacher_centers[kept])

    def value(head, teacher_fc, labels):
        loss = case.built()
        if case.loss is AdaDistillLoss:
            # Its centres are its own and start at random: give it the same ones.
            loss.centers.copy_(teacher_centers)
            loss.updates += 1
            if len(head.weight) == len(kept):
                loss.centers = loss.centers[kept]
                loss.num_local = len(kept)
        batch = LossBatch(labels, partial_fc=head, teacher_fc=teacher_fc)
        return loss(side(student, stages), side(teacher), batch).item()

    whole = value(case.head(centers, case.sampled), frozen_head(teacher_centers), labels)
    alone = value(case.head(centers[kept]), small, renumbered)
    assert whole == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize(  # all but those that look at no label
    "case",
    [case for case in PLAIN if case.loss not in (KDLoss, GKDLoss)],
    ids=lambda case: case.loss.__name__,
)
@pytest.mark.parametrize("label", [-1, 100])
def test_a_label_that_is_no_class_has_no_finite_loss(case, label):
    """As Partial FC has it: a number that looks like a loss would be trained on."""
    student, teacher, stages, centers, teacher_centers, labels = case.numbers(1)
    labels = labels.clone()
    labels[1] = label
    batch = LossBatch(
        labels, partial_fc=case.head(centers), teacher_fc=frozen_head(teacher_centers)
    )
    value = case.built()(side(student, stages), side(teacher), batch)
    assert not value.isfinite()


@pytest.mark.parametrize("scale", [1.0, 64.0, 1e4])
def test_softmax_of_large_scores(scale):
    scores = scale * torch.linspace(-1, 1, 12, dtype=torch.float64).view(2, 6)
    columns = torch.tensor([[5], [0]])
    scores.requires_grad_()
    torch.testing.assert_close(log_sum_exp(scores), scores.logsumexp(1, keepdim=True))
    assert torch.equal(at_labels(scores, columns), scores.gather(1, columns))
    assert is_label(scores, columns).nonzero().tolist() == [[0, 5], [1, 0]]
    got = softmax_cross_entropy(scores, columns)
    expected = torch.nn.functional.cross_entropy(scores, columns[:, 0])
    torch.testing.assert_close(got, expected)
    of_got, of_expected = (torch.autograd.grad(loss, scores)[0] for loss in (got, expected))
    torch.testing.assert_close(of_got, of_expected)


def test_columns():
    labels = torch.tensor([9, 10, 12, 15, 16])
    whole = ClassShard(10, 6)
    assert whole.columns(labels).flatten().tolist() == [-1, 0, 2, 5, -1]
    some = ClassShard(10, 6, torch.tensor([0, 1, 5]))
    assert some.columns(labels).flatten().tolist() == [-1, 0, -1, 2, -1]
    none = ClassShard(10, 6, torch.tensor([], dtype=torch.int64))
    assert none.columns(labels).flatten().tolist() == [-1] * 5


def test_cosines_are_float32_under_autocast():
    embeddings, centers = torch.randn(3, 8), torch.randn(4, 8)
    shard = ClassShard(0, 4)
    expected = torch.nn.functional.cosine_similarity(embeddings[:, None], centers[None], dim=2)
    with torch.autocast("cpu", torch.bfloat16):
        got = shard.cosines(join(embeddings), centers)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected)
    assert shard.cosines(embeddings.double(), centers).dtype == torch.float64
    assert join(embeddings.bfloat16()).dtype == torch.float32


@each_loss
@pytest.mark.parametrize("half", [torch.float32, torch.bfloat16])
def test_values_are_float32(case, half):
    student, teacher, stages, centers, teacher_centers, labels = case.numbers(1)
    student, teacher = student.to(half).requires_grad_(), teacher.to(half)
    teacher_fc = frozen_head(teacher_centers.float())
    with torch.autocast("cpu", torch.bfloat16):
        value = case.built().float()(
            side(student, [stage.float() for stage in stages]),
            side(teacher),
            LossBatch(labels, partial_fc=HostHead(centers.float()), teacher_fc=teacher_fc),
        )
    value.backward()
    assert value.dtype == torch.float32
    assert student.grad.isfinite().all()


@each_loss
def test_what_is_missing_is_said_in_one_line(case):
    student, teacher, stages, centers, teacher_centers, labels = case.numbers(1)
    head, teacher_fc, loss = HostHead(centers), frozen_head(teacher_centers), case.built()

    def said(**changes):
        given = {"labels": labels, "partial_fc": head, "teacher_fc": teacher_fc} | changes
        with pytest.raises(LossError) as error:
            loss(side(student, stages), side(teacher), LossBatch(**given))
        assert "\n" not in str(error.value)
        return str(error.value)

    if "centers" in loss.needs:
        assert "set cakd.teacher.centers" in said(teacher_fc=None)
        assert "7 class centres" in said(teacher_fc=frozen_head(teacher_centers[:5]))
    if "labels" in loss.needs:
        assert "needs labels" in said(labels=None)
    if "logits" in loss.needs:
        assert "needs the student's class centres" in said(partial_fc=None)


@pytest.mark.parametrize("case", [c for c in PLAIN if c.settings], ids=lambda c: c.loss.__name__)
def test_widths_that_differ_need_the_projection(case):
    dims = FeatureDims(E, E_T, 3, 3, num_classes=7)
    with pytest.raises(ConfigError, match=rf"{E}.*{E_T}.*projection=True"):
        case.loss(dims)
    assert not list(case.loss(FeatureDims(E, E, 3, 3, num_classes=7)).parameters())


def standardised(row):
    row = np.asarray(row, dtype=np.float64)
    return (row - row.mean()) / (np.std(row, ddof=1) + 1e-7)


@pytest.mark.parametrize(("rows", "classes", "scale"), [(1, 2, 1.0), (3, 9, 64.0), (5, 200, 1e-3)])
def test_z_scores_equal_a_float64_reference(rows, classes, scale):
    logits = scale * torch.randn(rows, classes, dtype=torch.float64)
    expected = np.array([standardised(row) for row in logits])
    np.testing.assert_allclose(z_scores(logits), expected, rtol=1e-9)
    np.testing.assert_allclose(z_scores(logits.float()), expected, rtol=1e-4, atol=1e-5)


def test_z_scores_gradients():
    logits = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(z_scores, logits)
    equal = torch.ones(2, 4, requires_grad=True)
    z_scores(equal)[0, 1].backward()
    assert equal.grad.isfinite().all()


@pytest.mark.parametrize("kind", [KDLoss, DKDLoss, GKDLoss])
def test_standardise_takes_z_scores_in_place_of_logits(kind):
    """So neither the scale nor how far a side's logits spread is of account."""
    student, teacher, _, centers, teacher_centers, labels = Case(kind).numbers(1)
    fc = frozen_head(teacher_centers)
    batch = LossBatch(labels, partial_fc=HostHead(centers), teacher_fc=fc)

    def value(**settings):
        loss = kind(FeatureDims(E, E_T, 3, 3), temperature=0.5, **settings)
        return loss(side(student), side(teacher), batch).item()

    function = {KDLoss: kd_loss, DKDLoss: dkd_loss, GKDLoss: gkd_loss}[kind]
    sides = (student, centers), (teacher, teacher_centers)
    scores = [np.array([standardised(row) for row in cosines(*pair)]) for pair in sides]
    columns = [labels[:, None]] if kind is DKDLoss else []
    expected = function(*map(torch.from_numpy, scores), *columns, temperature=0.5).item()
    assert value(standardise=True) == pytest.approx(expected, rel=1e-6)
    assert value(standardise=True, scale=3.0) == pytest.approx(expected, rel=1e-6)
    assert value() != pytest.approx(expected, rel=0.1)
