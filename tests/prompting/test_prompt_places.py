"""Prompts at chosen places, and teachers whose blocks are recomputed, of every kind."""

import contextlib

import pytest
import torch

from arcface_cakd.backbones import get_model
from arcface_cakd.backbones.swin import Swin
from arcface_cakd.backbones.timm_grid import build
from arcface_cakd.backbones.vit import VisionTransformer
from arcface_cakd.config import CakdConfig
from arcface_cakd.distiller import Distiller
from arcface_cakd.prompting import AdaptablePrompts, PromptingError

KINDS = ("swin", "swin_v2", "arcface_torch", "timm_vit")
PLACES = {"swin": 3, "swin_v2": 3, "arcface_torch": 4, "timm_vit": 4}


def make_teacher(kind, seed=0):
    torch.manual_seed(seed)
    if kind == "swin":
        teacher = Swin(8, (2, 2, 2), (1, 2, 4), patch_size=4, num_features=12)
    elif kind == "swin_v2":
        sizes = dict(depths=(2, 2, 2), num_heads=(1, 2, 4), embed_dim=8)
        teacher = build("swinv2_tiny_window8_256", num_features=12, window_size=7, **sizes)
    elif kind == "arcface_torch":
        teacher = VisionTransformer(12, 16, 4, 2, patch_size=16)
    else:
        sizes = dict(depth=4, embed_dim=16, num_heads=2)
        teacher = build("vit_tiny_patch16_224", num_features=12, **sizes)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return teacher.requires_grad_(False).eval()


def units(teacher):
    """The blocks of each place."""
    trunk = getattr(teacher, "trunk", teacher)
    if hasattr(trunk, "layers"):
        return [list(stage.blocks) for stage in trunk.layers]
    return [[block] for block in trunk.blocks]


def images(batch=2):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, 3, 112, 112, generator=generator) * 2 - 1


def run(teacher, module):
    """Features and the prompts' gradients."""
    got = module(teacher, images(), stages=True)
    steepness = torch.linspace(-1, 1, got.tokens.numel()).view_as(got.tokens)
    (got.tokens * steepness).sum().add(got.prompts.square().sum()).backward()
    gradients = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    return got, gradients


@pytest.mark.parametrize("kind", KINDS)
def test_before_the_first_place_no_graph_is_built(kind):
    teacher = make_teacher(kind)
    last = PLACES[kind] - 1
    module = AdaptablePrompts(teacher, num_tokens=2, places=(last - 1, last))
    building = []
    for place, blocks in enumerate(units(teacher)):
        for block in blocks:  # a norm runs in every block, whichever way the block is called
            block.norm2.register_forward_pre_hook(
                lambda *_, place=place: building.append((place, torch.is_grad_enabled()))
            )
    # Even of a teacher that is not frozen as it should be, nothing is remembered there.
    early = units(teacher)[0][0].norm2.weight.requires_grad_(True)
    got, _ = run(teacher, module)
    assert {place for place, _ in building} == set(range(PLACES[kind]))
    assert all(on == (place >= last - 1) for place, on in building)
    assert [m.requires_grad for m in got.stages] == [i >= last - 1 for i in range(PLACES[kind])]
    assert early.grad is None
    assert got.tokens.requires_grad and got.prompts.requires_grad and got.embedding.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_whole_graph(kind, monkeypatch):
    teacher = make_teacher(kind)
    module = AdaptablePrompts(teacher, num_tokens=2, places=(1, 2))
    got, gradients = run(teacher, module)
    monkeypatch.setattr(torch, "no_grad", contextlib.nullcontext)
    whole, expected = run(teacher, module)
    assert torch.equal(got.tokens, whole.tokens)
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))
    assert all(g.any() for g in gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_before_the_first_place_is_the_plain_teacher(kind):
    teacher = make_teacher(kind)
    plain = teacher.forward_features(images(), stages=True)
    got = AdaptablePrompts(teacher, num_tokens=2, places=[1])(teacher, images(), stages=True)
    torch.testing.assert_close(got.stages[0], plain.stages[0], rtol=0, atol=1e-5)
    assert not torch.allclose(got.stages[1], plain.stages[1], rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("places", [None, (2,)])
def test_beside_the_unprompted_teacher_what_both_share_runs_once(kind, places):
    teacher = make_teacher(kind)
    module = AdaptablePrompts(teacher, num_tokens=2, places=places)
    calls = []
    for place, blocks in enumerate(units(teacher)):
        blocks[0].norm2.register_forward_pre_hook(lambda *_, place=place: calls.append(place))
    prompted, unprompted = module.beside_unprompted(teacher, images(), stages=True)
    runs = [calls.count(place) for place in range(PLACES[kind])]
    first = module.places[0]
    assert runs[:first] == [1] * first and all(run >= 2 for run in runs[first:])
    for got, expected in (
        (prompted, module(teacher, images(), stages=True)),
        (unprompted, teacher.forward_features(images(), stages=True)),
    ):
        assert torch.equal(got.embedding, expected.embedding)
        assert torch.equal(got.tokens, expected.tokens)
        assert len(got.stages) == len(expected.stages) == len(teacher.stage_dims)
        for one, other in zip(got.stages, expected.stages, strict=True):
            assert torch.equal(one, other)
    assert unprompted.prompts is None and not unprompted.embedding.requires_grad
    assert prompted.embedding.requires_grad


@pytest.mark.parametrize("kind", ["swin", "swin_v2"])
def test_a_swin_stage_without_prompts_is_timms_own(kind):
    teacher = make_teacher(kind)
    got = AdaptablePrompts(teacher, num_tokens=2, places=[1])(teacher, images(), stages=True)
    trunk = teacher.trunk
    last = trunk.layers[2](got.stages[1].permute(0, 2, 3, 1))
    torch.testing.assert_close(got.stages[2], last.permute(0, 3, 1, 2), rtol=0, atol=1e-6)
    assert got.prompts.shape == (2, 0, 32)


@pytest.mark.parametrize("kind", KINDS)
def test_recomputing_blocks_changes_memory_alone(kind):
    teacher = make_teacher(kind)
    torch.manual_seed(5)
    plain = AdaptablePrompts(teacher, num_tokens=3, places=(0, 2))
    module = AdaptablePrompts(teacher, num_tokens=3, places=(0, 2), checkpointing=True)
    module.load_state_dict(plain.state_dict())
    calls = []
    for blocks in units(teacher):
        for block in blocks:
            block.norm2.register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        plain(teacher, images())
    once = len(calls)
    expected, gradients = run(teacher, plain)
    assert len(calls) == 2 * once  # not recomputed
    got, others = run(teacher, module)
    assert len(calls) == 4 * once  # each block a second time
    for one, other in zip(
        (got.embedding, got.tokens, got.prompts, *got.stages),
        (expected.embedding, expected.tokens, expected.prompts, *expected.stages),
        strict=True,
    ):
        assert torch.equal(one, other)
    assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))
    with torch.no_grad():
        assert torch.equal(module(teacher, images()).tokens, expected.tokens)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("places", [(), (9,), (1, 1), (-1,)])
def test_places_that_are_none_are_refused(kind, places):
    teacher = make_teacher(kind)
    with pytest.raises(PromptingError, match=f"0 to {PLACES[kind] - 1}") as raised:
        AdaptablePrompts(teacher, places=places)
    message = str(raised.value)
    assert "\n" not in message and str(list(places)) in message
    assert ("stages" if "swin" in kind else "blocks") in message


@pytest.mark.parametrize("kind", KINDS)
def test_every_default_loss_reaches_the_prompts_at_every_place(kind):
    teacher = make_teacher(kind)
    student = get_model("r10_narrow", num_features=12)
    entry = {
        "teacher": {"network": kind, "weights": "random"},
        "prompts": {"num_tokens": 2},
        "urfm": {"num_centers": 9, "num_heads": 2},
        "output_target": "prompted",
    }
    distiller = Distiller(student, teacher, CakdConfig.from_entry(entry)).train()
    distiller(images(4))
    terms = distiller.terms(torch.tensor([0, 1, 2, 0]))
    assert {"embedding_cosine", "urfm_feature", "urfm_attention"} <= terms.keys()
    prompts = list(distiller.prompts.parameters())
    assert len(prompts) == PLACES[kind]
    for name, term in terms.items():
        for gradient in torch.autograd.grad(term, prompts, retain_graph=True):
            assert gradient.isfinite().all() and gradient.any(), name


def test_a_student_learns_where_the_last_stage_carries_no_prompts():
    torch.manual_seed(0)
    student, teacher = (get_model(n, num_features=16) for n in ("r10_narrow", "swin_mini"))
    entry = {
        "teacher": {"network": "swin_mini", "weights": "random"},
        "prompts": {"num_tokens": 2, "places": [1]},
        "urfm": {"num_centers": 9, "num_heads": 2},
    }
    distiller = Distiller(student, teacher, CakdConfig.from_entry(entry)).train()
    distiller(images(4))
    sum(distiller.terms(torch.tensor([0, 1, 2, 0])).values()).backward()
    assert [name for name, _ in distiller.prompts.named_parameters()] == ["prompts.1"]
    assert all(p.grad.any() for p in distiller.prompts.parameters())
