import numpy as np
import pytest
import torch
from golden.make_crossarch_kd_losses import cases, tokens
from golden.make_feature_losses import inputs, record
from helpers.feature_maps import dims_of, features, fill, pooled, random_maps, value

from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.losses.cakd_liu_loss import (
    CAKDLiuLoss,
    GroupwiseLinear,
    cross_attention_loss,
    partially_crossed,
)
from arcface_cakd.registry import LOSSES


def attention(query, key, val):
    out = np.zeros_like(val)
    for i, q in enumerate(query):
        scores = np.exp([q @ k / np.sqrt(len(q)) for k in key])
        out[i] = sum(s * v for s, v in zip(scores / scores.sum(), val, strict=True))
    return out


def reference(crossed, student_value, teacher, heads=1, value_weight=1.0):
    """Equation 4, one image and head at a time."""
    batch, _, channels = student_value.shape
    attended, products = [], []
    for b in range(batch):
        for columns in np.split(np.arange(channels), heads):
            ours, theirs = ([x[b][:, columns] for x in side] for side in (crossed, teacher))
            attended.append((attention(*ours) - attention(*theirs)) ** 2)
            v_s, v_t = student_value[b][:, columns], theirs[2]
            root = np.sqrt(len(columns))
            products.append((v_s @ v_s.T / root - v_t @ v_t.T / root) ** 2)
    return np.mean(attended) + value_weight * np.mean(products)


@pytest.mark.parametrize(
    ("batch", "positions", "channels", "heads", "weight"),
    [(1, 2, 3, 1, 1.0), (2, 9, 6, 2, 0.25), (3, 4, 8, 4, 0.0)],
)
def test_attention_part_equals_a_float64_reference(batch, positions, channels, heads, weight):
    crossed = random_maps(1, *[(batch, positions, channels)] * 3)
    teacher = random_maps(2, *[(batch, positions, channels)] * 3)
    (val,) = random_maps(3, (batch, positions, channels))
    arrays = [x.numpy() for x in crossed], val.numpy(), [x.numpy() for x in teacher]
    found = cross_attention_loss(crossed, val, teacher, heads, weight)
    assert found.item() == pytest.approx(reference(*arrays, heads, weight), rel=1e-12)


def test_attention_part_is_zero_at_equality_and_float32():
    x = [torch.randn(2, 4, 6).half() for _ in range(3)]
    with torch.autocast("cpu", torch.bfloat16):
        found = cross_attention_loss(x, x[2], x, 2)
    assert found.item() == 0 and found.dtype == torch.float32


def test_gradients_equal_finite_differences():
    x = torch.randn(2, 3, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: cross_attention_loss(list(x[0]), x[0, 2], list(x[1]), 2), x
    )


@pytest.mark.parametrize("replace", [0.0, 0.3, 0.5, 1.0])
def test_replaces_entries_as_often_as_the_setting_says(replace):
    found = partially_crossed(torch.zeros(8, 49, 64), torch.ones(8, 49, 64), replace)
    assert set(found.unique().tolist()) <= {0.0, 1.0}
    assert found.mean().item() == pytest.approx(replace, abs=0.01)
    if 0 < replace < 1:  # entries by themselves: neither rows nor columns go together
        assert found.mean(2).std() < 0.1 and found.mean(1).std() < 0.1


@pytest.mark.parametrize(
    ("grid", "side", "layers"), [((7, 7), 4, 4), ((14, 14), 4, 16), ((3, 5), 2, 6)]
)
def test_neighbours_share_a_linear_layer(grid, side, layers):
    linear = GroupwiseLinear(3, 2, grid, side).double()
    weights = [(p.weight, p.bias) for p in linear.modules() if isinstance(p, torch.nn.Linear)]
    assert len(weights) == layers
    (x,) = random_maps(1, (2, 3, *grid))
    expected = np.empty((2, 2, *grid))
    across = -(-grid[1] // side)
    for i, j in np.ndindex(*grid):
        weight, bias = weights[(i // side) * across + j // side]
        column = x.numpy()[:, :, i, j]
        expected[:, :, i, j] = column @ weight.detach().numpy().T + bias.detach().numpy()
    np.testing.assert_allclose(linear(x).detach(), expected, atol=1e-12)


def module(student, teacher, **settings):
    settings = check_settings(CAKDLiuLoss, settings, "cakd.losses[0]")
    return CAKDLiuLoss(dims_of(student, teacher), **settings).double()


def convolve(x, layer):
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.empty((len(x), len(weight), *x.shape[2:]))
    for i, j in np.ndindex(x.shape[2:]):
        out[:, :, i, j] = (
            np.einsum("bchw,ochw->bo", padded[:, :, i : i + 3, j : j + 3], weight) + bias
        )
    return out


def as_tokens(x):
    return x.reshape(*x.shape[:2], -1).transpose(0, 2, 1)


@pytest.mark.parametrize(
    ("student", "teacher", "settings"),
    [
        ((2, 3, 5, 5), (2, 6, 5, 5), {}),
        ((2, 3, 6, 6), (2, 4, 3, 3), {"num_heads": 2, "neighbourhood": 2}),
        ((1, 5, 3, 3), (1, 6, 6, 6), {"value_weight": 0.5, "linear_weight": 2.0}),
    ],
)
def test_module_in_eval_equals_a_float64_reference(student, teacher, settings):
    ours, theirs = random_maps(1, student, teacher)
    sides = features(ours), features(theirs)
    loss = module(*sides, **settings).eval()
    fill(loss.parameters(), 2)
    grid = tuple(np.minimum(student[2:], teacher[2:]))
    ours, theirs = pooled(ours.numpy(), grid), pooled(theirs.numpy(), grid)
    qkv = [as_tokens(convolve(ours, layer)) for layer in loss.qkv]
    tokens = as_tokens(theirs)
    centred = tokens - tokens.mean(2, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(2, keepdims=True) + 1e-5)
    expected = reference(
        qkv, qkv[2], [normed] * 3, settings.get("num_heads", 1), settings.get("value_weight", 1.0)
    )
    linear = loss.linear(torch.from_numpy(ours)).detach().numpy()
    expected += settings.get("linear_weight", 1.0) * ((linear - theirs) ** 2).mean()
    found = [value(loss, *sides).item() for _ in range(2)]
    assert found == [pytest.approx(expected, rel=1e-10)] * 2


def same(case, found):
    for key, recorded in found.items():
        assert recorded == pytest.approx(case[key], rel=1e-9), key


@pytest.mark.parametrize("case", cases("linear"), ids=lambda c: f"{c['student'][1]}-{c['seed']}")
def test_linear_part_equals_published_code(case):
    (student,), (teacher,) = inputs(case["seed"], [case["student"]], [case["teacher"]])
    loss = module(features(student), features(teacher), value_weight=0.0, replace=1.0)
    fill(loss.linear.parameters(), case["seed"])
    # With all replaced the attention is the teacher's, and the linear part is left.
    same(case, record(lambda: value(loss, features(student), features(teacher)), [student]))


@pytest.mark.parametrize(
    "case", cases("attention") + cases("products"), ids=lambda c: f"{c['loss']}-{c['seed']}"
)
def test_attention_part_is_made_of_what_published_code_computes(case):
    """For one head; that code compares other things than the paper's."""
    (student,), (teacher,) = inputs(case["seed"], [case["student"]], [case["teacher"]])
    weights = [torch.empty(3 * x.shape[1], x.shape[1]).double() for x in (student, teacher)]
    for number, weight in enumerate(weights):
        fill([weight], case["seed"] + number)

    def part():
        sides = zip((student, teacher), weights, strict=True)
        ours, theirs = ((tokens(x) @ weight.T).chunk(3, dim=-1) for x, weight in sides)
        without, both = (cross_attention_loss(ours, ours[2], theirs, 1, w) for w in (0.0, 1.0))
        return without if case["loss"] == "attention" else both - without

    same(case, record(part, [student]))


def test_replacing_all_leaves_the_values_and_the_linear_part():
    sides = (features(x) for x in random_maps(1, (2, 3, 4, 4), (2, 6, 4, 4)))
    student, teacher = sides
    loss = module(student, teacher, replace=1.0, value_weight=0.0, linear_weight=0.0)
    assert value(loss, student, teacher).item() == pytest.approx(0, abs=1e-25)
    assert value(loss.eval(), student, teacher).item() > 0


def test_a_seed_repeats_what_is_replaced_and_all_learns():
    ours, theirs = random_maps(1, (2, 3, 7, 7), (2, 6, 7, 7))
    ours.requires_grad_()
    theirs.requires_grad_()
    sides = features(ours), features(theirs)
    loss = module(*sides)

    def drawn(seed):
        torch.manual_seed(seed)
        return value(loss, *sides)

    assert drawn(1).item() == drawn(1).item() != drawn(2).item()
    drawn(1).backward()
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())
    assert ours.grad.abs().sum() > 0 and theirs.grad.abs().sum() > 0


def test_dropout_setting():
    sides = [features(x) for x in random_maps(1, (2, 3, 4, 4), (2, 6, 4, 4))]
    loss = module(*sides, dropout=0.9, replace=1.0, value_weight=0.0)
    assert loss.dropout.p == 0.9
    loss.dropout.p = 1.0
    biases = loss.linear.layers[0][0].bias.detach()
    expected = (sides[1].tokens - biases).square().mean()
    assert value(loss, *sides).item() == pytest.approx(expected.item())


def test_heads():
    for width, heads in ((768, 12), (512, 8), (64, 1), (20, 1)):
        side = features(torch.zeros(1, width, 1, 1))
        assert (
            LOSSES.get("cakd_liu")(dims_of(features(torch.zeros(1, 2, 1, 1)), side)).num_heads
            == heads
        )
    side = features(torch.zeros(1, 6, 2, 2))
    with pytest.raises(ConfigError, match="cakd_liu: num_heads=4 does not divide 6") as error:
        module(side, side, num_heads=4)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="replace must be"):
        module(side, side, replace=2.0)
