"""Prompts that the gap between student and teacher shifts."""

import numpy as np
import pytest
import torch
from helpers.engine_runs import small_cakd, test_tiny
from helpers.processes import run_ranks

from arcface_cakd import distributed
from arcface_cakd.backbones import get_model
from arcface_cakd.config import ConfigError
from arcface_cakd.distiller import Distiller
from arcface_cakd.prompting import AdaptablePrompts, PromptingError

E = 16


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    return get_model("swin_mini", num_features=E).requires_grad_(False).eval()


def prompts_of(teacher, **settings):
    torch.manual_seed(1)
    return AdaptablePrompts(teacher, num_tokens=2, **settings)


def images(batch=2):
    return torch.rand(batch, 3, 112, 112, generator=torch.Generator().manual_seed(2)) * 2 - 1


def gap(student, teacher):
    """By loops, in float64."""
    pairs = zip(student.double().numpy(), teacher.double().numpy(), strict=True)
    return np.mean([s / np.sqrt(s @ s) - t / np.sqrt(t @ t) for s, t in pairs], axis=0)


def embeddings(count, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, count, E, generator=generator)


def test_the_gap_is_the_mean_difference_of_directions(teacher):
    prompts = prompts_of(teacher, feedback=True)
    assert not prompts.gap.any()
    student, taught = embeddings(5)
    prompts.take_feedback(7 * student, taught)
    np.testing.assert_allclose(prompts.gap, gap(student, taught), atol=1e-6)
    plain = prompts_of(teacher)
    plain.take_feedback(student, taught)
    assert "gap" not in plain.state_dict() and plain.feedback is None


def test_it_shifts_the_prompts_of_each_place_and_learns(teacher):
    prompts, plain = (prompts_of(teacher, feedback=on, places=(0, 2)) for on in (True, False))
    student, taught = embeddings(5)
    prompts.take_feedback(student, taught)
    expected = plain(teacher, images())
    for name in ("embedding", "tokens", "prompts"):  # without effect at first
        found = getattr(prompts(teacher, images()), name)
        assert torch.equal(found, getattr(expected, name))

    with torch.no_grad():
        for place, weight in prompts.feedback.items():
            weight.normal_(std=0.3, generator=torch.Generator().manual_seed(int(place)))
            shift = (weight.numpy() @ prompts.gap.numpy()).reshape(2, -1)
            plain.prompts[place].add_(torch.from_numpy(shift))
    found, expected = prompts(teacher, images()), plain(teacher, images())
    torch.testing.assert_close(found.prompts, expected.prompts, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.embedding, expected.embedding, rtol=1e-4, atol=1e-5)

    prompts.take_feedback(taught, student)  # as the step does before its backward pass
    found.prompts.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in prompts.parameters())


def test_the_gap_is_in_the_state_dict(teacher):
    prompts, fresh = (prompts_of(teacher, feedback=True) for _ in range(2))
    prompts.take_feedback(*embeddings(3))
    fresh.load_state_dict(prompts.state_dict())
    assert torch.equal(fresh.gap, prompts.gap) and fresh.gap.any()


def distilled(**prompts):
    torch.manual_seed(4)
    student, teacher = test_tiny(num_features=E), get_model("swin_mini", num_features=E)
    entry = small_cakd(urfm=None, prompts=dict(num_tokens=2, **prompts))
    return Distiller(student, teacher, entry)


def step_on_this_rank():
    """The gap after a training step on this rank's share of four images."""
    share = 4 // distributed.world_size()
    rows = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    distiller = distilled(feedback=True).train()
    # Statistics of a batch would make an image's embedding depend on the others of its rank.
    distiller.student.eval()
    student = distiller(images(4)[rows]).detach()
    teacher = distiller.prompts(distiller.teacher, images(4)[rows]).embedding.detach()
    sum(distiller.terms(torch.zeros(share, dtype=torch.int64)).values()).backward()
    return distiller.prompts.gap.clone(), student, teacher


def test_a_step_leaves_the_gap_of_all_ranks(tmp_path):
    found, student, teacher = step_on_this_rank()
    np.testing.assert_allclose(found, gap(student, teacher), atol=1e-6)
    for each, *_ in run_ranks(step_on_this_rank, 2, tmp_path):
        torch.testing.assert_close(each, found, rtol=1e-4, atol=1e-6)


def test_what_it_cannot_do_is_refused(teacher):
    with pytest.raises(PromptingError, match="num_tokens=0 leaves none") as error:
        AdaptablePrompts(teacher, num_tokens=0, feedback=True)
    assert "\n" not in str(error.value)
    student = test_tiny(num_features=8)
    entry = small_cakd(
        urfm=None,
        prompts=dict(feedback=True),
        losses=[dict(name="embedding_cosine", projection=True)],
    )
    with pytest.raises(ConfigError, match="width 8, the teacher's 16") as error:
        Distiller(student, teacher, entry)
    assert "\n" not in str(error.value)
