import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from arcface_cakd.alignment import URFM, Anchoring, PIFSettings
from arcface_cakd.alignment.geometry import anchor_places, center_places, facial_distance
from arcface_cakd.alignment.geometry import patch_places as patches
from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.features import FaceFeatures
from arcface_cakd.registry import SECTIONS


def features(batch, width, grid, prompts=0, dtype=torch.float64):
    tokens = torch.randn(batch, grid[0] * grid[1], width, dtype=dtype)
    extra = torch.randn(batch, prompts, width, dtype=dtype) if prompts else None
    return FaceFeatures(torch.randn(batch, 3, dtype=dtype), tokens, grid, extra)


def small(**settings):
    defaults = {"num_centers": 4, "dim": 8, "num_heads": 2}
    return URFM(5, (3, 3), 6, (2, 4), **{**defaults, **settings}).double()


# --- the reference: numpy, float64, one image, head, centre and token at a time


def layer_norm(x, weight, bias):
    return (x - x.mean()) / math.sqrt(x.var() + 1e-5) * weight + bias


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def row_of(distance, pif):
    if distance <= pif.alpha:
        return int(np.rint(distance))
    slope = (pif.beta - pif.alpha) / math.log(pif.gamma / pif.alpha)
    return int(min(pif.beta, np.rint(pif.alpha + math.log(distance / pif.alpha) * slope)))


def reference_mapping(p, tokens, prompts, num_heads, to_anchors, to_patches, pifs):
    """h (L, d) and lookup (heads, L, N + t) of one image; D and constants are given."""
    sequence = tokens if prompts is None else np.concatenate([tokens, prompts])
    f = np.array(
        [
            p["project.1.weight"] @ layer_norm(x, p["project.0.weight"], p["project.0.bias"])
            + p["project.1.bias"]
            for x in sequence
        ]
    )
    num_centers, dim = p["centers"].shape
    width = dim // num_heads
    h = np.zeros((num_centers, dim))
    lookup = np.zeros((num_heads, num_centers, len(sequence)))
    for i in range(num_centers):
        query = p["query.weight"] @ p["centers"][i]
        for a in range(to_anchors.shape[1]):
            query = query + p["anchor_encoding.table"][a, row_of(to_anchors[i, a], pifs[0])]
        for head in range(num_heads):
            part = slice(head * width, (head + 1) * width)
            logits = np.zeros(len(sequence))
            for j in range(len(sequence)):
                key = p["key.weight"] @ f[j]
                logits[j] = query[part] @ key[part] / math.sqrt(width)
                if to_patches is not None and j < len(tokens):
                    row = row_of(to_patches[i, j], pifs[1])
                    logits[j] += p["pair_encoding.table"][head, row]
            lookup[head, i] = softmax(logits)
            for j in range(len(sequence)):
                h[i, part] += lookup[head, i, j] * (p["value.weight"] @ f[j])[part]
    return h, lookup


def reference_msa(p, h, num_heads):
    num_centers, dim = h.shape
    width = dim // num_heads
    x = np.array([layer_norm(row, p["norm.weight"], p["norm.bias"]) for row in h])
    q, k, v = np.split(x @ p["qkv.weight"].T + p["qkv.bias"], 3, axis=1)
    maps = np.zeros((num_heads, num_centers, num_centers))
    joined = np.zeros((num_centers, dim))
    for head in range(num_heads):
        part = slice(head * width, (head + 1) * width)
        for i in range(num_centers):
            logits = [q[i, part] @ k[j, part] / math.sqrt(width) for j in range(num_centers)]
            maps[head, i] = softmax(np.array(logits))
            for j in range(num_centers):
                joined[i, part] += maps[head, i, j] * v[j, part]
    return joined @ p["out.weight"].T + p["out.bias"], maps


def arrays(module):
    return {name: value.detach().numpy() for name, value in module.named_parameters()}


@pytest.mark.parametrize(
    ("grids", "extents", "num_centers", "num_heads", "prompts", "settings"),
    [
        (((7, 7), (7, 7)), (112, 112), 49, 2, 3, {}),
        (((7, 7), (12, 12)), (112, 108), 9, 4, 0, {"face_distance": "saliency"}),
        (((14, 14), (7, 7)), (112, 112), 16, 1, 2, {"position": "query"}),
        (((3, 5), (4, 2)), (112, 112), 4, 2, 1, {"face_distance": None, "anchor": "landmarks"}),
        (((3, 3), (2, 2)), (112, 112), 9, 2, 4, {"pif": PIFSettings(1.9, 3.8, 15.2)}),
        (((3, 3), (2, 2)), (112, 112), 4, 2, 0, {"anchor": "center", "face_weight": 0.3}),
        (((3, 3), (2, 2)), (112, 112), 4, 2, 2, {"stop_gradient": False, "shared_msa": False}),
    ],
)
def test_equals_brute_force(grids, extents, num_centers, num_heads, prompts, settings):
    urfm = URFM(
        5, grids[0], 6, grids[1], *extents, num_centers=num_centers, dim=8, num_heads=num_heads,
        **settings,
    ).double()  # fmt: skip
    with torch.no_grad():
        for parameter in urfm.parameters():  # biases and gains of their own too
            parameter += 0.3 * torch.randn_like(parameter)
    student, teacher = features(2, 5, grids[0]), features(2, 6, grids[1], prompts)
    both = urfm(student, teacher)

    kind, weight = settings.get("face_distance", "relative"), settings.get("face_weight", 1.0)
    centers = center_places(num_centers)
    to_anchors = facial_distance(
        centers, anchor_places(settings.get("anchor", "nose")), kind, weight
    )
    teacher_msa = urfm.msa if urfm.teacher_msa is None else urfm.teacher_msa
    for side, mapping, msa, given, grid, extent in (
        (both.student, urfm.student, urfm.msa, student, grids[0], extents[0]),
        (both.teacher, urfm.teacher, teacher_msa, teacher, grids[1], extents[1]),
    ):
        to_patches = facial_distance(centers, patches(grid, extent), kind, weight)
        pifs = [settings.get("pif") or PIFSettings.spread(d) for d in (to_anchors, to_patches)]
        if settings.get("position") == "query":
            to_patches = None
        for image in range(2):
            h, lookup = reference_mapping(
                arrays(mapping),
                given.tokens[image].numpy(),
                None if given.prompts is None else given.prompts[image].numpy(),
                num_heads,
                to_anchors.numpy(),
                None if to_patches is None else to_patches.numpy(),
                pifs,
            )
            attended, maps = reference_msa(arrays(msa), h, num_heads)
            for ours, theirs in (
                (side.h, h),
                (side.lookup, lookup),
                (side.attended, attended),
                (side.attention, maps),
            ):
                np.testing.assert_allclose(ours[image].detach().numpy(), theirs, atol=1e-10)


@pytest.mark.parametrize("face_distance", [None, "relative", "saliency"])
@pytest.mark.parametrize("position", ["query", "query_key"])
def test_only_query_key_knows_where_a_patch_is(position, face_distance):
    urfm = URFM(
        5, (7, 7), 6, (7, 7), dim=8, num_heads=2, position=position, face_distance=face_distance
    ).double()
    student, teacher = features(2, 5, (7, 7)), features(2, 6, (7, 7), prompts=2)
    order = torch.randperm(49)

    def permuted(side):
        return FaceFeatures(side.embedding, side.tokens[:, order], side.grid, side.prompts)

    before, after = urfm(student, teacher), urfm(permuted(student), permuted(teacher))
    for side in ("student", "teacher"):
        h, moved = getattr(before, side).h, getattr(after, side).h
        change = ((moved - h).norm() / h.norm()).item()
        assert change < 1e-12 if position == "query" else change > 0.05


def test_prompts_have_no_place():
    urfm = small()
    student, teacher = features(2, 5, (3, 3)), features(2, 6, (2, 4), prompts=3)
    swapped = FaceFeatures(teacher.embedding, teacher.tokens, teacher.grid, teacher.prompts.flip(1))
    torch.testing.assert_close(urfm(student, teacher).teacher.h, urfm(student, swapped).teacher.h)
    without = FaceFeatures(teacher.embedding, teacher.tokens, teacher.grid)
    assert not torch.allclose(urfm(student, teacher).teacher.h, urfm(student, without).teacher.h)


def test_images_of_a_batch_do_not_mix():
    urfm = small()
    student, teacher = features(3, 5, (3, 3)), features(3, 6, (2, 4), prompts=2)
    other = student.tokens.clone()
    other[1] = torch.randn(9, 5)
    before = urfm(student, teacher).student.attended
    after = urfm(FaceFeatures(student.embedding, other, (3, 3)), teacher).student.attended
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.allclose(before[1], after[1])


def objective(urfm, student, teacher):
    both = urfm(student, teacher)
    s, t = both.student, both.teacher
    return F.mse_loss(s.attended, t.attended) + (s.attention - t.attention).square().sum(-1).mean()


@pytest.mark.parametrize("stop_gradient", [True, False])
@pytest.mark.parametrize("position", ["query", "query_key"])
def test_gradients_of_tokens_and_prompts_equal_finite_differences(position, stop_gradient):
    urfm = small(position=position, stop_gradient=stop_gradient)
    student, teacher = features(1, 5, (3, 3)), features(1, 6, (2, 4), prompts=2)
    inputs = [student.tokens, teacher.tokens, teacher.prompts]
    for x in inputs:
        x.requires_grad_()

    def loss(seen, tokens, prompts):
        return objective(
            urfm,
            FaceFeatures(student.embedding, seen, (3, 3)),
            FaceFeatures(teacher.embedding, tokens, (2, 4), prompts),
        )

    assert torch.autograd.gradcheck(loss, inputs)


def test_gradients_of_all_parameters_equal_finite_differences():
    urfm = small(stop_gradient=False, shared_msa=False)
    student, teacher = features(1, 5, (3, 3)), features(1, 6, (2, 4), prompts=2)
    names, values = zip(*urfm.named_parameters(), strict=True)

    def loss(*values):
        both = torch.func.functional_call(
            urfm, dict(zip(names, values, strict=True)), (student, teacher)
        )
        return F.mse_loss(both.student.attended, both.teacher.attended) + both.teacher.h.sum()

    assert torch.autograd.gradcheck(loss, values, fast_mode=True)


@pytest.mark.parametrize("shared_msa", [True, False])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_what_the_alignment_may_move(stop_gradient, shared_msa):
    urfm = small(stop_gradient=stop_gradient, shared_msa=shared_msa)
    student, teacher = features(2, 5, (3, 3)), features(2, 6, (2, 4), prompts=2)
    teacher.prompts.requires_grad_()
    objective(urfm, student, teacher).backward()
    assert teacher.prompts.grad.abs().sum() > 0  # prompts learn to teach in either case
    for name, parameter in urfm.named_parameters():
        on_teacher_side = name.startswith(("teacher.", "teacher_msa."))
        moved = parameter.grad is not None and parameter.grad.abs().sum() > 0
        assert moved == (not on_teacher_side or not stop_gradient), name


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_the_shared_msa_learns_through_the_student_alone(stop_gradient):
    urfm = small(stop_gradient=stop_gradient)
    both = urfm(features(2, 5, (3, 3)), features(2, 6, (2, 4), prompts=2))
    weights = list(urfm.msa.parameters())

    def gradients(target):
        return torch.autograd.grad(target, weights, retain_graph=True, allow_unused=True)

    through_teacher = both.teacher.attended.sum() + both.teacher.attention.square().sum()
    if through_teacher.requires_grad:
        assert all(g is None for g in gradients(through_teacher))
    through_student = both.student.attended.sum() + both.student.attention.square().sum()
    assert any(g is not None and g.abs().sum() > 0 for g in gradients(through_student))


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_anchoring_moves_the_teacher_side_in_either_case(stop_gradient):
    urfm, anchoring = small(stop_gradient=stop_gradient), Anchoring(8, 4, 3).double()
    teacher = features(2, 6, (2, 4), prompts=2)
    both = urfm(features(2, 5, (3, 3)), teacher)
    anchoring(both.teacher.h, teacher.embedding).backward()
    for name, parameter in urfm.named_parameters():
        moved = parameter.grad is not None and parameter.grad.abs().sum() > 0
        assert moved == name.startswith("teacher."), name


def test_lookup_carries_no_graph_and_sums_to_one():
    both = small()(features(2, 5, (3, 3)), features(2, 6, (2, 4), prompts=3))
    assert both.student.lookup.shape == (2, 2, 4, 9)
    assert both.teacher.lookup.shape == (2, 2, 4, 11)
    for side in (both.student, both.teacher):
        assert not side.lookup.requires_grad
        torch.testing.assert_close(side.lookup.sum(-1), torch.ones_like(side.lookup[..., 0]))
        torch.testing.assert_close(side.attention.sum(-1), torch.ones_like(side.attention[..., 0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_returns_float32_under_autocast(dtype):
    urfm = URFM(5, (3, 3), 6, (2, 4), num_centers=4, dim=16, num_heads=2)
    student = features(2, 5, (3, 3), dtype=torch.float32)
    teacher = features(2, 6, (2, 4), prompts=2, dtype=torch.float32)
    plain = urfm(student, teacher)
    with torch.autocast("cpu", dtype):
        low = urfm(student, teacher)
    for side in ("student", "teacher"):
        for name in ("h", "attended", "attention", "lookup"):
            value = getattr(getattr(low, side), name)
            assert value.dtype == torch.float32
            torch.testing.assert_close(
                value, getattr(getattr(plain, side), name), atol=0.05, rtol=0.05
            )
        # Probabilities that were rounded to half precision would not sum to one this closely.
        total = getattr(low, side).attention.sum(-1)
        torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)


def test_the_state_holds_what_is_learned_and_nothing_else():
    urfm = small()
    assert set(urfm.state_dict()) == {name for name, _ in urfm.named_parameters()}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_centers": 50}, "49 and 64"),
        ({"dim": 10, "num_heads": 4}, "multiple of urfm.num_heads 4"),
        ({"saliency_map": "x.npy"}, "face_distance"),
        ({"saliency_map": "x.npy", "face_distance": "saliency"}, "no such file"),
    ],
)
def test_impossible_settings_are_an_error(settings, said):
    with pytest.raises(ConfigError, match=said):
        URFM(5, (3, 3), 6, (2, 4), **settings)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"num_centres": 49}, "num_centers"),
        ({"face_distance": "euclid"}, "relative"),
        ({"position": "key"}, "query_key"),
        ({"face_weight": -1.0}, "at least 0"),
        ({"pif": {"alpha": 1.0, "beta": 0.2, "gamma": 8.0}}, "raise beta"),
        ({"pif": {"alpha": 1.0, "beta": 2.0}}, "gamma"),
    ],
)
def test_a_misspelt_or_impossible_entry_is_an_error(entry, said):
    with pytest.raises(ConfigError, match=said):
        check_settings(URFM, entry, "cakd.urfm")


def test_an_entry_becomes_a_module():
    entry = {"pif": {"alpha": 1, "beta": 3, "gamma": 8}, "face_distance": None, "num_centers": 4}
    urfm = URFM(5, (3, 3), 6, (2, 4), **check_settings(URFM, entry, "cakd.urfm"))
    assert urfm.student.pair_encoding.pif == PIFSettings(1.0, 3.0, 8.0)
    assert (urfm.dim, urfm.num_centers) == (256, 4)
    assert SECTIONS.get("urfm") is URFM
    assert SECTIONS.get("anchoring") is Anchoring


def test_tokens_of_another_grid_are_an_error():
    urfm = small()
    with pytest.raises(ConfigError, match=r"student tokens on a \(3, 3\) grid.*\(2, 2\)"):
        urfm(features(1, 5, (2, 2)), features(1, 6, (2, 4)))
    with pytest.raises(ConfigError, match="teacher tokens"):
        urfm(features(1, 5, (3, 3)), features(1, 6, (4, 2)))
