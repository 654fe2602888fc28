"""What every registered loss promises, whoever wrote it."""

import re
import sys
import traceback

import numpy as np
import pytest
import torch
from helpers.processes import run_ranks

from arcface_cakd import distributed
from arcface_cakd.alignment import URFM
from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.config.settings import settings_of
from arcface_cakd.features import FaceFeatures
from arcface_cakd.losses import DistillationLoss, FeatureDims, LossBatch
from arcface_cakd.partial_fc import ArcFace, PartialFC
from arcface_cakd.registry import LOSSES

NAMES = LOSSES.names()

# Settings that a loss needs with the dimensions below.
SETTINGS = {"fsp": {"projection": True}}

# Settings that take the randomness out of a loss, for the comparison of two ranks with one.
WITHOUT_CHANCE = {"mgd": {"mask_ratio": 0.0}, "cakd_liu": {"replace": 0.0}}

# Losses that draw what they start from at their first forward pass, be it in evaluation.
STARTS_LATE = {"adadistill"}

BATCH, CLASSES = 8, 11  # an odd number, so that shards differ in size
LABELS = torch.tensor([0, 1, 0, 2, 1, 1, 4, 2])
STAGE_GRIDS = (28, 14, 7, 7)
STUDENT_STAGES, TEACHER_STAGES = (4, 6, 8, 12), (5, 10, 15, 20)
GRID = (7, 7)


def dims_of(teacher_stages=4):
    return FeatureDims(
        student_embedding=16,
        teacher_embedding=16,
        student_tokens=12,
        teacher_tokens=20,
        student_stages=STUDENT_STAGES,
        teacher_stages=TEACHER_STAGES[-teacher_stages:],
        num_classes=CLASSES,
        student_grid=GRID,
        teacher_grid=GRID,
    )


def make(name, dims=None, settings=None):
    torch.manual_seed(0)
    component = LOSSES.get(name)
    given = SETTINGS.get(name, {}) | (settings or {})
    settings = check_settings(component, given, f"loss {name!r}")
    return component(dims_of() if dims is None else dims, **settings)


def side(channels, stages, seed, rows=slice(None), dtype=torch.float32, gradient=True):
    """Random features of one side: the given rows of a batch that only the seed decides."""
    rng = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        whole = torch.randn(BATCH, *shape, generator=rng)
        return whole[rows].to(dtype).clone().requires_grad_(gradient)

    grids = STAGE_GRIDS[-len(stages) :]
    return FaceFeatures(
        embedding=drawn(16),
        tokens=drawn(49, channels),
        grid=GRID,
        stages=tuple(drawn(c, g, g) for c, g in zip(stages, grids, strict=True)),
    )


def leaves(features):
    return [features.embedding, features.tokens, *features.stages]


class Step:
    """Everything that a loss is given in one step, of the given rows of a batch."""

    def __init__(self, seed=1, rows=slice(None), dtype=torch.float32, teacher_stages=4):
        stages = TEACHER_STAGES[-teacher_stages:]
        self.student = side(12, STUDENT_STAGES, seed, rows, dtype)
        self.teacher = side(20, stages, 100 + seed, rows, dtype)
        labels = LABELS[rows]
        head = PartialFC(ArcFace(), 16, CLASSES)
        head(self.student.embedding.detach().float(), labels)
        centers = torch.randn(CLASSES, 16, generator=torch.Generator().manual_seed(2))
        torch.manual_seed(3)
        # In evaluation mode, where an image's local features do not depend on its batch.
        urfm = URFM(12, GRID, 20, GRID, num_centers=9, num_heads=2).eval()
        self.batch = LossBatch(
            labels=labels,
            partial_fc=head,
            alignment=urfm(self.student, self.teacher),
            unprompted=self.teacher,
            teacher_fc=PartialFC.from_centers(ArcFace(), centers),
        )

    def value(self, loss):
        torch.manual_seed(4)
        return loss(self.student, self.teacher, self.batch)


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same_state(module, state):
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]), name


def moved(tensor):
    return tensor.grad is not None and bool(tensor.grad.abs().sum() > 0)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_value_and_gradient_are_finite_and_reach_the_student(name):
    loss, step = make(name), Step()
    before = [x.detach().clone() for x in leaves(step.student) + leaves(step.teacher)]
    value = step.value(loss)
    assert value.shape == () and value.dtype == torch.float32 and value.isfinite()
    value.backward()
    student = step.student
    for x in [*leaves(student), *leaves(step.teacher), *loss.parameters()]:
        assert x.grad is None or x.grad.isfinite().all()
    if loss.needs & {"stages", "student_stages"}:
        assert any(moved(stage) for stage in student.stages)
    elif "tokens" in loss.needs:
        assert moved(student.tokens)
    else:
        assert moved(student.embedding)
    after = leaves(step.student) + leaves(step.teacher)
    for x, was in zip(after, before, strict=True):
        assert torch.equal(x, was)
        assert x._version == 0


def test_every_parameter_learns(name):
    loss, step = make(name), Step()
    step.value(loss).backward()
    idle = [k for k, p in loss.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle  # DistributedDataParallel waits for the gradient of each


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_is_float32_for_half_inputs(name, dtype):
    loss, step = make(name), Step(dtype=dtype)
    learns = any(True for _ in loss.parameters())  # its layers are float32; autocast fits them
    with torch.autocast("cpu", torch.bfloat16, enabled=learns):
        value = step.value(loss)
    assert value.dtype == torch.float32 and value.isfinite()


def test_is_float32_and_near_the_same_under_autocast(name):
    expected = Step().value(make(name)).item()
    loss, step = make(name), Step()
    with torch.autocast("cpu", torch.bfloat16):
        value = step.value(loss)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected, rel=0.05, abs=1e-3)
    value.backward()
    for x in [*leaves(step.student), *loss.parameters()]:
        assert x.grad is None or x.grad.isfinite().all()


def test_a_batch_of_two_works(name):
    loss, step = make(name), Step(rows=slice(2))
    value = step.value(loss)
    value.backward()
    assert value.isfinite()
    for x in [*leaves(step.student), *loss.parameters()]:
        assert x.grad is None or x.grad.isfinite().all()


DEGENERATE = {
    "no features": lambda x: 0 * x,
    "an image without features": lambda x: torch.cat([0 * x[:1], x[1:]]),
    "one image all over": lambda x: x[:1].expand_as(x),
    "an image and its opposite": lambda x: torch.cat([x[:1], -x[:1], x[2:]]),
    "short features": lambda x: 1e-20 * x,
    "long features": lambda x: 1e4 * x,
}


@pytest.mark.parametrize("change", DEGENERATE.values(), ids=DEGENERATE)
def test_degenerate_batches_stay_finite(name, change):
    def changed(features):
        made = [change(x.detach()).clone().requires_grad_() for x in leaves(features)]
        return FaceFeatures(*made[:2], GRID, stages=tuple(made[2:]))

    for sides in (["student", "teacher"], ["student"], ["teacher"]):
        loss, step = make(name), Step()
        for which in sides:
            setattr(step, which, changed(getattr(step, which)))
        value = step.value(loss)
        value.backward()
        assert value.isfinite()
        for x in [*leaves(step.student), *leaves(step.teacher), *loss.parameters()]:
            assert x.grad is None or x.grad.isfinite().all()


def test_evaluation_changes_no_state(name):
    loss = make(name)
    if name in STARTS_LATE:
        Step().value(loss)
    for _ in range(2):
        state = state_of(loss)
        Step().value(loss.eval()).backward()
        assert_same_state(loss, state)
        Step().value(loss.train())


def test_state_is_in_the_state_dict(name):
    loss, fresh = make(name), make(name)
    for seed in (1, 2):
        Step(seed).value(loss)
    fresh.load_state_dict(state_of(loss))
    assert Step(3).value(fresh).item() == Step(3).value(loss).item()


def test_fewer_teacher_stages_work_or_are_an_error_of_one_line(name):
    try:
        loss = make(name, dims_of(teacher_stages=3))
    except ConfigError as error:
        assert name in str(error) and "\n" not in str(error)
        return
    assert Step(teacher_stages=3).value(loss).isfinite()


def test_documents_its_paper_and_settings(name):
    component = LOSSES.get(name)
    assert issubclass(component, DistillationLoss)
    texts = f"{sys.modules[component.__module__].__doc__}\n{component.__doc__}"
    assert re.search(r"\b(19|20)\d\d\b", texts), "no paper with its year"
    assert component.paper
    for setting, parameter in settings_of(component).items():
        assert parameter.default is not parameter.empty, f"{setting} has no default"
        assert parameter.annotation is not parameter.empty, f"{setting} has no type"
        assert re.search(rf"\b{setting}\b", component.__doc__), f"{setting} is not documented"
    check_settings(
        component, {setting: p.default for setting, p in settings_of(component).items()}, name
    )


def trained(names):
    """What two steps of each loss leave on this rank, which has its share of each batch."""
    found = {}
    for name in names:
        try:
            found[name] = trained_one(name)
        except Exception:  # so that one loss does not fail the others
            found[name] = traceback.format_exc()
    return found


def trained_one(name):
    share = BATCH // distributed.world_size()
    rows = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    loss = make(name, settings=WITHOUT_CHANCE.get(name))
    Step(1, rows).value(loss)
    step = Step(2, rows)
    value = step.value(loss)
    value.backward()
    return {
        "value": value.item(),
        "student": [x.grad for x in leaves(step.student)],
        "teacher": [x.grad for x in leaves(step.teacher)],
        "parameters": {k: p.grad for k, p in loss.named_parameters() if p.requires_grad},
        "buffers": dict(loss.named_buffers()),
        "sharded": loss.sharded_buffers,
    }


@pytest.fixture(scope="module")
def on_one_and_two(tmp_path_factory):
    return trained(NAMES), run_ranks(trained, 2, tmp_path_factory.mktemp("ranks"), NAMES)


def close(found, expected):
    size = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * size)


def test_two_ranks_learn_as_one_does_from_the_joined_batch(name, on_one_and_two):
    one, ranks = on_one_and_two[0][name], [rank[name] for rank in on_one_and_two[1]]
    for result in (one, *ranks):
        assert isinstance(result, dict), result
    assert sum(r["value"] for r in ranks) / 2 == pytest.approx(one["value"], rel=1e-5, abs=1e-5)
    # Each rank's gradient on its own images, which DistributedDataParallel then averages.
    for side in ("student", "teacher"):
        for i, expected in enumerate(one[side]):
            parts = [r[side][i] for r in ranks]
            if expected is None:
                assert all(part is None for part in parts)
            else:
                close(torch.cat(parts) / 2, expected)
    for key, expected in one["parameters"].items():
        close(sum(r["parameters"][key] for r in ranks) / 2, expected)
    assert one["sharded"] <= one["buffers"].keys()
    for key, expected in one["buffers"].items():
        parts = [r["buffers"][key] for r in ranks]
        if key in one["sharded"]:
            assert len(parts[0]) == len(parts[1])
            rows = [len(classes) for classes in np.array_split(np.arange(CLASSES), 2)]
            close(torch.cat([p[:n] for p, n in zip(parts, rows, strict=True)]), expected)
        else:
            assert torch.equal(*parts), key
            close(parts[0], expected)
