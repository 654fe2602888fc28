"""APT on Swin, held against loops over images, windows and heads."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from arcface_cakd.backbones import get_model
from arcface_cakd.backbones.swin import Swin
from arcface_cakd.backbones.timm_grid import TimmGrid, build
from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.prompting import AdaptablePrompts, PromptingError, swin
from arcface_cakd.prompting.swin import attention_bias, prompted_block
from arcface_cakd.registry import SECTIONS

DIMS = (8, 16, 32)


def make_teacher(seed: int = 0, dtype: torch.dtype = torch.float32) -> Swin:
    """A small frozen Swin whose every weight and statistic differs from its initial value."""
    torch.manual_seed(seed)
    teacher = Swin(8, (2, 2, 2), (1, 2, 4), patch_size=4, num_features=12)
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            elif "feature" not in name and "table" not in name:
                parameter.copy_(torch.randn_like(parameter) / math.sqrt(parameter[0].numel()))
            elif "table" in name:
                parameter.copy_(torch.randn_like(parameter))
        for name, buffer in teacher.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.2)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return teacher.requires_grad_(False).eval().to(dtype)


def make_timm_teacher() -> TimmGrid:
    """timm's own, whose grids are 28, 14, 7 and 4; windows of 5 tile none of the first three."""
    sizes = dict(depths=(2, 2, 2, 2), embed_dim=24, window_size=5)
    teacher = build("swin_tiny_patch4_window7_224", num_features=8, **sizes)
    return teacher.requires_grad_(False).eval()


def make_images(batch: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 112, 112, generator=generator, dtype=dtype).clamp(-1, 1)


def make_block(side: int, window: int, shift: int, heads: int, dim: int, seed: int) -> nn.Module:
    from timm.models.swin_transformer import SwinTransformerBlock

    torch.manual_seed(seed)
    block = SwinTransformerBlock(
        dim, (side, side), num_heads=heads, window_size=window, shift_size=shift
    )
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block.requires_grad_(False).eval().double()


# An independent reference: loops, numpy, one image, one window and one head at a time.


def _linear(layer, x):
    return x @ layer.weight.numpy().T + layer.bias.numpy()


def _norm(layer, x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + layer.eps) * layer.weight.numpy() + (
        layer.bias.numpy()
    )


def _gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _mlp(block, x):
    return x + _linear(block.mlp.fc2, _gelu(_linear(block.mlp.fc1, _norm(block.norm2, x))))


def reference_block(block, patches, prompts):
    """One block over (B, H, W, C) patches and (B, t, C) prompts, in float64."""
    attn = block.attn
    batch, side, _, dim = patches.shape
    t = prompts.shape[1]
    window, shift = block.window_size[0], block.shift_size[0]
    size = -(-side // window) * window  # windows that do not tile the grid stand over its edge
    heads, d = attn.num_heads, dim // attn.num_heads
    table = attn.relative_position_bias_table.numpy()
    new_patches, new_prompts = np.empty_like(patches), np.empty_like(prompts)
    for image in range(batch):
        x, p = _norm(block.norm1, patches[image]), _norm(block.norm1, prompts[image])
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
                own = [empty if place is None else x[place] for place in source]
                tokens = np.stack([*p, *own])
                q, k, v = np.split(_linear(attn.qkv, tokens), 3, axis=-1)
                out = np.empty((len(tokens), dim))
                for head in range(heads):
                    part = slice(head * d, (head + 1) * d)
                    for asks in range(len(tokens)):
                        logits = k[:, part] @ q[asks, part] / math.sqrt(d)
                        for asked in range(len(tokens)):
                            if asks < t or asked < t:
                                continue
                            (r1, c1), (r2, c2) = rolled[asks - t], rolled[asked - t]
                            row = (r1 - r2 + window - 1) * (2 * window - 1)
                            logits[asked] += table[row + c1 - c2 + window - 1, head]
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
        new_patches[image] = _mlp(block, patches[image] + change)
        new_prompts[image] = _mlp(block, prompts[image] + np.mean(prompt_changes, axis=0))
    return new_patches, new_prompts


@pytest.mark.parametrize(
    ("side", "window", "shift", "heads", "dim", "t", "batch"),
    [
        (6, 3, 1, 2, 8, 2, 3),
        (6, 3, 0, 1, 4, 3, 2),
        (8, 4, 2, 3, 12, 1, 2),
        (3, 3, 0, 2, 4, 5, 2),
        # Windows that do not tile the grid.
        (7, 3, 1, 2, 4, 2, 2),
        (5, 3, 0, 1, 4, 3, 2),
        (5, 4, 2, 2, 4, 1, 2),
    ],
)
def test_block_equals_loops_over_images_windows_and_heads(
    side, window, shift, heads, dim, t, batch
):
    block = make_block(side, window, shift, heads, dim, seed=side + t)
    patches = torch.randn(batch, side, side, dim, dtype=torch.float64)
    prompts = torch.randn(batch, t, dim, dtype=torch.float64)
    got = prompted_block(block, patches, prompts, attention_bias(block, (side, side), t))
    expected = reference_block(block, patches.numpy(), prompts.numpy())
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, torch.from_numpy(other), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("side", "shift"), [(6, 1), (6, 0), (7, 1), (7, 0)])
def test_block_without_prompts_is_timms(side, shift):
    block = make_block(side, 3, shift, heads=2, dim=8, seed=0)
    patches = torch.randn(2, side, side, 8, dtype=torch.float64)
    bias = attention_bias(block, (side, side), 0)
    got, none = prompted_block(block, patches, patches.new_empty(2, 0, 8), bias)
    torch.testing.assert_close(got, block(patches), rtol=0, atol=1e-12)
    assert none.shape == (2, 0, 8)


def test_bias_is_zero_for_prompts_and_timms_own_for_patches():
    block = make_block(6, 3, 1, heads=2, dim=8, seed=0)
    bias = attention_bias(block, (6, 6), 2).view(4, 2, 11, 11)
    assert not bias[:, :, :2].any() and not bias[:, :, :, :2].any()
    own = block.attn._get_rel_pos_bias() + block.attn_mask.unsqueeze(1)
    assert torch.equal(bias[:, :, 2:, 2:], own)


# The whole teacher.


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_no_tokens_is_the_plain_teacher(dtype, within):
    teacher = make_teacher(dtype=dtype)
    images = make_images(2, dtype=dtype)
    plain = teacher.forward_features(images, stages=True)
    got = AdaptablePrompts(teacher, num_tokens=0)(teacher, images, stages=True)
    for one, other in zip(
        (got.embedding, got.tokens, *got.stages),
        (plain.embedding, plain.tokens, *plain.stages),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=within)
    assert got.prompts.shape == (2, 0, 32)
    assert got.grid == plain.grid


@pytest.mark.parametrize("make", [make_teacher, make_timm_teacher])
def test_prompts_that_no_patch_sees_leave_the_plain_teacher(make, monkeypatch):
    """The whole prompted pass, with prompts, but cut off from the patches' attention."""

    def deaf(block, grid, num_tokens, dtype):
        bias = attention_bias(block, grid, num_tokens, dtype).clone()
        bias[:, num_tokens:, :num_tokens] = -torch.inf
        return bias

    monkeypatch.setattr(swin, "attention_bias", deaf)
    teacher = make().double()
    images = make_images(2, dtype=torch.float64)
    plain = teacher.forward_features(images, stages=True)
    got = AdaptablePrompts(teacher, num_tokens=3).double()(teacher, images, stages=True)
    for one, other in zip(
        (got.embedding, got.tokens, *got.stages),
        (plain.embedding, plain.tokens, *plain.stages),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_whole_pass_is_the_blocks_with_fresh_prompts_after_each_merging():
    teacher = make_teacher(dtype=torch.float64)
    module = AdaptablePrompts(teacher, num_tokens=2).double()
    images = make_images(2, dtype=torch.float64)
    swin = teacher.trunk
    patches = swin.patch_embed(images)
    maps = []
    for stage, learned in zip(swin.layers, module.prompts.values(), strict=True):
        patches = stage.downsample(patches)
        prompts = torch.stack([learned, learned])
        for block in stage.blocks:
            bias = attention_bias(block, patches.shape[1:3], 2)
            patches, prompts = prompted_block(block, patches, prompts, bias)
        maps.append(patches.permute(0, 3, 1, 2))
    got = module(teacher, images, stages=True)
    patches, prompts = (
        F.layer_norm(x, x.shape[-1:], swin.norm.weight, swin.norm.bias) for x in (patches, prompts)
    )
    torch.testing.assert_close(got.prompts, prompts, rtol=0, atol=1e-12)
    torch.testing.assert_close(got.tokens, patches.flatten(1, 2), rtol=0, atol=1e-12)
    # The head sees patches only.
    embedding = teacher.feature(patches.permute(0, 3, 1, 2))
    torch.testing.assert_close(got.embedding, embedding, rtol=0, atol=1e-12)
    for one, other in zip(got.stages, maps, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("changed", [0, 2])
def test_changing_one_image_changes_no_other_exactly(changed):
    teacher = make_teacher()
    module = AdaptablePrompts(teacher, num_tokens=3)
    images = make_images(4)
    others = [i for i in range(4) if i != changed]
    with torch.no_grad():
        before = module(teacher, images, stages=True)
        images[changed] = make_images(1, seed=9)[0]
        after = module(teacher, images, stages=True)
    for one, other in zip(
        (before.embedding, before.tokens, before.prompts, *before.stages),
        (after.embedding, after.tokens, after.prompts, *after.stages),
        strict=True,
    ):
        assert torch.equal(one[others], other[others])
        assert not torch.equal(one[changed], other[changed])


def test_training_moves_tokens_and_nothing_of_the_teacher():
    teacher = make_teacher()
    module = AdaptablePrompts(teacher, num_tokens=4)
    before = copy.deepcopy(teacher.state_dict())
    images = make_images(4)
    plain = teacher.forward_features(images)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02, weight_decay=0.0)
    losses = []
    for _ in range(50):
        got = module(teacher, images)
        loss = got.tokens.mean(1).var(0).sum().neg() + got.prompts.square().mean() * 0.01
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    got = module(teacher, images)
    assert (got.tokens - plain.tokens).norm() > 0.01 * plain.tokens.norm()
    assert got.tokens.requires_grad and got.embedding.requires_grad and got.prompts.requires_grad
    assert all(p.grad.any() for p in module.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    after = teacher.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_gradients_equal_finite_differences():
    teacher = make_teacher(seed=4, dtype=torch.float64)
    module = AdaptablePrompts(teacher, num_tokens=2).double()
    images = make_images(2, dtype=torch.float64)
    torch.manual_seed(0)
    mix = [torch.randn(2, 49, 32), torch.randn(2, 2, 32), torch.randn(2, 12)]

    def objective():
        got = module(teacher, images)
        parts = (got.tokens, got.prompts, got.embedding)
        return sum((part * weight).sum() for part, weight in zip(parts, mix, strict=True))

    objective().backward()
    step = 1e-5
    for prompt in module.prompts.values():
        for _ in range(3):
            direction = torch.randn_like(prompt)
            values = []
            with torch.no_grad():
                for sign in (1, -2, 1):  # to +step, to -step, and back
                    prompt.add_(direction, alpha=sign * step)
                    values.append(objective().item())
            expected = (values[0] - values[1]) / (2 * step)
            assert (prompt.grad * direction).sum().item() == pytest.approx(expected, rel=1e-6)


def test_fused_attention_equals_eager(monkeypatch):
    def eager(q, k, v, attn_mask, dropout_p, scale):
        return ((q @ k.transpose(-2, -1)) * scale + attn_mask).softmax(-1) @ v

    teacher = make_teacher()
    module = AdaptablePrompts(teacher, num_tokens=5)
    images = make_images(2)
    fused = module(teacher, images)
    fused.tokens.square().sum().backward()
    gradients = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    monkeypatch.setattr(F, "scaled_dot_product_attention", eager)
    other = module(teacher, images)
    other.tokens.square().sum().backward()
    torch.testing.assert_close(fused.tokens, other.tokens, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fused.prompts, other.prompts, rtol=1e-5, atol=1e-5)
    for gradient, p in zip(gradients, module.parameters(), strict=True):
        torch.testing.assert_close(gradient, p.grad, rtol=1e-3, atol=1e-3 * p.grad.abs().max())


def test_teachers_precision_holds_and_float32_comes_out():
    teacher = make_teacher()
    module = AdaptablePrompts(teacher, num_tokens=3)
    images = make_images(2)
    full = module(teacher, images, stages=True)
    teacher.amp_dtype = torch.bfloat16
    half = module(teacher, images, stages=True)
    for one, other in zip(
        (half.embedding, half.tokens, half.prompts, *half.stages),
        (full.embedding, full.tokens, full.prompts, *full.stages),
        strict=True,
    ):
        assert one.dtype == torch.float32
        assert not torch.equal(one, other)
        assert (one - other).norm() < 0.05 * other.norm()
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


@pytest.mark.parametrize("amp_dtype", [None, torch.bfloat16])
def test_what_inference_mode_left_serves_training(amp_dtype):
    teacher = make_teacher()
    teacher.amp_dtype = amp_dtype
    module = AdaptablePrompts(teacher, num_tokens=2)
    with torch.inference_mode():
        module(teacher, make_images(1))
    kept = [held.bias for held in module._route._biases.values()]
    assert len(kept) == 6 and not any(bias.is_inference() for bias in kept)
    module(teacher, make_images(1)).tokens.square().sum().backward()
    assert all(p.grad.any() for p in module.parameters())


def test_dropout_acts_in_training_only():
    teacher = make_teacher()
    module = AdaptablePrompts(teacher, num_tokens=3, dropout=0.5)
    images = make_images(1)
    torch.manual_seed(0)
    first, second = (module(teacher, images).tokens for _ in range(2))
    assert not torch.equal(first, second)
    module.eval()
    first, second = (module(teacher, images).tokens for _ in range(2))
    assert torch.equal(first, second)


def test_prompts_are_all_there_is():
    teacher = make_teacher()
    module = AdaptablePrompts(teacher, num_tokens=5)
    state = module.state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        f"prompts.{i}": (5, dim) for i, dim in enumerate(DIMS)
    }
    assert not any(child is teacher for child in module.modules())
    stored = io.BytesIO()
    torch.save(state, stored)
    stored.seek(0)
    other = AdaptablePrompts(teacher, num_tokens=5)
    other.load_state_dict(torch.load(stored, weights_only=True))
    images = make_images(1)
    assert torch.equal(module(teacher, images).tokens, other(teacher, images).tokens)
    twin = copy.deepcopy(module)  # after a forward pass: what it keeps copies too
    assert torch.equal(module(teacher, images).tokens, twin(teacher, images).tokens)


def test_initial_values_are_uniform_within_vpts_bound():
    teacher = make_teacher()
    torch.manual_seed(0)
    for prompt, dim in zip(
        AdaptablePrompts(teacher, num_tokens=400).prompts.values(), DIMS, strict=True
    ):
        bound = math.sqrt(6 / (3 * 4 * 4 + dim))
        assert 0.99 * bound < prompt.abs().max() <= bound
        assert prompt.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_settings_are_declared():
    component = SECTIONS.get("prompts")
    assert component is AdaptablePrompts
    assert check_settings(component, {}, "cakd.prompts") == {
        "num_tokens": 8,
        "dropout": 0.0,
        "places": None,
        "checkpointing": False,
        "feedback": False,
    }
    assert check_settings(component, {"places": [2, 3]}, "cakd.prompts")["places"] == (2, 3)
    with pytest.raises(ConfigError, match=r"cakd\.prompts\.places must be at least 0"):
        check_settings(component, {"places": [-1]}, "cakd.prompts")
    with pytest.raises(ConfigError, match=r"cakd\.prompts\.num_tokens must be at least 0"):
        check_settings(component, {"num_tokens": -1}, "cakd.prompts")


def test_a_timm_swin_whose_windows_do_not_tile_its_grids_is_prompted_too():
    teacher = make_timm_teacher().double()
    module = AdaptablePrompts(teacher, num_tokens=3).double()
    images = make_images(2, dtype=torch.float64)
    got = module(teacher, images)
    assert got.tokens.shape == (2, 16, 192) and got.prompts.shape == (2, 3, 192)
    got.tokens.square().sum().backward()
    assert all(p.grad.any() for p in module.parameters())


def test_a_timm_swin_is_prompted_too():
    teacher = build("swin_tiny_patch4_window7_224", num_features=8, depths=(1, 1, 2), embed_dim=24)
    teacher.requires_grad_(False).eval()
    images = make_images(1)
    got = AdaptablePrompts(teacher, num_tokens=2)(teacher, images)
    assert got.tokens.shape == (1, 49, 96) and got.prompts.shape == (1, 2, 96)
    plain = AdaptablePrompts(teacher, num_tokens=0)(teacher, images)
    assert torch.equal(plain.tokens, teacher.forward_features(images).tokens)


def _refused(run) -> str:
    with pytest.raises(PromptingError) as raised:
        run()
    assert isinstance(raised.value, ArcfaceCakdError)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_teacher_that_takes_no_prompts_is_refused():
    convolutional = build("mobilenetv3_small_050", num_features=8)
    for teacher in (get_model("r10_narrow", num_features=8), convolutional, nn.Linear(2, 2)):
        message = _refused(lambda teacher=teacher: AdaptablePrompts(teacher))
        assert type(getattr(teacher, "trunk", teacher)).__name__ in message
        assert "swin_t" in message and "vit_s" in message and "cakd.prompts=None" in message


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("vit_relpos_small_patch16_224", dict(depth=1, embed_dim=16, num_heads=2)),
        ("eva02_tiny_patch14_224", dict(depth=1, embed_dim=16, num_heads=2)),  # rotary positions
        ("beit_base_patch16_224", dict(depth=1, embed_dim=16, num_heads=2)),
        ("swinv2_cr_tiny_224", dict(depths=(1, 1), embed_dim=16, num_heads=(1, 2))),
    ],
)
def test_transformers_whose_attention_prompts_do_not_fit_are_refused(name, sizes):
    teacher = build(name, num_features=8, **sizes)
    message = _refused(lambda: AdaptablePrompts(teacher))
    assert type(teacher.trunk).__name__ in message and "absolute positions" in message


def test_images_of_another_size_and_teachers_of_another_width_are_refused():
    teacher = make_teacher()
    module = AdaptablePrompts(teacher, num_tokens=2)
    message = _refused(lambda: module(teacher, torch.zeros(1, 3, 96, 112)))
    assert "112 x 112" in message and "(1, 3, 96, 112)" in message
    wide = Swin(16, (1, 1, 1), (1, 2, 4), patch_size=4, num_features=8)
    message = _refused(lambda: module(wide, make_images(1)))
    assert "[8, 16, 32]" in message and "[16, 32, 64]" in message
