import math

import numpy as np
import pytest
import torch
from helpers.face_distances import row_of
from helpers.urfm_forms import LEARNED, OURS
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


# As by default, but for the prompts, of which small() has some.
OURS_WITH_PROMPTS = {**OURS, "dim": None, "prompt_tokens": "learned"}


def small(**settings):
    """All learned by default, at widths that differ."""
    defaults = {"num_centers": 4, "dim": 8, "num_heads": 2, **LEARNED}
    return URFM(5, (3, 3), 6, (2, 4), **{**defaults, **settings}).double()


# --- the reference: numpy, float64, one image, head, centre and token at a time


def standardised(features, norm, training):
    """(B, N + t, C): by the mean and biased variance of the batch's patches, or by running ones."""
    x = features.tokens.numpy()
    places, channels = x.shape[1:]
    mean, variance = np.zeros((places, channels)), np.zeros((places, channels))
    whole = [np.zeros(channels), np.zeros(channels)]  # of each channel, over all places
    running = [getattr(norm.norm, f"running_{name}").numpy() for name in ("mean", "var")]
    for c in range(channels):
        if training:
            whole[0][c], whole[1][c] = x[:, :, c].mean(), x[:, :, c].var()
        elif norm.by_place:
            means, variances = (r.reshape(places, channels)[:, c] for r in running)
            whole[0][c], whole[1][c] = means.mean(), variances.mean() + means.var()
        else:
            whole[0][c], whole[1][c] = running[0][c], running[1][c]
        for n in range(places):
            if not norm.by_place:
                mean[n, c], variance[n, c] = whole[0][c], whole[1][c]
            elif training:
                mean[n, c], variance[n, c] = x[:, n, c].mean(), x[:, n, c].var()
            else:
                mean[n, c], variance[n, c] = (r.reshape(places, channels)[n, c] for r in running)
    out = (x - mean) / np.sqrt(variance + 1e-5)
    if features.prompts is not None and norm.prompt_tokens != "none":
        prompts = (features.prompts.numpy() - whole[0]) / np.sqrt(whole[1] + 1e-5)
        out = np.concatenate([out, prompts], axis=1)
    return out


def layer_norm(x):
    return (x - x.mean()) / math.sqrt(x.var() + 1e-5)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def reference_mapping(p, sequence, num_tokens, shape, to_anchors, to_patches, pifs):
    """h (L, d) and lookup (heads, L, N + t) of one image; D and constants are given."""
    num_centers, dim, num_heads = shape
    f = sequence
    if "project.weight" in p:
        f = np.array([p["project.weight"] @ x + p["project.bias"] for x in sequence])
    values = sequence if p["values"] == "tokens" else f
    if p["values"] == "learned":
        values = np.array([p["value.weight"] @ x for x in f])
    width = dim // num_heads
    h = np.zeros((num_centers, dim))
    lookup = np.zeros((num_heads, num_centers, len(sequence)))
    for i in range(num_centers):
        query = None
        if "query.weight" in p:
            query = p["query.weight"] @ p["centers"][i]
            for a in range(to_anchors.shape[1]):
                query = query + p["anchor_encoding.table"][a, row_of(to_anchors[i, a], pifs[0])]
        for head in range(num_heads):
            part = slice(head * width, (head + 1) * width)
            logits = np.zeros(len(sequence))
            for j in range(len(sequence)):
                if query is not None:
                    key = p["key.weight"] @ f[j]
                    logits[j] = query[part] @ key[part] / math.sqrt(width)
                if to_patches is not None and j < num_tokens:
                    row = row_of(to_patches[i, j], pifs[1])
                    logits[j] += p["pair_encoding.table"][head, row]
            lookup[head, i] = softmax(logits)
            for j in range(len(sequence)):
                h[i, part] += lookup[head, i, j] * values[j][part]
    return h, lookup


def reference_msa(p, h, num_heads, residual):
    num_centers, dim = h.shape
    width = dim // num_heads
    x = np.array([layer_norm(row) for row in h])
    q, k, v = np.split(x @ p["qkv.weight"].T, 3, axis=1)
    maps = np.zeros((num_heads, num_centers, num_centers))
    joined = np.zeros((num_centers, dim))
    for head in range(num_heads):
        part = slice(head * width, (head + 1) * width)
        for i in range(num_centers):
            logits = [q[i, part] @ k[j, part] / math.sqrt(width) for j in range(num_centers)]
            maps[head, i] = softmax(np.array(logits))
            for j in range(num_centers):
                joined[i, part] += maps[head, i, j] * v[j, part]
    joined = joined @ p["out.weight"].T + (x if residual else 0)
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
        # Ours, one choice after the other, then together.
        (((3, 3), (2, 2)), (112, 112), 4, 2, 2, {"lookup": "position"}),
        (((3, 3), (4, 2)), (112, 108), 4, 2, 2, {"shared_lookup": True}),
        (((3, 3), (2, 2)), (112, 112), 4, 2, 2, {"shared_lookup": True, "stop_gradient": False}),
        (((3, 3), (2, 2)), (112, 112), 4, 2, 2, {"fixed_values": True}),
        (((3, 3), (2, 2)), (112, 112), 4, 2, 2, {"standardise": "place"}),
        (((3, 3), (2, 2)), (112, 112), 4, 2, 2, {"prompt_tokens": "none"}),
        (((3, 3), (2, 2)), (112, 112), 4, 2, 2, {"prompt_tokens": "detached"}),
        (((3, 3), (2, 2)), (112, 112), 4, 2, 2, {"residual": True}),
        (((7, 7), (12, 12)), (112, 108), 9, 4, 2, OURS),
        (((3, 3), (2, 2)), (112, 112), 12, 2, 2, {**OURS, "placing": "landmarks"}),
        (((3, 3), (2, 2)), (112, 112), 4, 2, 2, {**OURS, "prompt_tokens": "learned"}),
    ],
)
def test_equals_brute_force(grids, extents, num_centers, num_heads, prompts, settings, training):
    settings = {**LEARNED, **settings}
    urfm = URFM(
        5, grids[0], 8, grids[1], *extents, num_centers=num_centers, dim=8, num_heads=num_heads,
        **settings,
    ).double().train(training)  # fmt: skip
    with torch.no_grad():
        for parameter in urfm.parameters():  # biases and gains of their own too
            parameter += 0.3 * torch.randn_like(parameter)
        for norm in (urfm.student_norm.norm, urfm.teacher_norm.norm):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
    student, teacher = features(3, 5, grids[0]), features(3, 8, grids[1], prompts)
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
        in_use = to_patches.flatten()
        if settings["shared_lookup"]:
            both_sides = [patches(g, e) for g, e in zip(grids, extents, strict=True)]
            in_use = [facial_distance(centers, p, kind, weight).flatten() for p in both_sides]
            in_use = torch.cat(in_use)
        pifs = [settings.get("pif") or PIFSettings.spread(d) for d in (to_anchors, in_use)]
        if settings.get("position") == "query":
            to_patches = None
        values = "learned"
        if settings["fixed_values"]:
            values = "tokens" if side is both.teacher else "projected"
        for image in range(3):
            h, lookup = reference_mapping(
                # What is shared is the teacher's.
                {**arrays(urfm.teacher), "values": values, **arrays(mapping)}
                if side is both.student
                else {"values": values, **arrays(mapping)},
                sequences[image],
                given.tokens.shape[1],
                (num_centers, 8, num_heads),
                to_anchors.numpy(),
                None if to_patches is None else to_patches.numpy(),
                pifs,
            )
            attended, maps = reference_msa(arrays(msa), h, num_heads, settings["residual"])
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
    settings = {**LEARNED, "position": position, "face_distance": face_distance}
    urfm = URFM(5, (7, 7), 6, (7, 7), dim=8, num_heads=2, **settings).double()
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
    sides = ((urfm.student_norm.norm, student.tokens), (urfm.teacher_norm.norm, teacher.tokens))
    for norm, tokens in sides:  # prompts have no part in them
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
@pytest.mark.parametrize("form", [{}, OURS_WITH_PROMPTS])
def test_a_common_mean_changes_nothing(form, dtype, atol):
    urfm = small(**form).to(dtype)
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
    urfm = URFM(24, (7, 7), 48, (7, 7), num_centers=16, dim=32, num_heads=4, **LEARNED)
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
    settings = {**LEARNED, "num_heads": heads, "face_distance": kind}
    urfm = URFM(5, (7, 7), 6, (12, 12), 112, 108, dim=8, **settings)
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


@pytest.mark.parametrize("residual", [True, False])
def test_whatever_the_msa_learns_it_has_no_constant_that_all_faces_share(residual):
    for msa in (
        small(residual=residual).msa,
        small(shared_msa=False, residual=residual).teacher_msa,
    ):
        with torch.no_grad():
            for parameter in msa.parameters():
                parameter.normal_()
        h = torch.randn(3, 4, 8).double()
        # An odd function of values and residual: faces whose h are opposite share nothing.
        attended, maps = msa(h)
        both = attended + msa(-h)[0]
        assert torch.equal(maps, msa(-h)[1])
        torch.testing.assert_close(both, torch.zeros_like(both))


def test_rows_that_no_pair_falls_into_are_finite_and_unused():
    pif = PIFSettings(4.0, 8.0, 32.0)
    settings = {**LEARNED, "face_distance": None, "pif": pif}
    urfm = URFM(5, (3, 3), 6, (7, 7), num_centers=9, dim=8, num_heads=2, **settings)
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
@pytest.mark.parametrize("form", [{"position": "query"}, {}, OURS_WITH_PROMPTS])
def test_gradients_of_tokens_and_prompts_equal_finite_differences(form, stop_gradient):
    urfm = small(**form, stop_gradient=stop_gradient)
    student, teacher = features(2, 5, (3, 3)), features(2, 6, (2, 4), prompts=2)
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


@pytest.mark.parametrize("form", [{}, OURS_WITH_PROMPTS])
def test_gradients_of_all_parameters_equal_finite_differences(form):
    urfm = small(**form, stop_gradient=False, shared_msa=False)
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
@pytest.mark.parametrize("form", [{}, OURS_WITH_PROMPTS])
def test_what_the_alignment_may_move(form, stop_gradient, shared_msa, prompts):
    urfm = small(**form, stop_gradient=stop_gradient, shared_msa=shared_msa)
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
@pytest.mark.parametrize("form", [{}, OURS_WITH_PROMPTS])
def test_anchoring_moves_the_teacher_side_and_its_msa(form, stop_gradient, shared_msa, prompts):
    urfm = small(**form, stop_gradient=stop_gradient, shared_msa=shared_msa)
    anchoring = Anchoring(urfm.dim, 4, 3).double()
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
@pytest.mark.parametrize("form", [{}, OURS_WITH_PROMPTS])
def test_stop_gradient_changes_no_value(form, prompts, shared_msa):
    open_ = small(**form, stop_gradient=False, shared_msa=shared_msa)
    closed = small(**form, stop_gradient=True, shared_msa=shared_msa)
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
    urfm = URFM(5, (3, 3), 6, (2, 4), num_centers=4, dim=16, num_heads=2, **LEARNED)
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
    urfm = URFM(5, (3, 3), 6, (2, 4), num_centers=4, dim=16, num_heads=2, **LEARNED)
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
        ({"dim": 10, "num_heads": 4, "fixed_values": False}, "multiple of urfm.num_heads 4"),
        ({"num_heads": 4}, "urfm.dim 6 must be a multiple"),
        ({"dim": 8}, "width of the teacher's tokens, 6: leave it out, or set urfm.fixed_values"),
        ({"position": "query"}, 'set urfm.position="query_key", or urfm.lookup="content"'),
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
        ({"lookup": "contents"}, "'position' or 'content'"),
        ({"standardise": "places"}, "'place' or 'channel'"),
        ({"prompt_tokens": None}, "'none' or 'detached' or 'learned'"),
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
    assert (urfm.dim, urfm.num_centers, urfm.msa.num_heads) == (6, 4, 6)
    wide = URFM(5, (3, 3), 100, (2, 4))
    assert (wide.dim, wide.msa.num_heads) == (100, 5)  # the most, up to 8, that divide it
    assert SECTIONS.get("urfm") is URFM
    assert SECTIONS.get("anchoring") is Anchoring


@pytest.mark.parametrize("prompts", [0, 2])
def test_a_single_image_is_standardised_by_running_statistics_where_places_have_their_own(prompts):
    urfm = small(**OURS_WITH_PROMPTS)
    urfm(features(4, 5, (3, 3)), features(4, 6, (2, 4), prompts))
    mean, variance = (
        getattr(urfm.teacher_norm.norm, f"running_{name}").view(8, 6).clone()
        for name in ("mean", "var")
    )
    one = features(1, 6, (2, 4), prompts)
    standard = urfm.teacher_norm(one)[:, :8]
    torch.testing.assert_close(standard, (one.tokens - mean) / (variance + 1e-5).sqrt())
    assert torch.equal(urfm.teacher_norm.norm.running_mean.view(8, 6), mean)
    assert urfm(features(1, 5, (3, 3)), one).student.attended.isfinite().all()


def test_both_sides_look_at_the_same_places_whatever_is_learned():
    urfm = URFM(5, (7, 7), 6, (7, 7), num_centers=9, num_heads=2).double()
    with torch.no_grad():
        for parameter in urfm.parameters():
            parameter.normal_()
    both = urfm(features(3, 5, (7, 7)), features(3, 6, (7, 7)))
    assert torch.equal(both.student.lookup, both.teacher.lookup)
    assert both.student.lookup.shape == (3, 2, 9, 49)


def test_settings_that_go_by_content_alone_say_so_where_the_lookup_does_not():
    assert not URFM(5, (3, 3), 6, (2, 4), anchor="nose").without_effect
    assert not small(anchor="center", shared_centers=True).without_effect
    for settings, start in (
        ({"lookup": "content", "position": "query", "shared_lookup": False}, "shared_lookup=False"),
        ({"face_distance": None, "face_weight": 7.0}, "face_weight=7"),
        (
            {"face_distance": "saliency", "face_weight": 0.0, "saliency_map": "teacher"},
            "saliency_map",
        ),
    ):
        (line,) = URFM(5, (3, 3), 6, (2, 4), **settings).without_effect
        assert line.startswith(f"cakd.urfm.{start} has no effect")
    lines = URFM(5, (3, 3), 6, (2, 4), anchor="center", shared_centers=True).without_effect
    assert [line.split("=")[0] for line in lines] == [
        "cakd.urfm.anchor",
        "cakd.urfm.shared_centers",
    ]


def test_tokens_of_another_grid_are_an_error():
    urfm = small()
    with pytest.raises(ConfigError, match=r"student tokens on a \(3, 3\) grid.*\(2, 2\)"):
        urfm(features(1, 5, (2, 2)), features(1, 6, (2, 4)))
    with pytest.raises(ConfigError, match="teacher tokens"):
        urfm(features(1, 5, (3, 3)), features(1, 6, (4, 2)))
