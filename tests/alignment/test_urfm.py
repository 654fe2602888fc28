import math

import numpy as np
import pytest
import torch
from helpers.face_distances import row_of
from torch.nn import functional as F

from arcface_cakd.alignment import URFM, Anchoring, PIFSettings, effective_rank
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


def standardised(features, norm, training):
    """(B, N + t, C): by the mean and biased variance of the batch, or by running ones."""
    x = features.tokens.numpy()
    if features.prompts is not None:
        x = np.concatenate([x, features.prompts.numpy()], axis=1)
    out = np.empty_like(x)
    for c in range(x.shape[2]):
        values = x[:, :, c].ravel()
        mean, variance = values.sum() / len(values), ((values - values.mean()) ** 2).mean()
        if not training:
            mean, variance = norm.norm.running_mean[c].item(), norm.norm.running_var[c].item()
        out[:, :, c] = (x[:, :, c] - mean) / math.sqrt(variance + 1e-5)
    return out


def layer_norm(x, weight=1.0, bias=0.0):
    return (x - x.mean()) / math.sqrt(x.var() + 1e-5) * weight + bias


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def reference_mapping(p, sequence, num_tokens, num_heads, to_anchors, to_patches, pifs):
    """h (L, d) and lookup (heads, L, N + t) of one image; D and constants are given."""
    f = np.array([p["project.weight"] @ x + p["project.bias"] for x in sequence])
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
                if to_patches is not None and j < num_tokens:
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
    joined = joined @ p["out.weight"].T + p["out.bias"]
    return np.array([layer_norm(row) for row in joined]), maps


def arrays(module):
    return {name: value.detach().numpy() for name, value in module.named_parameters()}


@pytest.mark.parametrize("training", [True, False])
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
        (((3, 3), (2, 2)), (112, 112), 4, 2, 2, {"shared_msa": False}),
        (((3, 5), (4, 2)), (112, 112), 12, 2, 1, {"placing": "landmarks"}),
        (((3, 3), (2, 2)), (112, 112), 4, 2, 1, {"shared_centers": True}),
        (((3, 3), (2, 2)), (112, 112), 4, 2, 1, {"position": "query", "anchor": "landmarks"}),
    ],
)
def test_equals_brute_force(grids, extents, num_centers, num_heads, prompts, settings, training):
    urfm = URFM(
        5, grids[0], 6, grids[1], *extents, num_centers=num_centers, dim=8, num_heads=num_heads,
        **settings,
    ).double().train(training)  # fmt: skip
    with torch.no_grad():
        for parameter in urfm.parameters():  # biases and gains of their own too
            parameter += 0.3 * torch.randn_like(parameter)
        for norm in (urfm.student_norm.norm, urfm.teacher_norm.norm):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
    student, teacher = features(2, 5, grids[0]), features(2, 6, grids[1], prompts)
    both = urfm(student, teacher)

    kind, weight = settings.get("face_distance", "relative"), settings.get("face_weight", 1.0)
    centers = center_places(num_centers, settings.get("placing", "grid"))
    to_anchors = facial_distance(
        centers, anchor_places(settings.get("anchor", "nose")), kind, weight
    )
    teacher_msa = urfm.msa if urfm.teacher_msa is None else urfm.teacher_msa
    assert torch.equal(both.anchored, both.teacher.attended)
    for side, norm, mapping, msa, given, grid, extent in (
        (both.student, urfm.student_norm, urfm.student, urfm.msa, student, grids[0], extents[0]),
        (both.teacher, urfm.teacher_norm, urfm.teacher, teacher_msa, teacher, grids[1], extents[1]),
    ):
        sequences = standardised(given, norm, training)
        to_patches = facial_distance(centers, patches(grid, extent), kind, weight)
        pifs = [settings.get("pif") or PIFSettings.spread(d) for d in (to_anchors, to_patches)]
        if settings.get("position") == "query":
            to_patches = None
        for image in range(2):
            h, lookup = reference_mapping(
                # Shared centres are the teacher's.
                {"centers": urfm.teacher.centers.detach().numpy(), **arrays(mapping)},
                sequences[image],
                given.tokens.shape[1],
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


def test_images_of_a_batch_do_not_mix_in_evaluation():
    urfm = small().eval()
    student, teacher = features(3, 5, (3, 3)), features(3, 6, (2, 4), prompts=2)
    other = student.tokens.clone()
    other[1] = torch.randn(9, 5)
    before = urfm(student, teacher).student.attended
    after = urfm(FaceFeatures(student.embedding, other, (3, 3)), teacher).student.attended
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.allclose(before[1], after[1])


@pytest.mark.parametrize("prompts", [0, 2])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_a_training_step_moves_the_running_statistics_once(stop_gradient, prompts):
    urfm = small(stop_gradient=stop_gradient)
    student, teacher = features(3, 5, (3, 3)), features(3, 6, (2, 4), prompts)
    if prompts:
        teacher.prompts.requires_grad_()
    urfm(student, teacher)
    seen = torch.cat([teacher.tokens, *([teacher.prompts] if prompts else [])], dim=1).detach()
    for norm, tokens in ((urfm.student_norm.norm, student.tokens), (urfm.teacher_norm.norm, seen)):
        rows = tokens.flatten(0, 1).numpy()
        assert norm.num_batches_tracked == 1
        np.testing.assert_allclose(norm.running_mean, 0.1 * rows.mean(0), atol=1e-12)
        expected = 0.9 + 0.1 * rows.var(0, ddof=1)
        np.testing.assert_allclose(norm.running_var, expected, atol=1e-12)
    before = urfm.teacher_norm.norm.running_mean.clone()
    urfm.eval()(student, teacher)
    assert torch.equal(urfm.teacher_norm.norm.running_mean, before)


def like_a_trained_transformer(images, grid, width, mean, dtype=torch.float32):
    """Tokens whose common mean has ``mean`` times the standard deviation of the rest."""
    places = grid[0] * grid[1]
    shapes = ((images, 1, width), (1, places, width), (images, places, width))
    rest = sum(torch.randn(shape, dtype=dtype) for shape in shapes)
    return rest + mean * rest.std() * torch.randn(width, dtype=dtype), rest


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
def test_a_common_mean_changes_nothing(dtype, atol):
    urfm = small().to(dtype)
    tokens, rest = like_a_trained_transformer(4, (2, 4), 6, mean=100, dtype=dtype)
    prompts = rest[:, :2] * 3
    student = features(4, 5, (3, 3), dtype=dtype)
    plain = urfm(student, FaceFeatures(None, rest, (2, 4), prompts)).teacher
    shift = tokens[:1, :1] - rest[:1, :1]
    shifted = urfm(student, FaceFeatures(None, tokens, (2, 4), prompts + shift)).teacher
    torch.testing.assert_close(shifted.h, plain.h, atol=atol, rtol=0)
    torch.testing.assert_close(shifted.attention, plain.attention, atol=atol, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_local_features_start_with_a_high_rank_despite_a_common_mean(seed):
    torch.manual_seed(seed)
    urfm = URFM(24, (7, 7), 48, (7, 7), num_centers=16, dim=32, num_heads=4)
    tokens, _ = like_a_trained_transformer(16, (7, 7), 48, mean=14)  # 99.5 % of the power
    student = torch.randn(16, 49, 24)
    with torch.no_grad():
        both = urfm(FaceFeatures(None, student, (7, 7)), FaceFeatures(None, tokens, (7, 7)))
        by_token, _ = urfm.teacher(F.layer_norm(tokens, (48,)))
    assert effective_rank(both.teacher.h) > 16
    assert effective_rank(both.teacher.attended) > 8
    assert effective_rank(by_token) < 5


@pytest.mark.parametrize("heads", [1, 2, 8])
@pytest.mark.parametrize("kind", [None, "relative", "saliency"])
def test_heads_start_with_receptive_fields_of_their_own_size(kind, heads):
    urfm = URFM(5, (7, 7), 6, (12, 12), 112, 108, dim=8, num_heads=heads, face_distance=kind)
    for mapping, grid, extent in ((urfm.student, (7, 7), 112), (urfm.teacher, (12, 12), 108)):
        distance = facial_distance(center_places(49), patches(grid, extent), kind)
        pif = PIFSettings.spread(distance)
        bias = mapping.pair_encoding(num_prompts=2).detach().double().numpy()
        assert (bias[:, :, -2:] == 0).all()
        rows = [row_of(d, pif) for d in distance.flatten().tolist()]
        means = {
            r: np.mean(
                [d for d, at in zip(distance.flatten().tolist(), rows, strict=True) if at == r]
            )
            for r in set(rows)
        }
        for head in range(heads):
            slope = 2.0 if heads == 1 else 2 * (1 / 8) ** (head / (heads - 1))
            expected = [slope * (max(means.values()) - means[r]) for r in rows]
            np.testing.assert_allclose(bias[head, :, :-2].ravel(), expected, rtol=1e-5, atol=1e-6)
        table = mapping.pair_encoding.table.detach()
        used = table[:, sorted(means)]
        assert (used.diff(dim=1) < 0).all()  # farther is weaker


def test_the_msa_starts_without_a_constant_that_all_faces_share():
    for msa in (small().msa, small(shared_msa=False).teacher_msa):
        assert not msa.qkv.bias.any() and not msa.out.bias.any()


def test_rows_that_no_pair_falls_into_are_finite_and_unused():
    pif = PIFSettings(4.0, 8.0, 32.0)
    urfm = URFM(
        5, (3, 3), 6, (7, 7), num_centers=9, dim=8, num_heads=2, face_distance=None, pif=pif
    )
    encoding = urfm.teacher.pair_encoding
    unused = sorted(set(range(pif.rows)) - set(encoding.index.flatten().tolist()))
    assert unused
    assert (encoding.table[:, unused] == 0).all()
    before = encoding()
    with torch.no_grad():
        encoding.table[:, unused] = float("nan")
    assert torch.equal(encoding(), before)


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


def moved(urfm):
    return {n for n, p in urfm.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


@pytest.mark.parametrize("prompts", [0, 2])
@pytest.mark.parametrize("shared_msa", [True, False])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_what_the_alignment_may_move(stop_gradient, shared_msa, prompts):
    urfm = small(stop_gradient=stop_gradient, shared_msa=shared_msa)
    student, teacher = features(2, 5, (3, 3)), features(2, 6, (2, 4), prompts)
    if prompts:
        teacher.prompts.requires_grad_()
    objective(urfm, student, teacher).backward()
    if prompts:
        assert teacher.prompts.grad.abs().sum() > 0  # prompts learn to teach in either case
    # Under stop_gradient the teacher's side, and what it shares, are closed to the alignment.
    closed = ("teacher.", "teacher_msa.", *(["msa."] if shared_msa else []))
    names = {name for name, _ in urfm.named_parameters()}
    if stop_gradient:
        names = {name for name in names if not name.startswith(closed)}
    assert moved(urfm) == names


@pytest.mark.parametrize("prompts", [0, 2])
@pytest.mark.parametrize("shared_msa", [True, False])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_anchoring_moves_the_teacher_side_and_its_msa(stop_gradient, shared_msa, prompts):
    urfm = small(stop_gradient=stop_gradient, shared_msa=shared_msa)
    anchoring = Anchoring(8, 4, 3).double()
    teacher = features(2, 6, (2, 4), prompts)
    if prompts:
        teacher.prompts.requires_grad_()
    both = urfm(features(2, 5, (3, 3)), teacher)
    anchoring(both.anchored, teacher.embedding).backward()
    own = ("teacher.", "msa." if shared_msa else "teacher_msa.")
    assert moved(urfm) == {n for n, _ in urfm.named_parameters() if n.startswith(own)}
    if prompts:
        assert teacher.prompts.grad.abs().sum() > 0


@pytest.mark.parametrize("shared_msa", [True, False])
@pytest.mark.parametrize("prompts", [0, 2])
def test_stop_gradient_changes_no_value(prompts, shared_msa):
    open_ = small(stop_gradient=False, shared_msa=shared_msa)
    closed = small(stop_gradient=True, shared_msa=shared_msa)
    closed.load_state_dict(open_.state_dict())
    student, teacher = features(2, 5, (3, 3)), features(2, 6, (2, 4), prompts)
    if prompts:
        teacher.prompts.requires_grad_()
    a, b = open_(student, teacher), closed(student, teacher)
    torch.testing.assert_close(a.anchored, b.anchored)
    for side in ("student", "teacher"):
        for name in ("h", "attended", "attention", "lookup"):
            torch.testing.assert_close(
                getattr(getattr(a, side), name), getattr(getattr(b, side), name)
            )


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_common_mean_costs_no_precision_under_autocast(dtype):
    urfm = URFM(5, (3, 3), 6, (2, 4), num_centers=4, dim=16, num_heads=2)
    tokens, rest = like_a_trained_transformer(4, (2, 4), 6, mean=100)
    student = features(4, 5, (3, 3), dtype=torch.float32)
    plain = urfm(student, FaceFeatures(None, rest, (2, 4))).teacher.h
    with torch.autocast("cpu", dtype):
        low = urfm(student, FaceFeatures(None, tokens, (2, 4))).teacher.h
    torch.testing.assert_close(low, plain, atol=0.05, rtol=0.05)


def test_the_state_holds_what_is_learned_and_the_running_statistics():
    urfm = small()
    buffers = {
        f"{side}_norm.norm.{name}"
        for side in ("student", "teacher")
        for name in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert set(urfm.state_dict()) == {name for name, _ in urfm.named_parameters()} | buffers
    student, teacher = features(3, 5, (3, 3)), features(3, 6, (2, 4), prompts=2)
    urfm(student, teacher)
    restored = small().eval()
    restored.load_state_dict(urfm.state_dict())
    for given in ("student", "teacher"):
        a, b = urfm.eval()(student, teacher), restored(student, teacher)
        assert torch.equal(getattr(a, given).attended, getattr(b, given).attended)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_centers": 50}, "49 and 64"),
        ({"num_centers": 4, "placing": "landmarks"}, "at least 5"),
        ({"dim": 10, "num_heads": 4}, "multiple of urfm.num_heads 4"),
        ({"saliency_map": "x.npy"}, "face_distance"),
        ({"saliency_map": "teacher"}, "face_distance"),
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
        ({"placing": "rings"}, "'grid' or 'landmarks'"),
        ({"shared_centers": 1}, "bool"),
        ({"anchor": "mouth"}, "nose"),
        ({"num_centers": 0}, "at least 1"),
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
