import contextlib
import functools
import os
import runpy
import warnings
from dataclasses import dataclass, replace
from unittest import mock

import numpy as np
import pytest
import torch
from helpers.processes import run_ranks
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from arcface_cakd import distributed
from arcface_cakd.distributed import DistributedError
from arcface_cakd.partial_fc import (
    AdaFace,
    ArcFace,
    CombinedMarginLoss,
    CosFace,
    PartialFC,
    PartialFCError,
    load_centers,
    shard_of,
    sharded,
)
from arcface_cakd.partial_fc.cross_entropy import sharded_cross_entropy

E = 6
ARCFACE, COSFACE, ANGULAR = (1.0, 0.5, 0.0), (1.0, 0.0, 0.4), (0.9, 0.4, 0.0)


@dataclass(frozen=True)
class Case:
    """One step of PartialFC, and the plain computation that it has to equal."""

    classes: int
    margin: tuple = ARCFACE
    gradient: str = "straight_through"
    threshold: float = 0.0
    sample_rate: float = 1.0
    batch: int = 4
    s: float = 16.0
    seed: int = 0
    block: int | None = None  # classes of a block; None: all of them together

    def margin_loss(self):
        return CombinedMarginLoss(self.s, *self.margin, self.threshold, gradient=self.gradient)

    def centers(self):
        return torch.from_numpy(
            np.random.default_rng((self.seed, 1)).normal(size=(self.classes, E))
        )

    def part(self, rank):
        """Embeddings and labels of a rank, float64 and int64."""
        rng = np.random.default_rng((self.seed, 2, rank))
        embeddings = torch.from_numpy(rng.normal(size=(self.batch, E)))
        return embeddings, torch.from_numpy(rng.integers(0, self.classes, self.batch))


def _cases():
    for classes in (7, 10, 23):
        for seed in (0, 1):
            base = Case(classes, seed=seed)
            for margin in (ARCFACE, COSFACE, ANGULAR):
                yield replace(base, margin=margin)
            yield replace(base, gradient="exact")
            yield replace(base, threshold=0.2)
            yield replace(base, threshold=0.2, gradient="exact")
            yield replace(base, threshold=0.2, margin=COSFACE)
            for rate in (0.1, 0.5, 0.8):
                yield replace(base, sample_rate=rate)
            yield replace(base, sample_rate=0.5, gradient="exact", threshold=0.2)
            yield replace(base, sample_rate=0.5, margin=COSFACE, batch=9)
    for classes, batch in (
        (7, 2),
        (23, 4),
    ):
        # Up to E rows of all ranks together keep their cosines, more do not.
        base = Case(classes, batch=batch, block=3)
        for margin in (ARCFACE, COSFACE, ANGULAR):
            yield replace(base, margin=margin)
        yield replace(base, gradient="exact", threshold=0.2)
        yield replace(base, sample_rate=0.5)
        yield replace(base, block=classes)
    yield Case(2, block=1)
    yield Case(2)  # on three ranks, the last has no class
    yield Case(2, sample_rate=0.5)
    yield Case(23, s=64.0)


CASES = list(_cases())


def built(case):
    """The module in float64, with this rank's shard of the case's centres."""
    module = PartialFC(
        case.margin_loss(), E, case.classes, sample_rate=case.sample_rate, seed=case.seed
    ).double()
    module.set_centers(case.centers())
    return module


@contextlib.contextmanager
def in_blocks(size):
    """Classes are gone through so many at a time, however few there are; None: all together."""
    if size is None:
        yield
        return
    blocked = functools.partial(sharded.blocked_margin_softmax, block=size)
    with (
        mock.patch.object(sharded, "MANY_CLASSES", 0),
        mock.patch.object(sharded, "blocked_margin_softmax", blocked),
    ):
        yield


def one_step(case):
    with in_blocks(case.block):
        return _one_step(case)


def _one_step(case):
    module = built(case)
    embeddings, labels = case.part(distributed.rank())
    embeddings.requires_grad_()
    loss = module(embeddings, labels)
    loss.backward()
    index = module.weight_index
    if index is None:
        index = torch.arange(module.num_local)
    return {
        "loss": loss.item(),
        "embeddings": embeddings.grad,
        "weight": module.weight.grad,
        "classes": module.class_start + index,
        "num_sample": module.num_sample,
        "shard": (module.class_start, module.num_local),
    }


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, E)).double()

    def forward(self, x):
        return self.layers(x)


def distributed_training_step(case):
    """The backbone's gradient of PartialFC plus a per-rank mean loss."""
    images, labels = case.part(distributed.rank())
    backbone = Backbone()
    model = DistributedDataParallel(backbone) if distributed.world_size() > 1 else backbone
    embeddings = model(images[:, :3])
    loss = built(case)(embeddings, labels) + embeddings.square().sum(1).mean()
    loss.backward()
    return [parameter.grad for parameter in backbone.parameters()]


def refusals(case):
    """What every rank says of a wrong label of the last rank, and of unequal batches."""
    module = built(case)
    embeddings, labels = case.part(distributed.rank())
    said = []
    for wrong in (-1, case.classes):
        spoilt = labels.clone()
        if distributed.rank() == distributed.world_size() - 1:
            spoilt[1] = wrong
        with pytest.raises(PartialFCError) as error:
            module(embeddings, spoilt)
        said.append(str(error.value))
    if distributed.world_size() > 1:
        keep = case.batch - distributed.rank()
        with pytest.raises(DistributedError) as error:
            module(embeddings[:keep], labels[:keep])
        said.append(str(error.value))
    return said


def frozen_step(case):
    module = PartialFC.from_centers(case.margin_loss(), case.centers().float())
    embeddings, labels = case.part(distributed.rank())
    embeddings = embeddings.float().requires_grad_()
    loss = module(embeddings, labels)
    loss.backward()
    return loss.item(), embeddings.grad, module.weight.grad, module.weight.requires_grad


def growing_batches(case):
    module = built(case)
    return [
        module(*replace(case, batch=batch).part(distributed.rank())).item() for batch in (2, 5, 3)
    ]


def initial_state(num_classes):
    module = PartialFC(ArcFace(), 4, num_classes, seed=3)
    labels = torch.arange(2)
    sampled = PartialFC(ArcFace(), 4, num_classes, sample_rate=0.3, seed=3)
    sampled(torch.ones(2, 4), labels)
    return module.weight.detach(), sampled.weight_index


def on_each_rank():
    return {
        "steps": [one_step(case) for case in CASES],
        "ddp": distributed_training_step(Case(10)),
        "refusals": refusals(Case(10)),
        "frozen": frozen_step(Case(10)),
        "growing": growing_batches(Case(10)),
        "initial": initial_state(2500),
    }


@pytest.fixture(scope="module", params=[1, 2, 3])
def world(request, tmp_path_factory):
    """What each rank returned; the world of one rank has no process group."""
    if request.param == 1:
        return [on_each_rank()]
    return run_ranks(on_each_rank, request.param, tmp_path_factory.mktemp("world"))


def joined(case, ranks):
    parts = [case.part(rank) for rank in range(ranks)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def by_autograd(case, embeddings, centers, labels):
    """Loss and gradients by torch's own operations, the margin's derivative included."""
    embeddings, centers = embeddings.clone().requires_grad_(), centers.clone().requires_grad_()
    cosines = F.normalize(embeddings) @ F.normalize(centers).T
    is_target = F.one_hot(labels, len(centers)).bool()
    m1, m2, m3 = case.margin
    with_margin = cosines - m3 if m3 > 0 else torch.cos(m1 * torch.acos(cosines) + m2) - m3
    kept = cosines
    if case.threshold:
        kept = torch.where(cosines > case.threshold, 0.0, cosines)
    loss = F.cross_entropy(case.s * torch.where(is_target, with_margin, kept), labels)
    return loss.item(), *torch.autograd.grad(loss, (embeddings, centers))


def by_hand(case, embeddings, centers, labels):
    """The same for the straight-through margin, whose gradient no autograd gives: numpy."""
    embeddings, centers, labels = embeddings.numpy(), centers.numpy(), labels.numpy()
    rows = np.arange(len(labels))
    lengths = [np.linalg.norm(x, axis=1, keepdims=True) for x in (embeddings, centers)]
    e, w = embeddings / lengths[0], centers / lengths[1]
    cosines = (e @ w.T).clip(-1, 1)
    m1, m2, m3 = case.margin
    assert m1 == 1
    kept = np.ones_like(cosines)
    if case.threshold:
        kept[cosines > case.threshold] = 0
    kept[rows, labels] = 1
    logits = case.s * cosines * kept
    at_target = cosines[rows, labels]
    logits[rows, labels] = case.s * (np.cos(np.arccos(at_target) + m2) if m2 else at_target - m3)
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    loss = -np.log(probabilities[rows, labels]).mean()

    to_cosines = probabilities.copy()
    to_cosines[rows, labels] -= 1
    to_cosines *= case.s * kept / len(rows)
    to_e, to_w = to_cosines @ w, to_cosines.T @ e
    # A unit vector moves only across itself.
    to_embeddings = (to_e - e * (e * to_e).sum(1, keepdims=True)) / lengths[0]
    to_centers = (to_w - w * (w * to_w).sum(1, keepdims=True)) / lengths[1]
    return loss, torch.from_numpy(to_embeddings), torch.from_numpy(to_centers)


def reference(case, ranks, classes):
    """Loss and gradients of one process on the joined batch, with these classes alone."""
    embeddings, labels = joined(case, ranks)
    where = torch.full((case.classes,), -1).index_copy(0, classes, torch.arange(len(classes)))
    straight = case.gradient == "straight_through" and case.margin != ANGULAR
    plain = by_hand if straight else by_autograd
    loss, to_embeddings, to_some = plain(case, embeddings, case.centers()[classes], where[labels])
    to_centers = torch.zeros(case.classes, E, dtype=torch.float64)
    to_centers[classes] = to_some
    return loss, to_embeddings, to_centers


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: str(CASES[number]))
def test_equals_plain_cross_entropy(world, number):
    case, steps = CASES[number], [result["steps"][number] for result in world]
    classes = torch.cat([step["classes"] for step in steps])
    loss, to_embeddings, to_centers = reference(case, len(world), classes)
    for rank, step in enumerate(steps):
        assert abs(step["loss"] - loss) < 1e-10
        own = to_embeddings[rank * case.batch : (rank + 1) * case.batch]
        # Times the number of ranks, by which DistributedDataParallel will divide.
        close(step["embeddings"], len(world) * own)
        start, count = step["shard"]
        close(step["weight"], to_centers[start : start + count])


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_references_agree():
    """Where both apply, what the tests compare with is the same."""
    for case in (Case(10, margin=COSFACE), Case(10, margin=COSFACE, threshold=0.2)):
        arguments = case, case.part(0)[0], case.centers(), case.part(0)[1]
        for hand, auto in zip(by_hand(*arguments), by_autograd(*arguments), strict=True):
            np.testing.assert_allclose(hand, auto, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("number", [i for i, case in enumerate(CASES) if case.sample_rate < 1])
def test_sample_holds_the_positives_and_no_more_than_it_should(world, number):
    case = CASES[number]
    _, labels = joined(case, len(world))
    for result in world:
        step = result["steps"][number]
        start, count = step["shard"]
        positives = {n for n in labels.tolist() if start <= n < start + count}
        classes = step["classes"].tolist()
        assert positives <= set(classes)
        assert classes == sorted(set(classes))
        assert all(start <= n < start + count for n in classes)
        assert step["num_sample"] == int(case.sample_rate * count)
        assert len(classes) == max(step["num_sample"], len(positives))


def test_shards_are_arcface_torchs(world):
    for case, *steps in zip(CASES, *(result["steps"] for result in world), strict=True):
        size, larger = case.classes // len(world), case.classes % len(world)
        counts = [size + 1] * larger + [size] * (len(world) - larger)
        starts = np.cumsum([0, *counts[:-1]]).tolist()
        assert [step["shard"] for step in steps] == list(zip(starts, counts, strict=True))


def test_backbone_gets_the_gradient_of_the_joined_batch(world):
    case = Case(10)
    images, labels = joined(case, len(world))
    backbone = Backbone()
    embeddings = backbone(images[:, :3])
    _, upstream, _ = by_hand(case, embeddings.detach(), case.centers(), labels)
    upstream = upstream + 2 * embeddings.detach() / len(images)
    expected = torch.autograd.grad(embeddings, list(backbone.parameters()), upstream)
    for result in world:
        for got, want in zip(result["ddp"], expected, strict=True):
            close(got, want)


def test_frozen_centers_pass_gradients_to_embeddings_only(world):
    case = Case(10)
    loss, to_embeddings, _ = reference(case, len(world), torch.arange(10))
    for rank, result in enumerate(world):
        got_loss, got, to_weight, requires_grad = result["frozen"]
        assert got_loss == pytest.approx(loss, abs=1e-5)
        own = to_embeddings[rank * case.batch : (rank + 1) * case.batch].float()
        torch.testing.assert_close(got, len(world) * own, rtol=1e-4, atol=1e-5)
        assert to_weight is None and requires_grad is False


def test_batch_size_may_change(world):
    expected = [
        reference(Case(10, batch=batch), len(world), torch.arange(10))[0] for batch in (2, 5, 3)
    ]
    for result in world:
        np.testing.assert_allclose(result["growing"], expected, rtol=1e-12)


def test_every_rank_refuses_alike(world):
    for result in world:
        said = result["refusals"]
        assert said[0].startswith("label -1 is outside [0, 10): set num_classes")
        assert said[1].startswith("label 10 is outside [0, 10): set num_classes")
        if len(world) > 1:
            sizes = ", ".join(str(4 - rank) for rank in range(len(world)))
            assert said[2].startswith(f"batches of {sizes} on the ranks")
        assert not any("\n" in line for line in said)


def test_initial_centers_do_not_depend_on_the_sharding(world):
    whole, _ = initial_state(2500)
    assert torch.equal(torch.cat([result["initial"][0] for result in world]), whole)
    assert len({tuple(row) for row in whole.tolist()}) == 2500
    assert abs(whole.mean()) < 5e-4 and whole.std().item() == pytest.approx(0.01, rel=0.03)


def test_ranks_sample_apart(world):
    samples = [result["initial"][1][:700].tolist() for result in world]
    assert all(a != b for i, a in enumerate(samples) for b in samples[:i])


# One process from here on.


def sampled_classes(module, steps, seed=0):
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(steps):
        labels = torch.from_numpy(rng.integers(0, module.num_classes, 5))
        module(torch.ones(5, module.embedding_size), labels)
        result.append(module.weight_index.tolist())
    return result


def test_sampling_goes_on_from_a_saved_state():
    module = PartialFC(CosFace(), E, 200, sample_rate=0.2, seed=4)
    sampled_classes(module, 2)
    state = module.rng_state()
    expected = sampled_classes(module, 3)
    assert expected[0] != expected[1]
    resumed = PartialFC(CosFace(), E, 200, sample_rate=0.2, seed=99)
    resumed.set_rng_state(state)
    assert sampled_classes(resumed, 3) == expected


def test_randomness_comes_from_the_seed_alone():
    def run(seed, global_seed):
        torch.manual_seed(global_seed)
        module = PartialFC(CosFace(), E, 200, sample_rate=0.2, seed=seed)
        before = torch.get_rng_state()
        samples = sampled_classes(module, 2)
        assert torch.equal(torch.get_rng_state(), before)
        return module.weight.tolist(), samples

    assert run(1, 1) == run(1, 2)
    assert run(1, 1)[0] != run(2, 1)[0]
    assert run(1, 1)[1] != run(2, 1)[1]


def test_negatives_are_drawn_evenly():
    module = PartialFC(CosFace(), E, 50, sample_rate=0.2)
    draws = 500
    counts = np.zeros(50)
    for _ in range(draws):
        module(torch.ones(1, E), torch.tensor([0]))
        counts[module.weight_index] += 1
    assert counts[0] == draws
    expected = draws * 9 / 49
    assert abs(counts[1:] - expected).max() < 5 * np.sqrt(expected)


def test_state_dict_is_arcface_torchs():
    state = PartialFC(ArcFace(), E, 11, sample_rate=0.5).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == {"weight": (11, E)}


@pytest.mark.parametrize("gradient", ["straight_through", "exact"])
@pytest.mark.parametrize("margin", [ARCFACE, COSFACE])
def test_stable_at_the_ends(margin, gradient):
    """Embeddings on their own centre, opposite to it, and on another's, at s = 64."""
    case = Case(12, margin=margin, gradient=gradient, s=64.0)
    centers = case.centers().float()
    embeddings = torch.cat([centers, -centers, 1e3 * centers.roll(1, 0)]).requires_grad_()
    labels = torch.arange(12).repeat(3)
    module = PartialFC(case.margin_loss(), E, 12)
    module.set_centers(centers)
    loss = module(embeddings, labels)
    loss.backward()
    assert embeddings.grad.isfinite().all() and module.weight.grad.isfinite().all()
    wide = embeddings.detach().double(), centers.double(), labels
    expected, _, _ = by_hand(case, *wide)  # the loss is the same with either gradient
    assert loss.item() == pytest.approx(expected, rel=1e-3)
    assert loss.item() > 30


@pytest.mark.parametrize("block", [None, 3])
def test_graph_may_be_walked_twice(block):
    """The norm of a term's gradient is logged before the whole is back-propagated."""
    case = Case(10, threshold=0.2)
    module = built(case)
    embeddings, labels = case.part(0)
    embeddings.requires_grad_()
    with in_blocks(block):
        loss = module(embeddings, labels)
    first, second = (
        torch.autograd.grad(loss, (embeddings, module.weight), retain_graph=True) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("batch", [8, 80])
@pytest.mark.parametrize("margin", [ArcFace(), ArcFace(gradient="exact"), CosFace()])
def test_blocks_are_the_whole_in_float32(margin, batch):
    """The size that goes in blocks by itself; a batch whose cosines are kept, and one that asks
    for them again."""
    torch.manual_seed(batch)
    head = PartialFC(margin, 64, sharded.MANY_CLASSES + 100)
    embeddings, labels = torch.randn(batch, 64), torch.randint(0, head.num_classes, (batch,))
    # Faces near their class centres, as in a run that is under way.
    embeddings += 50 * head.weight.detach()[labels]

    def step(dtype, together):
        head.to(dtype)
        ours = embeddings.to(dtype, copy=True).requires_grad_()
        head.weight.grad = None
        with mock.patch.object(sharded, "MANY_CLASSES", together):
            loss = head(ours, labels)
        loss.backward()
        return loss.detach(), ours.grad, head.weight.grad

    in_blocks = step(torch.float32, sharded.MANY_CLASSES)
    whole = step(torch.float32, head.num_classes)
    exact = step(torch.float64, head.num_classes)
    for got, other, expected in zip(in_blocks, whole, exact, strict=True):
        # Logits of 64 have an error of 4e-6, and so has a gradient, the whole's like the blocks'.
        assert (got - expected).norm() < 2e-6 * expected.norm()
        assert (got - other).norm() < 2e-6 * expected.norm()


def test_blocks_are_float32_whatever_the_callers_precision():
    head = PartialFC(ArcFace(), 16, sharded.MANY_CLASSES + 50)
    results = []
    for precision in (False, True):
        embeddings = torch.randn(6, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
        head.weight.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=precision):
            loss = head(embeddings, torch.arange(6) * 1000)
        loss.backward()
        results.append((loss.detach(), embeddings.grad, head.weight.grad))
    for alone, within in zip(*results, strict=True):
        assert torch.equal(alone, within)


def test_up_to_many_classes_and_under_other_margins_all_go_together():
    """Runs keep the last bits they had, and a margin that remembers the batch is asked once."""
    embeddings, labels = torch.randn(2, 4), torch.tensor([0, 1])

    def goes_in_blocks(margin, classes, **settings):
        head = PartialFC(margin, 4, classes, **settings)
        with mock.patch.object(
            sharded, "blocked_margin_softmax", wraps=sharded.blocked_margin_softmax
        ) as went:
            head(embeddings, labels)
        return went.called

    many = sharded.MANY_CLASSES
    assert goes_in_blocks(ArcFace(), many + 1)
    assert not goes_in_blocks(ArcFace(), many)
    assert not goes_in_blocks(ArcFace(), many + 1, sample_rate=0.5)
    assert not goes_in_blocks(AdaFace(), many + 1)
    assert not goes_in_blocks(lambda cosines, labels: 64 * cosines, many + 1)
    assert not goes_in_blocks(ArcFace(), many + 1, fp16=True)


def test_upstream_gradient_scales():
    case = Case(10)
    embeddings, labels = case.part(0)
    embeddings.requires_grad_()
    module = built(case)
    gradients = [
        torch.autograd.grad(factor * module(embeddings, labels), embeddings)[0]
        for factor in (1.0, 1024.0)
    ]
    torch.testing.assert_close(1024 * gradients[0], gradients[1])


def test_inputs_are_left_alone():
    case = Case(10)
    embeddings, labels = case.part(0)
    column = labels.int().view(-1, 1)
    before = embeddings.clone(), column.clone()
    module = built(case)
    loss = module(embeddings, column)
    assert torch.equal(embeddings, before[0]) and torch.equal(column, before[1])
    assert loss == module(embeddings, labels)


class Recording(CosFace):
    def forward(self, logits, labels):
        self.seen = logits.detach()
        return super().forward(logits, labels)


@pytest.mark.parametrize("fp16", [False, True])
def test_softmax_is_float32_whatever_the_precision_of_the_product(fp16):
    case = Case(23, margin=COSFACE)
    embeddings, labels = (part.float() if i == 0 else part for i, part in enumerate(case.part(0)))
    embeddings.requires_grad_()
    margin = Recording(case.s)
    module = PartialFC(margin, E, 23, fp16=fp16)
    module.set_centers(case.centers())
    with torch.autocast("cpu", torch.bfloat16):  # the caller's precision is not this module's
        loss = module(embeddings, labels)
    loss.backward()
    assert loss.dtype == margin.seen.dtype == embeddings.grad.dtype == torch.float32
    # Only a product in half precision leaves numbers that half precision can hold.
    assert torch.equal(margin.seen, margin.seen.half().float()) is fp16
    expected, to_embeddings, _ = by_hand(case, *case.part(0)[:1], case.centers(), labels)
    close_enough = 2e-2 if fp16 else 1e-5
    assert loss.item() == pytest.approx(expected, rel=close_enough)
    torch.testing.assert_close(
        embeddings.grad,
        to_embeddings.float(),
        rtol=0,
        atol=close_enough * to_embeddings.abs().max(),
    )


def test_cosines_are_cosines():
    module = PartialFC(ArcFace(), E, 300)
    embeddings = 3 * module.weight.detach()
    unclamped = F.normalize(embeddings) @ F.normalize(module.weight).T
    assert unclamped.max() > 1, "rounding leads beyond 1 here, or this test shows nothing"
    got = module.cosines(embeddings)
    torch.testing.assert_close(got, unclamped)
    assert got.abs().max() <= 1


def test_target_that_no_rank_owns_makes_the_loss_infinite():
    """What labels that nobody checked, on a GPU, come to."""
    logits = torch.randn(3, 4)
    assert sharded_cross_entropy(logits, torch.tensor([[0], [-1], [2]])) == torch.inf


def test_zero_embedding_has_a_finite_loss_and_gradient():
    embeddings = torch.zeros(2, E, requires_grad=True)
    loss = PartialFC(ArcFace(), E, 9)(embeddings, torch.tensor([0, 1]))
    loss.backward()
    assert loss.isfinite() and embeddings.grad.isfinite().all()


def test_what_does_not_fit_gets_one_line():
    module = PartialFC(ArcFace(), E, 9)
    labels = torch.tensor([0, 1])
    with pytest.raises(PartialFCError, match=r"shape \(2, 5\), not \(2, 6\)"):
        module(torch.ones(2, E - 1), labels)
    with pytest.raises(PartialFCError, match=r"shape \(3, 6\), not \(2, 6\)"):
        module(torch.ones(3, E), labels)
    with pytest.raises(PartialFCError, match=r"shape \(8, 6\), not \(9, 6\)"):
        module.set_centers(torch.ones(8, E))
    for rate in (0, 1.5):
        with pytest.raises(PartialFCError, match="sample_rate"):
            PartialFC(ArcFace(), E, 9, sample_rate=rate)
    with pytest.raises(PartialFCError, match="num_classes"):
        PartialFC(ArcFace(), E, 0)
    module.world_size = 2
    with pytest.raises(DistributedError, match="start the process group first"):
        module(torch.ones(2, E), labels)


def save_run(folder, centers, ranks, name="checkpoint_gpu_{}.pt", **more):
    for rank in range(ranks):
        start, count = shard_of(len(centers), rank, ranks)
        shard = centers[start : start + count].clone()
        checkpoint = {
            "epoch": 1,
            "global_step": 7,
            "state_dict_backbone": {"layer.weight": torch.ones(2)},
            "state_dict_softmax_fc": {"weight": shard},
            **more,
        }
        torch.save(checkpoint, folder / name.format(rank))


@pytest.mark.parametrize("ranks", [1, 3, 12])
def test_load_centers_joins_in_order_of_ranks(tmp_path, ranks):
    centers = torch.randn(25, E)
    save_run(tmp_path, centers, ranks)
    assert torch.equal(load_centers(str(tmp_path / "checkpoint_gpu_*.pt")), centers)


def refuse(pattern, message):
    with pytest.raises(PartialFCError, match=message) as error:
        load_centers(str(pattern))
    assert "\n" not in str(error.value) and "class centres" in str(error.value)


def test_load_centers_refuses_what_is_not_one_run(tmp_path):
    pattern = tmp_path / "checkpoint_gpu_*.pt"
    refuse(pattern, "no such file")
    centers = torch.randn(8, E)
    save_run(tmp_path, centers, 3)
    middle = tmp_path / "checkpoint_gpu_1.pt"
    whole = middle.read_bytes()
    middle.unlink()
    refuse(pattern, "rank 1 is missing")
    middle.write_bytes(whole[: len(whole) // 2])
    refuse(pattern, r"checkpoint_gpu_1\.pt: (not a checkpoint|damaged)")
    middle.write_bytes(b"")
    refuse(pattern, r"checkpoint_gpu_1\.pt: (not a checkpoint|damaged)")
    torch.save({"weight": torch.ones(2, E)}, middle)
    refuse(pattern, r"checkpoint_gpu_1\.pt: holds no state_dict_softmax_fc")
    torch.save(torch.ones(2, E), middle)
    refuse(pattern, r"checkpoint_gpu_1\.pt: holds no state_dict_softmax_fc")
    torch.save({"state_dict_softmax_fc": {"weight": torch.ones(2)}}, middle)
    refuse(pattern, r"checkpoint_gpu_1\.pt: weight is not a matrix")
    for value, message in ((torch.nan, "are not finite"), (torch.inf, "are not finite")):
        weight = torch.full((3, E), value)
        torch.save({"state_dict_softmax_fc": {"weight": weight}}, middle)
        refuse(pattern, rf"checkpoint_gpu_1\.pt {message}.*use an earlier checkpoint")
    torch.save({"state_dict_softmax_fc": {"weight": torch.ones(3, E, dtype=torch.int64)}}, middle)
    refuse(pattern, r"checkpoint_gpu_1\.pt: of torch\.int64")
    for shape, step, message in (
        ((3, E + 1), 7, "width 7 at step 7, but .* width 6 at step 7"),
        ((3, E), 8, "width 6 at step 8, but .* width 6 at step 7"),
        ((5, E), 7, "shards of 3, 5, 2 classes"),
    ):
        softmax = {"weight": torch.ones(shape)}
        torch.save({"global_step": step, "state_dict_softmax_fc": softmax}, middle)
        refuse(pattern, message)
    middle.write_bytes(whole)
    assert torch.equal(load_centers(str(pattern)), centers)
    save_run(tmp_path, centers, 1, name="checkpoint_gpu_copy_{}.pt")
    refuse(pattern, "2 files for rank 0")
    (tmp_path / "checkpoint_gpu_copy_0.pt").rename(tmp_path / "checkpoint_gpu_copy.pt")
    refuse(pattern, "no rank in the file's name")


def test_load_centers_never_runs_what_a_checkpoint_holds(tmp_path):
    save_run(tmp_path, torch.randn(4, E), 1, surprise=print)
    refuse(tmp_path / "checkpoint_gpu_0.pt", "not a checkpoint")


def host_steps(folder, cases):
    """One step of arcface_torch's own PartialFC_V2 and of ours, in float32, for each case."""
    warnings.simplefilter("ignore")
    torch.Tensor.cuda = lambda self, *args, **kwargs: self
    their_loss = runpy.run_path(os.path.join(folder, "losses.py"))["CombinedMarginLoss"]
    their_fc = runpy.run_path(os.path.join(folder, "partial_fc_v2.py"))["PartialFC_V2"]
    results = []
    for case in cases:
        theirs = their_fc(their_loss(case.s, *case.margin, case.threshold), E, case.classes)
        ours = PartialFC(case.margin_loss(), E, case.classes)
        ours.set_centers(case.centers())
        theirs.load_state_dict(ours.state_dict())
        ours.load_state_dict(theirs.state_dict())
        embeddings, labels = case.part(distributed.rank())
        pair = []
        for module in (theirs, ours):
            leaf = embeddings.float().requires_grad_()
            loss = module(leaf, labels.clone())
            loss.backward()
            pair.append((loss.detach(), leaf.grad, module.weight.grad))
        results.append(pair)
    return results


@pytest.mark.skipif(
    "ARCFACE_TORCH" not in os.environ, reason="ARCFACE_TORCH names no arcface_torch checkout"
)
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_equals_arcface_torch(ranks, tmp_path):
    cases = [
        case
        for case in CASES
        if case.sample_rate == 1
        and case.classes > 2
        and case.gradient == "straight_through"
        and case.margin != ANGULAR
    ]
    for result in run_ranks(host_steps, ranks, tmp_path, os.environ["ARCFACE_TORCH"], cases):
        for case, (theirs, ours) in zip(cases, result, strict=True):
            # Its loss, not its gradient, is capped at -log(1e-30) for each image.
            compared = slice(0 if case.s < 64 else 1, None)
            for expected, got in zip(theirs[compared], ours[compared], strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
