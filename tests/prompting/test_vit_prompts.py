"""APT in plain ViTs, held against numpy: one image and one head at a time."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from arcface_cakd.backbones import get_model
from arcface_cakd.backbones.timm_grid import TimmGrid, build
from arcface_cakd.backbones.vit import VisionTransformer
from arcface_cakd.config import CakdConfig
from arcface_cakd.distiller import Distiller
from arcface_cakd.prompting import AdaptablePrompts, PromptingError

DIM, HEADS, DEPTH = 16, 2, 4
KINDS = ("arcface_torch", "timm", "timm_class", "timm_registers")
PREFIX = {"arcface_torch": 0, "timm": 0, "timm_class": 1, "timm_registers": 3}


def make_teacher(kind, seed=0, dtype=torch.float32, depth=DEPTH, dim=DIM, **settings):
    """A small frozen ViT whose every weight and statistic differs from its initial value."""
    torch.manual_seed(seed)
    if kind == "arcface_torch":
        teacher = VisionTransformer(12, dim, depth, HEADS, patch_size=16, **settings)
    else:
        from timm.models.vision_transformer import VisionTransformer as TimmViT

        trunk = TimmViT(
            img_size=112,
            patch_size=16,
            num_classes=0,
            global_pool="",
            embed_dim=dim,
            depth=depth,
            num_heads=HEADS,
            class_token=PREFIX[kind] > 0,
            reg_tokens=2 if kind == "timm_registers" else 0,
            **settings,
        )
        teacher = TimmGrid(kind, trunk, num_features=12)
    with torch.no_grad():
        for parameter in teacher.parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.randn_like(parameter) / math.sqrt(parameter.shape[1]))
            else:
                parameter.add_(torch.randn_like(parameter) * 0.2)
        for name, buffer in teacher.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.2)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return teacher.requires_grad_(False).eval().to(dtype)


def make_images(batch, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 112, 112, generator=generator, dtype=dtype).clamp(-1, 1)


def parts(features):
    return (features.embedding, features.tokens, features.prompts, *features.stages)


# The reference.


def _linear(state, key, x):
    return x @ state[f"{key}.weight"].T + state.get(f"{key}.bias", 0.0)


def _norm(state, key, x, eps):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    return x * state[f"{key}.weight"] + state[f"{key}.bias"]


def reference_pass(kind, teacher, prompts, image):
    """Final patches, final prompts and the patches after each block, of one image, in float64."""
    trunk = teacher if kind == "arcface_torch" else teacher.trunk
    eps = 1e-5 if kind == "arcface_torch" else 1e-6
    state = {key: value.numpy() for key, value in trunk.state_dict().items()}
    kernel, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    patches = []
    for row in range(7):
        for column in range(7):
            pixels = image[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            patches.append((kernel * pixels).sum((1, 2, 3)) + bias)
    patches = np.stack(patches)
    front = [state[key][0] for key in ("cls_token", "reg_token") if key in state]
    tokens = np.concatenate([*front, patches]) + state["pos_embed"][0]
    prefix, patches = tokens[: PREFIX[kind]], tokens[PREFIX[kind] :]
    carried = np.empty((0, DIM))
    maps = []
    for i in range(DEPTH):
        carried = prompts.get(i, carried)  # fresh ones drop the former ones
        x = np.concatenate([prefix, patches, carried])  # their order is of no importance
        q, k, v = np.split(
            _linear(state, f"blocks.{i}.attn.qkv", _norm(state, f"blocks.{i}.norm1", x, eps)), 3, 1
        )
        out = np.empty_like(x)
        for head in np.split(np.arange(DIM), HEADS):
            for asks in range(len(x)):
                logits = k[:, head] @ q[asks, head] / math.sqrt(DIM // HEADS)
                weights = np.exp(logits - logits.max())
                out[asks, head] = weights @ v[:, head] / weights.sum()
        x = x + _linear(state, f"blocks.{i}.attn.proj", out)
        hidden = _linear(state, f"blocks.{i}.mlp.fc1", _norm(state, f"blocks.{i}.norm2", x, eps))
        if kind == "arcface_torch":
            hidden = np.clip(hidden, 0, 6)
        else:
            hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        x = x + _linear(state, f"blocks.{i}.mlp.fc2", hidden)
        prefix, patches, carried = np.split(x, [PREFIX[kind], PREFIX[kind] + 49])
        maps.append(patches)
    return _norm(state, "norm", patches, eps), _norm(state, "norm", carried, eps), maps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("places", [None, (1, 3), (0,), (2,)])
def test_whole_pass_equals_numpy(kind, places):
    teacher = make_teacher(kind, dtype=torch.float64)
    module = AdaptablePrompts(teacher, num_tokens=3, places=places).double()
    images = make_images(2, dtype=torch.float64)
    got = module(teacher, images, stages=True)
    prompts = {int(place): prompt.detach().numpy() for place, prompt in module.prompts.items()}
    assert sorted(prompts) == list(range(DEPTH) if places is None else places)
    for i, image in enumerate(images.numpy()):
        tokens, carried, maps = reference_pass(kind, teacher, prompts, image)
        close = np.testing.assert_allclose
        close(got.tokens[i].detach(), tokens, rtol=0, atol=1e-11)
        close(got.prompts[i].detach(), carried, rtol=0, atol=1e-11)
        for one, other in zip(got.stages, maps, strict=True):
            close(one[i].detach().flatten(1).T, other, rtol=0, atol=1e-11)
    # The head sees patches only.
    final = got.tokens.transpose(1, 2).unflatten(2, (7, 7))
    torch.testing.assert_close(got.embedding, teacher.head(final), rtol=0, atol=1e-12)
    assert got.grid == (7, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_no_tokens_is_the_plain_teacher(kind):
    teacher = make_teacher(kind)
    images = make_images(2)
    plain = teacher.forward_features(images, stages=True)
    got = AdaptablePrompts(teacher, num_tokens=0)(teacher, images, stages=True)
    assert torch.equal(got.embedding, plain.embedding)
    assert torch.equal(got.tokens, plain.tokens)
    assert all(torch.equal(a, b) for a, b in zip(got.stages, plain.stages, strict=True))
    assert got.prompts.shape == (2, 0, DIM)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [3, 8])
def test_prompts_that_nothing_sees_leave_the_plain_teacher(kind, depth, monkeypatch):
    """The whole prompted pass, with prompts, but cut off from all others' attention."""
    t, prefix = 5, PREFIX[kind]
    fused = F.scaled_dot_product_attention

    def deaf(q, k, v, **settings):
        mask = q.new_zeros(q.shape[-2], k.shape[-2])
        if len(mask) > 49 + prefix:
            mask[:, prefix : prefix + t] = -math.inf
            mask[prefix : prefix + t] = 0
        return fused(q, k, v, **{**settings, "attn_mask": mask})

    teacher = make_teacher(kind, dtype=torch.float64, depth=depth)
    images = make_images(2, dtype=torch.float64)
    plain = teacher.forward_features(images, stages=True)
    module = AdaptablePrompts(teacher, num_tokens=t).double()
    heard = module(teacher, images)
    monkeypatch.setattr(F, "scaled_dot_product_attention", deaf)
    got = module(teacher, images, stages=True)
    for one, other in zip(
        (got.embedding, got.tokens, *got.stages),
        (plain.embedding, plain.tokens, *plain.stages),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)
    assert len(got.stages) == min(depth, 4)
    assert (heard.tokens - plain.tokens).norm() > 1e-3 * plain.tokens.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_changing_one_image_changes_no_other_exactly(kind):
    teacher = make_teacher(kind)
    module = AdaptablePrompts(teacher, num_tokens=3, places=(0, 2))
    images = make_images(4)
    with torch.no_grad():
        before = module(teacher, images, stages=True)
        images[1] = make_images(1, seed=9)[0]
        after = module(teacher, images, stages=True)
    for one, other in zip(parts(before), parts(after), strict=True):
        assert torch.equal(one[[0, 2, 3]], other[[0, 2, 3]])
        assert not torch.equal(one[1], other[1])


@pytest.mark.parametrize("kind", ["arcface_torch", "timm_class"])
def test_training_moves_tokens_and_nothing_of_the_teacher(kind):
    teacher = make_teacher(kind)
    module = AdaptablePrompts(teacher, num_tokens=4)
    before = copy.deepcopy(teacher.state_dict())
    images = make_images(4)
    plain = teacher.forward_features(images)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02, weight_decay=0.0)
    losses = []
    for _ in range(30):
        got = module(teacher, images)
        loss = got.tokens.mean(1).var(0).sum().neg() + got.prompts.square().mean() * 0.01
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    got = module(teacher, images)
    assert (got.tokens - plain.tokens).norm() > 0.01 * plain.tokens.norm()
    assert all(p.grad.any() for p in module.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    after = teacher.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("kind", ["arcface_torch", "timm_registers"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_equal_finite_differences(kind, checkpointing):
    teacher = make_teacher(kind, seed=4, dtype=torch.float64)
    module = AdaptablePrompts(
        teacher, num_tokens=2, places=(1, 2), checkpointing=checkpointing
    ).double()
    images = make_images(2, dtype=torch.float64)
    mix = [torch.randn(2, 49, DIM), torch.randn(2, 2, DIM), torch.randn(2, 12)]

    def objective():
        got = module(teacher, images)
        parts = (got.tokens, got.prompts, got.embedding)
        return sum((part * weight).sum() for part, weight in zip(parts, mix, strict=True))

    objective().backward()
    step = 1e-5
    for prompt in module.parameters():
        for _ in range(3):
            direction = torch.randn_like(prompt)
            values = []
            with torch.no_grad():
                for sign in (1, -2, 1):  # to +step, to -step, and back
                    prompt.add_(direction, alpha=sign * step)
                    values.append(objective().item())
            expected = (values[0] - values[1]) / (2 * step)
            # ReLU6 bends: a unit that crosses a corner within the step costs a little.
            assert (prompt.grad * direction).sum().item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_teachers_precision_holds_and_float32_comes_out(kind):
    teacher = make_teacher(kind)
    module = AdaptablePrompts(teacher, num_tokens=3)
    images = make_images(2)
    full = module(teacher, images, stages=True)
    teacher.amp_dtype = torch.bfloat16
    half = module(teacher, images, stages=True)
    for one, other in zip(parts(half), parts(full), strict=True):
        assert one.dtype == torch.float32
        assert not torch.equal(one, other)
        assert (one - other).norm() < 0.05 * other.norm()
    half.tokens.square().mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in module.parameters())


def test_no_token_is_left_out_even_of_a_teacher_in_training_mode():
    images = make_images(2)
    masking = make_teacher("arcface_torch", drop_path=0.0, mask_ratio=0.5)
    dropping = make_teacher("timm_class", patch_drop_rate=0.5)
    for teacher in (masking, dropping):
        module = AdaptablePrompts(teacher, num_tokens=2)
        expected = module(teacher, images).tokens
        assert torch.equal(module(teacher.train(), images).tokens, expected)
        assert expected.shape == (2, 49, DIM)


@pytest.mark.parametrize("kind", ["arcface_torch", "timm_class"])
def test_prompts_are_all_there_is_within_vpts_bound(kind):
    teacher = make_teacher(kind)
    torch.manual_seed(0)
    module = AdaptablePrompts(teacher, num_tokens=400)
    state = module.state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        f"prompts.{i}": (400, DIM) for i in range(DEPTH)
    }
    bound = math.sqrt(6 / (3 * 16 * 16 + DIM))
    for prompt in state.values():
        assert 0.99 * bound < prompt.abs().max() <= bound
        assert prompt.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    later = AdaptablePrompts(teacher, num_tokens=1, places=(3, 1)).state_dict()
    assert list(later) == ["prompts.1", "prompts.3"]
    deep = AdaptablePrompts(make_teacher(kind, depth=12), num_tokens=1).state_dict()
    assert list(deep) == [f"prompts.{i}" for i in range(12)]


def test_a_hybrids_bound_is_by_the_pixels_that_a_patch_sees():
    sizes = dict(depth=1, embed_dim=DIM, num_heads=HEADS)
    teacher = build("vit_small_r26_s32_224", num_features=8, **sizes).requires_grad_(False).eval()
    assert teacher.grid == (4, 4)  # over 112 pixels, though a patch is 1 of the convolutions' map
    module = AdaptablePrompts(teacher, num_tokens=400)
    assert module.patch_size == (28, 28)
    bound = math.sqrt(6 / (3 * 28 * 28 + DIM))
    assert 0.99 * bound < module.prompts["0"].abs().max() <= bound


@pytest.mark.parametrize("name", ["vit_t", "vit_l_dp005_mask_005", "vit_h"])
def test_arcface_torchs_own_sizes(name):
    with torch.device("meta"):
        teacher = get_model(name).requires_grad_(False).eval()
        module = AdaptablePrompts(teacher, num_tokens=8, checkpointing=True)
        got = module(teacher, torch.zeros(2, 3, 112, 112), stages=True)
        got.tokens.sum().backward()
    assert got.tokens.shape == (2, 144, teacher.token_dim)
    assert got.prompts.shape == (2, 8, teacher.token_dim)
    assert [stage.shape[-1] for stage in got.stages] == [12] * 4
    assert len(module.prompts) == len(teacher.blocks)
    assert all(p.grad is not None for p in module.parameters())


def _refused(run):
    with pytest.raises(PromptingError) as raised:
        run()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_images_and_teachers_of_another_shape_are_refused():
    teacher = make_teacher("arcface_torch")
    module = AdaptablePrompts(teacher, num_tokens=2)
    message = _refused(lambda: module(teacher, torch.zeros(1, 3, 96, 112)))
    assert "112 x 112" in message and "(1, 3, 96, 112)" in message
    images = make_images(1)
    wide = make_teacher("arcface_torch", dim=24)
    assert "[16, 16, 16, 16]" in _refused(lambda: module(wide, images))
    short = make_teacher("timm", depth=3)
    assert "[0, 1, 2, 3]" in _refused(lambda: module(short, images))
    swin = get_model("swin_mini", num_features=8)
    assert "SwinTransformer" in _refused(lambda: module(swin, images))


@pytest.mark.parametrize("prompts", [{"num_tokens": 2}, {"num_tokens": 3, "places": [2]}])
def test_a_student_learns_from_a_prompted_vit(prompts):
    torch.manual_seed(0)
    student = get_model("r10_narrow", num_features=32)
    teacher = get_model("vit_mini", num_features=24)
    entry = {
        "teacher": {"network": "vit_mini", "weights": "random"},
        "prompts": {**prompts, "checkpointing": True},
        "urfm": {"num_centers": 9, "num_heads": 2},
        "losses": [{"name": "urfm_feature"}, {"name": "urfm_attention"}],
        "preservation": {},
    }
    distiller = Distiller(student, teacher, CakdConfig.from_entry(entry)).train()
    frozen = copy.deepcopy(teacher.state_dict())
    before = {name: p.clone() for name, p in distiller.named_parameters()}
    optimizer = torch.optim.AdamW(distiller.parameter_groups(0.01, 0.0))
    labels = torch.tensor([0, 1, 2, 0])
    for _ in range(3):
        embeddings = distiller(make_images(4))
        terms = distiller.terms(labels)
        assert all(term.isfinite() for term in terms.values())
        loss = embeddings.square().mean() + sum(terms.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    places = [name for name in before if name.startswith("prompts.prompts.")]
    assert len(places) == (4 if "places" not in prompts else 1)
    for name, parameter in distiller.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
    assert all(torch.equal(frozen[key], v) for key, v in teacher.state_dict().items())
    assert 0 < distiller.diagnostics()["prompted_cosine"] < 1
