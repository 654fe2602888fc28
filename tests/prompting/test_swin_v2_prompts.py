"""APT on Swin v2, held against loops over images, windows and heads."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from arcface_cakd.backbones.timm_grid import build
from arcface_cakd.prompting import AdaptablePrompts, swin
from arcface_cakd.prompting.swin import attention_bias, prompted_block


def make_teacher(seed=0, dtype=torch.float32, window=7):
    """A small frozen Swin v2 whose every weight and statistic differs from its initial value."""
    torch.manual_seed(seed)
    sizes = dict(depths=(2, 2, 2), num_heads=(1, 2, 4), embed_dim=8, window_size=window)
    if window != 7:  # such as tile no grid: timm 1.0.9 builds them only so
        sizes["strict_img_size"] = False
    teacher = build("swinv2_tiny_window8_256", num_features=12, **sizes)
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            if parameter.dim() == 1 or "logit_scale" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
            elif "feature" not in name:
                parameter.copy_(torch.randn_like(parameter) / math.sqrt(parameter[0].numel()))
        for name, buffer in teacher.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return teacher.requires_grad_(False).eval().to(dtype)


def make_images(batch, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 112, 112, generator=generator, dtype=dtype).clamp(-1, 1)


def make_block(side, window, shift, heads, dim, seed, qkv_bias=True):
    from timm.models.swin_transformer_v2 import SwinTransformerV2Block

    torch.manual_seed(seed)
    block = SwinTransformerV2Block(
        dim, (side, side), heads, window_size=window, shift_size=shift, qkv_bias=qkv_bias
    ).double()
    for name, parameter in block.named_parameters():
        nn.init.normal_(parameter, std=0.5)
        if "logit_scale" in name:  # some above the clamp at ln 100
            nn.init.uniform_(parameter, 1.0, 6.0)
    # timm makes its table of coordinates in float32.
    block.attn.relative_coords_table.copy_(_coordinates(window))
    return block.requires_grad_(False).eval()


def _coordinates(window):
    steps = 8 * torch.arange(1.0 - window, window, dtype=torch.float64) / max(window - 1, 1)
    steps = steps.sign() * (steps.abs() + 1).log2() / 3
    rows, columns = steps.view(-1, 1), steps.view(1, -1)
    return torch.stack(torch.broadcast_tensors(rows, columns), dim=-1)


# An independent reference: loops, numpy, one image, one window and one head at a time.


def _linear(layer, x):
    return x @ layer.weight.numpy().T + (0 if layer.bias is None else layer.bias.numpy())


def _norm(layer, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + layer.eps)
    return x * layer.weight.numpy() + layer.bias.numpy()


def _mlp(block, x):
    hidden = _linear(block.mlp.fc1, x)
    hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    return x + _norm(block.norm2, _linear(block.mlp.fc2, hidden))


def _bias(attn, rows, columns, window, head):
    """Of one relative position: an MLP of its logarithmic coordinates, 8 at the window's edge."""
    x = np.array([rows, columns]) * 8 / max(window - 1, 1)
    x = np.sign(x) * np.log2(np.abs(x) + 1) / math.log2(8)
    hidden = np.maximum(_linear(attn.cpb_mlp[0], x), 0)
    return 16 / (1 + math.exp(-_linear(attn.cpb_mlp[2], hidden)[head]))


def reference_block(block, patches, prompts):
    """One block over (B, H, W, C) patches and (B, t, C) prompts, in float64."""
    attn = block.attn
    batch, side, _, dim = patches.shape
    t = prompts.shape[1]
    window, shift = block.window_size[0], block.shift_size[0]
    size = -(-side // window) * window  # windows that do not tile the grid stand over its edge
    heads, d = attn.num_heads, dim // attn.num_heads
    scale = np.minimum(np.exp(attn.logit_scale.numpy().ravel()), 100)
    biases = {
        (r, c, head): _bias(attn, r, c, window, head)
        for r in range(1 - window, window)
        for c in range(1 - window, window)
        for head in range(heads)
    }
    new_patches, new_prompts = np.empty_like(patches), np.empty_like(prompts)
    for image in range(batch):
        change = np.empty((side, side, dim))
        prompt_changes = []
        for top in range(0, side, window):
            for left in range(0, side, window):
                # Places in the rolled map, and where they came from.
                rolled = [(top + i, left + j) for i in range(window) for j in range(window)]
                source = [
                    ((r + shift) % side, (c + shift) % side) if max(r, c) < side else None
                    for r, c in rolled
                ]
                empty = np.zeros(dim)
                own = [empty if place is None else patches[image][place] for place in source]
                tokens = np.stack([*prompts[image], *own])
                q, k, v = np.split(_linear(attn.qkv, tokens), 3, axis=-1)
                if attn.q_bias is not None:
                    q, v = q + attn.q_bias.numpy(), v + attn.v_bias.numpy()
                out = np.empty((len(tokens), dim))
                for head in range(heads):
                    part = slice(head * d, (head + 1) * d)
                    for asks in range(len(tokens)):
                        logits = k[:, part] @ q[asks, part] * scale[head]
                        # Without a bias, the key of a place over the edge is zero.
                        logits /= np.maximum(np.linalg.norm(k[:, part], axis=1), 1e-12)
                        logits /= max(np.linalg.norm(q[asks, part]), 1e-12)
                        for asked in range(len(tokens)):
                            if asks < t or asked < t:
                                continue
                            (r1, c1), (r2, c2) = rolled[asks - t], rolled[asked - t]
                            logits[asked] += biases[r1 - r2, c1 - c2, head]
                            if shift and any(
                                # Neighbours in a window, but only by the roll over the edge.
                                (a < size - shift) != (b < size - shift)
                                for a, b in ((r1, r2), (c1, c2))
                            ):
                                logits[asked] -= 100.0
                        weights = np.exp(logits - logits.max())
                        out[asks, part] = weights @ v[:, part] / weights.sum()
                out = _linear(attn.proj, out)
                prompt_changes.append(out[:t])
                for place, token in zip(source, out[t:], strict=True):
                    if place is not None:
                        change[place] = token
        new_patches[image] = _mlp(block, patches[image] + _norm(block.norm1, change))
        told = np.mean(prompt_changes, axis=0)
        new_prompts[image] = _mlp(block, prompts[image] + _norm(block.norm1, told))
    return new_patches, new_prompts


@pytest.mark.parametrize(
    ("side", "window", "shift", "heads", "dim", "t", "qkv_bias"),
    [
        (6, 3, 1, 2, 8, 2, True),
        (6, 3, 0, 1, 4, 3, False),
        (3, 3, 0, 2, 4, 5, True),
        # Windows that do not tile the grid.
        (7, 3, 1, 2, 4, 2, True),
        (5, 3, 0, 1, 4, 3, False),
    ],
)
def test_block_equals_loops_over_images_windows_and_heads(
    side, window, shift, heads, dim, t, qkv_bias
):
    planned = side - side % window  # timm 1.0.9 builds no others
    block = make_block(planned, window, shift, heads, dim, seed=side + t, qkv_bias=qkv_bias)
    patches = torch.randn(2, side, side, dim, dtype=torch.float64)
    prompts = torch.randn(2, t, dim, dtype=torch.float64)
    got = prompted_block(block, patches, prompts, attention_bias(block, (side, side), t))
    expected = reference_block(block, patches.numpy(), prompts.numpy())
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, torch.from_numpy(other), rtol=0, atol=1e-10)


@pytest.mark.parametrize("shift", [0, 1])
def test_block_without_prompts_is_timms(shift):
    block = make_block(6, 3, shift, heads=2, dim=8, seed=0)
    patches = torch.randn(2, 6, 6, 8, dtype=torch.float64)
    bias = attention_bias(block, (6, 6), 0)
    got, none = prompted_block(block, patches, patches.new_empty(2, 0, 8), bias)
    torch.testing.assert_close(got, block(patches), rtol=0, atol=1e-12)
    assert none.shape == (2, 0, 8)


# The whole teacher.


def parts(features):
    return (features.embedding, features.tokens, *features.stages)


def test_no_tokens_is_the_plain_teacher():
    teacher = make_teacher()
    images = make_images(2)
    plain = teacher.forward_features(images, stages=True)
    got = AdaptablePrompts(teacher, num_tokens=0)(teacher, images, stages=True)
    assert all(torch.equal(a, b) for a, b in zip(parts(got), parts(plain), strict=True))
    assert got.prompts.shape == (2, 0, 32)


@pytest.mark.parametrize("window", [7, 8])
def test_prompts_that_no_patch_sees_leave_the_plain_teacher(window, monkeypatch):
    def deaf(block, grid, num_tokens, dtype):
        bias = attention_bias(block, grid, num_tokens, dtype).clone()
        bias[:, num_tokens:, :num_tokens] = -torch.inf
        return bias

    monkeypatch.setattr(swin, "attention_bias", deaf)
    teacher = make_teacher(dtype=torch.float64, window=window)
    images = make_images(2, dtype=torch.float64)
    plain = teacher.forward_features(images, stages=True)
    got = AdaptablePrompts(teacher, num_tokens=3).double()(teacher, images, stages=True)
    for one, other in zip(parts(got), parts(plain), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_whole_pass_is_the_blocks_with_fresh_prompts_after_each_merging():
    teacher = make_teacher(dtype=torch.float64)
    module = AdaptablePrompts(teacher, num_tokens=2).double()
    images = make_images(2, dtype=torch.float64)
    trunk = teacher.trunk
    patches = trunk.patch_embed(images)
    for stage, learned in zip(trunk.layers, module.prompts.values(), strict=True):
        patches = stage.downsample(patches)
        prompts = torch.stack([learned, learned])
        for block in stage.blocks:
            bias = attention_bias(block, patches.shape[1:3], 2)
            patches, prompts = prompted_block(block, patches, prompts, bias)
    got = module(teacher, images)
    torch.testing.assert_close(got.prompts, trunk.norm(prompts), rtol=0, atol=1e-11)
    torch.testing.assert_close(got.tokens, trunk.norm(patches).flatten(1, 2), rtol=0, atol=1e-11)
    embedding = teacher.feature(trunk.norm(patches).permute(0, 3, 1, 2))
    torch.testing.assert_close(got.embedding, embedding, rtol=0, atol=1e-11)


def test_changing_one_image_changes_no_other_exactly():
    teacher = make_teacher()
    module = AdaptablePrompts(teacher, num_tokens=3)
    images = make_images(4)
    with torch.no_grad():
        before = module(teacher, images, stages=True)
        images[2] = make_images(1, seed=9)[0]
        after = module(teacher, images, stages=True)
    for one, other in zip(
        (*parts(before), before.prompts), (*parts(after), after.prompts), strict=True
    ):
        assert torch.equal(one[[0, 1, 3]], other[[0, 1, 3]])
        assert not torch.equal(one[2], other[2])


def test_only_prompts_learn():
    teacher = make_teacher()
    module = AdaptablePrompts(teacher, num_tokens=4)
    before = copy.deepcopy(teacher.state_dict())
    images = make_images(2)
    plain = teacher.forward_features(images)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05, weight_decay=0.0)
    losses = []
    for _ in range(20):
        got = module(teacher, images)
        loss = (got.tokens[0] - got.tokens[1]).square().mean().neg()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert (module(teacher, images).tokens - plain.tokens).norm() > 0.01 * plain.tokens.norm()
    assert all(p.grad.any() for p in module.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    after = teacher.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("window", [7, 8])
def test_gradients_equal_finite_differences(window):
    teacher = make_teacher(seed=4, dtype=torch.float64, window=window)
    module = AdaptablePrompts(teacher, num_tokens=2).double()
    images = make_images(2, dtype=torch.float64)
    mix = [torch.randn(2, 49, 32), torch.randn(2, 2, 32), torch.randn(2, 12)]

    def objective():
        got = module(teacher, images)
        parts = (got.tokens, got.prompts, got.embedding)
        return sum((part * weight).sum() for part, weight in zip(parts, mix, strict=True))

    objective().backward()
    step = 1e-6
    for prompt in module.prompts.values():
        for _ in range(2):
            direction = torch.randn_like(prompt)
            values = []
            with torch.no_grad():
                for sign in (1, -2, 1):  # to +step, to -step, and back
                    prompt.add_(direction, alpha=sign * step)
                    values.append(objective().item())
            expected = (values[0] - values[1]) / (2 * step)
            assert (prompt.grad * direction).sum().item() == pytest.approx(expected, rel=1e-4)


def test_teachers_precision_holds_and_float32_comes_out():
    teacher = make_teacher()
    module = AdaptablePrompts(teacher, num_tokens=3)
    images = make_images(2)
    full = module(teacher, images, stages=True)
    teacher.amp_dtype = torch.bfloat16
    half = module(teacher, images, stages=True)
    for one, other in zip((*parts(half), half.prompts), (*parts(full), full.prompts), strict=True):
        assert one.dtype == torch.float32
        assert not torch.equal(one, other)
        assert (one - other).norm() < 0.1 * other.norm()
    half.tokens.square().mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in module.parameters())


def test_new_teacher_weights_are_noticed():
    teacher = make_teacher(seed=0)
    module = AdaptablePrompts(teacher, num_tokens=2)
    images = make_images(1)
    module(teacher, images)
    teacher.load_state_dict(make_teacher(seed=5).state_dict())
    fresh = AdaptablePrompts(teacher, num_tokens=2)
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(module(teacher, images).tokens, fresh(teacher, images).tokens)
