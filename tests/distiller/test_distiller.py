"""Student, frozen teacher, prompts, URFM and losses as one module."""

import copy
import logging

import numpy as np
import pytest
import torch
from helpers.distillers import LABELS, SMALL_URFM, TEACHER, make
from helpers.urfm_forms import LEARNED
from torch.nn import functional as F

from arcface_cakd.backbones import get_model
from arcface_cakd.config import CakdConfig, ConfigError
from arcface_cakd.distiller import Distiller
from arcface_cakd.distiller.description import describe
from arcface_cakd.registry import LOSSES


def test_it_is_the_student_to_its_caller(images):
    distiller = make()
    alone = copy.deepcopy(distiller.student)
    assert torch.equal(distiller(images), alone(images))
    distiller.eval(), alone.eval()
    assert torch.equal(distiller(images), alone(images))


def test_only_the_teacher_stands_still(images):
    distiller = make(preservation={})
    teacher_before = copy.deepcopy(distiller.teacher.state_dict())
    before = {name: p.clone() for name, p in distiller.named_parameters()}
    optimizer = torch.optim.SGD(distiller.parameter_groups(0.1, 0.0))
    for _ in range(3):
        embeddings = distiller(images)
        loss = embeddings.square().mean() + sum(distiller.terms(LABELS).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert not distiller.teacher.training
    for name, value in distiller.teacher.state_dict().items():
        assert torch.equal(value, teacher_before[name]), name
    assert all(p.grad is None for p in distiller.teacher.parameters())
    for name, parameter in distiller.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == parameter.requires_grad, name


def test_its_state_restores_all_that_is_learned(images):
    one, other = make(seed=0), make(seed=5)
    other._frozen = one._frozen
    other.load_state_dict(one.state_dict())
    one(images), other(images)
    torch.manual_seed(7)  # anchoring draws
    restored = other.terms(LABELS)
    torch.manual_seed(7)
    for name, term in one.terms(LABELS).items():
        assert torch.equal(term, restored[name]), name
    assert set(one.student.state_dict()) == set(get_model("r10_narrow").state_dict())


def test_terms_are_weighted_means(images):
    distiller = make(
        losses=[
            {"name": "embedding_cosine", "weight": 3.0},
            {"name": "urfm_feature", "weight": 0.5},
            {"name": "urfm_attention", "weight": 2.0},
            {"name": "embedding_cosine", "weight": 1.0},
        ],
        anchoring={"weight": 0.25},
        preservation={"weight": 4.0},
    )
    embedding = distiller(images)
    torch.manual_seed(7)  # anchoring draws
    terms = {k: float(v.detach()) for k, v in distiller.terms(LABELS).items()}

    with torch.no_grad():
        prompted = distiller.prompts(distiller.teacher, images)
        plain = distiller.teacher(images)
        # The student's BatchNorm is in training mode: its batch statistics repeat.
        student = distiller.student.forward_features(images)
        assert torch.allclose(student.embedding, embedding, atol=1e-6)
        aligned = distiller.urfm(student, prompted)
        # What is the output's is compared without the prompts.
        cosine = (1 - F.cosine_similarity(student.embedding, plain)).mean()
        feature = (aligned.student.attended - aligned.teacher.attended).double().square().mean()
        difference = (aligned.student.attention - aligned.teacher.attention).double()
        attention = difference.square().sum(-1).mean()
        torch.manual_seed(7)
        anchoring = distiller.anchoring(aligned.teacher.attended, plain)
        preserved = (1 - F.cosine_similarity(prompted.embedding, plain)).mean()
    expected = {
        "embedding_cosine": 3.0 * cosine,
        "urfm_feature": 0.5 * feature,
        "urfm_attention": 2.0 * attention,
        "embedding_cosine_2": cosine,
        "anchoring": 0.25 * anchoring,
        "preservation": 4.0 * preserved,
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name] == pytest.approx(float(value), rel=1e-4, abs=1e-7), name


@pytest.mark.parametrize("kind, factors", [("warmup", [0, 0.5, 1, 1]), ("decay", [1, 0.5, 0, 0])])
def test_weights_follow_their_schedule_and_so_after_resuming(images, kind, factors):
    schedule = {"kind": kind, "steps": 2}
    losses = [{"name": "embedding_cosine", "weight": 3.0, "schedule": schedule}]
    scheduled = make(losses=losses)
    constant = make(losses=[{"name": "embedding_cosine", "weight": 3.0}])
    for done, factor in enumerate(factors):
        if done == 1:  # stop, and go on from the state
            state = scheduled.state_dict()
            scheduled = make(losses=losses)
            scheduled.load_state_dict(state)
        scheduled(images)
        term = scheduled.terms(LABELS)["embedding_cosine"]
        constant(images)
        whole = constant.terms(LABELS)["embedding_cosine"]
        assert term.item() == pytest.approx(factor * whole.item(), rel=1e-5)
        # A weight of 0 still gives a gradient: a static graph has the same one every step.
        term.backward()
        assert all(p.grad is not None for p in scheduled.student.parameters() if p.requires_grad)


def test_terms_take_one_forward_each(images):
    distiller = make()
    with pytest.raises(RuntimeError, match="forward in training mode"):
        distiller.terms(LABELS)
    distiller(images)
    distiller.terms(LABELS)
    with pytest.raises(RuntimeError, match="forward in training mode"):
        distiller.terms(LABELS)
    distiller.eval()(images)
    with pytest.raises(RuntimeError, match="forward in training mode"):
        distiller.terms(LABELS)


def test_parameter_groups_split_all_that_trains():
    distiller = make(lr_scale={"prompts": 10.0, "urfm": 0.5}, weight_decay={"prompts": 0.1})
    groups = {group["name"]: group for group in distiller.parameter_groups(0.2, 5e-4)}
    assert list(groups) == ["student", "prompts", "urfm"]
    assert [g["lr"] for g in groups.values()] == pytest.approx([0.2, 2.0, 0.1])
    assert [g["weight_decay"] for g in groups.values()] == [5e-4, 0.1, 5e-4]
    grouped = [id(p) for group in groups.values() for p in group["params"]]
    trained = [id(p) for p in distiller.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(trained)
    assert {id(p) for p in groups["prompts"]["params"]} == {
        id(p) for p in distiller.prompts.parameters()
    }


def test_gradient_norms_are_those_of_each_term_alone(images):
    distiller = make()
    distiller(images)
    terms = distiller.terms(LABELS)
    norms = distiller.gradient_norms(terms)
    assert norms["anchoring"] == 0.0  # it is the teacher side's
    for name, term in terms.items():
        distiller.zero_grad()
        term.backward(retain_graph=True)
        squares = [
            p.grad.double().square().sum()
            for p in distiller.student.parameters()
            if p.grad is not None
        ]
        expected = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
        assert norms[name] == pytest.approx(expected, rel=1e-5), name
    assert all(norms[name] > 0 for name in ("embedding_cosine", "urfm_feature", "urfm_attention"))


@pytest.mark.parametrize("anchoring", [{}, None])
def test_diagnostics_are_of_the_last_step(images, anchoring):
    distiller = make(anchoring=anchoring)
    assert distiller.diagnostics() == {}
    distiller(images)
    distiller.terms(LABELS)
    figures = distiller.diagnostics()
    with torch.no_grad():
        prompted = distiller.prompts(distiller.teacher, images)
        plain = distiller.teacher(images)
        local = distiller.urfm(distiller.student.forward_features(images), prompted).teacher
    cosine = F.cosine_similarity(prompted.embedding, plain).mean()
    assert figures["prompted_cosine"] == pytest.approx(float(cosine), abs=1e-6)
    assert figures["prompted_cosine"] < 0.99999  # prompts do something
    for name, features in (("teacher_rank", local.h), ("attended_rank", local.attended)):
        flat = features.double().flatten(0, 1).numpy()
        spectrum = np.linalg.svd(flat, compute_uv=False)
        shares = spectrum / spectrum.sum()
        rank = np.exp(-(shares * np.log(shares + 1e-30)).sum())
        assert figures[name] == pytest.approx(rank, rel=1e-3), name


@pytest.mark.parametrize("target", ["unprompted", "prompted"])
def test_losses_at_the_output_reach_prompts_only_where_the_entry_says_so(images, target):
    losses = [{"name": "embedding_cosine"}, {"name": "urfm_feature"}]
    distiller = make(losses=losses, output_target=target, preservation=None, anchoring=None)
    distiller(images)
    terms = distiller.terms(LABELS)
    prompts = list(distiller.prompts.parameters())
    for name, reaches in (("embedding_cosine", target == "prompted"), ("urfm_feature", True)):
        found = torch.autograd.grad(terms[name], prompts, retain_graph=True, allow_unused=True)
        assert all((g is not None and bool(g.any())) == reaches for g in found), name


def test_figures_tell_how_l_feat_compares_with_a_constant_and_how_large_prompts_are(images):
    prompts = {"num_tokens": 2, "feedback": True}
    distiller = make(urfm={**SMALL_URFM, **LEARNED, "dim": 16}, prompts=prompts)
    with torch.no_grad():
        distiller.prompts.prompts["1"][0] = 3.0
    distiller(images)
    distiller.terms(LABELS)
    figures = distiller.diagnostics()
    with torch.no_grad():
        prompted = distiller.prompts(distiller.teacher, images)
        both = distiller.urfm(distiller.student.forward_features(images), prompted)
    target = both.teacher.attended.double().numpy()
    constant = ((target - target.mean(0)) ** 2).mean()
    feature = ((both.student.attended.double().numpy() - target) ** 2).mean()
    assert figures["constant_feature"] == pytest.approx(constant, rel=1e-4)
    assert figures["feature_ratio"] == pytest.approx(feature / constant, rel=1e-4)
    lookups = [side.lookup.double().numpy() for side in (both.student, both.teacher)]
    assert figures["prompt_attention"] == pytest.approx(
        lookups[1][..., 49:].sum(-1).mean(), rel=1e-4
    )
    on_patches = lookups[1][..., :49] / lookups[1][..., :49].sum(-1, keepdims=True)
    variation = np.abs(lookups[0] - on_patches).sum(-1).mean() / 2
    assert figures["lookup_variation"] == pytest.approx(variation, rel=1e-4)
    prompts = distiller.prompts.prompts.values()  # of a feedback's weights it says nothing
    norms = [np.linalg.norm(p.detach().numpy(), axis=1) for p in prompts]
    assert figures["prompt_norm"] == pytest.approx(np.concatenate(norms).max(), rel=1e-5)


ALONE = {"prompts": None, "urfm": None, "losses": [{"name": "embedding_cosine"}]}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, []),
        ({"losses": [{"name": "embedding_cosine"}], "urfm": None}, ["cakd.prompts learn nothing"]),
        (
            {"losses": [{"name": "rkd"}], "urfm": None, "output_target": "prompted"},
            [],
        ),
        ({"losses": [{"name": "fitnet"}], "urfm": None}, []),
        ({"losses": [{"name": "fitnet"}]}, ["cakd.urfm trains nothing of the student"]),
        (
            {"losses": [{"name": "rkd"}, {"name": "urfm_feature", "weight": 0.0}]},
            ["cakd.urfm trains nothing of the student"],
        ),
        ({"prompts": {"num_tokens": 0}}, ["cakd.prompts and cakd.preservation have no effect"]),
        (
            {"prompts": None, "output_target": "prompted"},
            ['output_target="prompted" has no effect'],
        ),
        (
            {"prompts": None, "urfm": {**SMALL_URFM, "prompt_tokens": "detached"}},
            ["cakd.urfm.prompt_tokens='detached' has no effect"],
        ),
        ({"urfm": {**SMALL_URFM, "prompt_tokens": "detached"}}, []),
        ({"urfm": {**SMALL_URFM, "anchor": "center"}}, ["cakd.urfm.anchor='center' has no effect"]),
        ({"losses": [], "urfm": None, "prompts": None}, ["the teacher teaches nothing"]),
        ({"teacher": {**TEACHER, "centers": "x"}}, ["cakd.teacher.centers has no effect"]),
        (
            {"prompts": None, "lr_scale": {"prompts": 2.0}, "weight_decay": {"prompts": 0.1}},
            ["cakd.lr_scale.prompts=2 has no", "cakd.weight_decay.prompts=0.1 has no effect"],
        ),
        ({"lr_scale": {"prompts": 2.0, "urfm": 2.0}}, []),
        (
            {**ALONE, "lr_scale": {"urfm": 2.0}, "teacher": {**TEACHER, "stage": 0}},
            ["cakd.teacher.stage has no effect", "cakd.lr_scale.urfm=2 has no effect"],
        ),
        (
            {"losses": [{"name": "urfm_feature"}], "output_target": "prompted"},
            ['output_target="prompted" has no effect: no loss looks at'],
        ),
        (
            {
                "prompts": {"num_tokens": 2, "places": [0]},
                "urfm": {**SMALL_URFM, "prompt_tokens": "detached"},
            },
            ["cakd.urfm.prompt_tokens='detached' has no effect: no prompts enter"],
        ),
        (
            {
                "losses": [{"name": "urfm_feature"}],
                "urfm": {"num_centers": 1},
                "anchoring": {"drop": 0.9},
            },
            ["cakd.anchoring.drop=0.9 has no effect"],
        ),
        ({"losses": [{"name": "urfm_feature"}], "urfm": {"num_centers": 1}}, []),
        (
            {**ALONE, "losses": [{"name": "rkd", "schedule": {"kind": "decay", "floor": 1.0}}]},
            ["loss 'rkd': its schedule has no effect"],
        ),
        (
            {**ALONE, "losses": [{"name": "rkd", "schedule": {"kind": "warmup", "steps": 41}}]},
            ["loss 'rkd' never gets its whole weight"],
        ),
        ({**ALONE, "losses": [{"name": "rkd", "schedule": {"kind": "warmup", "steps": 40}}]}, []),
        (
            {
                **ALONE,
                "teacher": {**TEACHER, "centers": "from_data"},
                "losses": [{"name": "kd", "standardise": True, "scale": 3.0}],
                "num_classes": 5,
            },
            ["loss 'kd': scale=3 has no effect"],
        ),
        (
            {
                **ALONE,
                "losses": [{"name": "adadistill", "kind": "cos", "gradient": "straight_through"}],
                "num_classes": 5,
            },
            ["loss 'adadistill': gradient='straight_through' has no effect"],
        ),
        (
            {
                "losses": [{"name": "fitnet", "schedule": {"kind": "decay"}}],
                "urfm": None,
                "run_steps": None,
            },
            ["the weights of fitnet stay what they are"],
        ),
        (
            {"losses": [{"name": "rkd", "weight": 0.0}], "urfm": None, "prompts": None},
            ["the teacher teaches nothing"],
        ),
    ],
)
def test_what_is_asked_for_without_effect_is_said(entry, said, caplog):
    distiller = make(**entry)
    with caplog.at_level("INFO"):
        distiller.announce(logging.getLogger("test"))
    first, *warned = caplog.records
    assert first.getMessage() == describe(distiller)
    assert len(warned) == len(said) and all(record.levelname == "WARNING" for record in warned)
    for record, start in zip(warned, said, strict=True):
        assert start in record.getMessage()


def test_the_first_line_says_what_is_on():
    assert describe(make()) == (
        "distilling from swin_mini: margin softmax x 1, embedding_cosine x 64, "
        "urfm_feature x 100 falling to 0 of it over 40 steps, urfm_attention x 1, anchoring x 1, "
        "preservation x 64; URFM 9 local centres of width 128; prompts 2 at each of 3 places"
    )
    rival = make(losses=[{"name": "rkd", "weight": 2}], prompts=None, urfm=None, margin_weight=0.5)
    assert describe(rival) == (
        "distilling from swin_mini: margin softmax x 0.5, rkd x 2; URFM off; prompts off"
    )


def test_a_loss_that_needs_urfm_says_so():
    with pytest.raises(ConfigError, match=r"cakd\.urfm is None: set cakd\.urfm=edict\(\)"):
        make(urfm=None, losses=[{"name": "urfm_feature"}])


def test_embeddings_of_other_width_need_a_projection(images):
    with pytest.raises(ConfigError, match="projection=True"):
        make(teacher_width=48)
    distiller = make(teacher_width=48, losses=[{"name": "embedding_cosine", "projection": True}])
    distiller(images)
    assert distiller.terms(LABELS)["embedding_cosine"].requires_grad


def test_it_takes_the_entry_as_a_user_writes_it():
    student, teacher = get_model("r10_narrow"), get_model("swin_mini")
    entry = {"teacher": TEACHER, "urfm": None, "prompts": None}
    assert Distiller(student, teacher, entry).config == CakdConfig.from_entry(entry)


def test_what_is_no_loss_is_refused(monkeypatch):
    monkeypatch.setattr(LOSSES, "_components", {**LOSSES._components, "odd": lambda dims: dims})
    with pytest.raises(ConfigError, match="'odd' is a FeatureDims, not a DistillationLoss"):
        make(losses=[{"name": "odd"}])


def test_the_student_starts_from_given_weights(tmp_path):
    start = get_model("r10_narrow", num_features=32)
    torch.save(start.state_dict(), tmp_path / "model.pt")
    distiller = make(student_weights=str(tmp_path / "model.pt"))
    for name, value in start.state_dict().items():
        assert torch.equal(distiller.student.state_dict()[name], value)


def test_patches_stand_where_they_are_on_the_crop():
    entry = {"teacher": TEACHER, "prompts": None, "urfm": SMALL_URFM}
    student, teacher = (get_model(name, num_features=8) for name in ("r10_narrow", "vit_t"))
    places = Distiller(student, teacher, CakdConfig.from_entry(entry)).urfm.layout.places
    centers = 9 * np.arange(12) + 4  # patches of 9 pixels, from pixel 0, cover 108 of 112
    x, y = np.meshgrid(centers, centers)
    np.testing.assert_allclose(places["teacher"], np.stack([x, y], -1).reshape(-1, 2))
    assert float(places["student"].max()) == 103.5  # the middle of pixels 96 to 111
