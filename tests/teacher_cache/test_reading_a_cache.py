"""A run from a teacher's cache equals one without, within the rounding of float16."""

import copy
import logging
import pickle

import numpy as np
import pytest
import torch
from helpers.engine_runs import (
    assert_same_state,
    made_face,
    make_faces,
    save_teacher,
    small_cakd,
    small_config,
)

from arcface_cakd.backbones import get_model
from arcface_cakd.engine import checkpoint_path, train
from arcface_cakd.engine.builders import build_run
from arcface_cakd.teacher_cache import TeacherCache, as_features, open_cache

CPU = torch.device("cpu")
EMBEDDING = {"prompts": None, "urfm": None}
URFM = {"prompts": None}
PROMPTS = {"preservation": {}}
STAGES = {**EMBEDDING, "losses": [{"name": "reviewkd"}, {"name": "embedding_cosine"}]}


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return make_faces(tmp_path_factory.mktemp("cache") / "faces")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "model.pt"
    save_teacher(path, seed=1)
    return path


def entry(weights, cache, **rest):
    teacher = {"network": "swin_mini", "weights": str(weights)}
    return small_cakd(teacher={**teacher, "cache": cache and str(cache)}, **rest)


def opened(run):
    return open_cache(run.model, run.loader.views, batch_size=5, num_workers=0)


def test_rows_are_what_the_teacher_says_of_each_image(faces, weights, tmp_path):
    """Against the images as they were made, one at a time, through a teacher of its own."""
    run = build_run(
        small_config(faces, tmp_path, cakd=entry(weights, tmp_path / "c", **STAGES)), CPU
    )
    cache = opened(run)
    teacher = get_model("swin_mini", num_features=16).eval()
    teacher.load_state_dict(torch.load(weights, weights_only=True))
    positions = np.array([35, 0, 17, 17, 8])
    flips = np.array([True, False, True, False, True])
    rows = cache.read(positions, flips, 0)
    assert set(rows) == {"embedding", *(f"stage_{i}" for i in range(len(teacher.stage_dims)))}
    assert {array.dtype for array in rows.values()} == {np.dtype(np.float16)}
    for i, (position, flip) in enumerate(zip(positions.tolist(), flips, strict=True)):
        pixels = made_face(*divmod(position, 6)).astype(np.float32) / 127.5 - 1
        image = torch.from_numpy(np.ascontiguousarray(pixels[:, ::-1] if flip else pixels))
        with torch.no_grad():
            plain = teacher.forward_features(image.permute(2, 0, 1)[None], stages=True)
        expected = {"embedding": plain.embedding} | {
            f"stage_{k}": stage for k, stage in enumerate(plain.stages)
        }
        for name, row in expected.items():
            scale = float(row.abs().max())
            np.testing.assert_allclose(
                rows[name][i], row[0].numpy(), rtol=2**-10, atol=1e-5 * scale, err_msg=name
            )


def terms_and_gradients(model, run, batch, known):
    images, labels, landmarks = batch
    features = None if known is None else as_features(known, model.teacher.grid)
    run.partial_fc.weight.grad = None
    margin = run.partial_fc(model(images, landmarks, features), labels)
    terms = model.all_terms(margin, labels, run.partial_fc)
    sum(terms.values()).backward()
    return terms, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("rest", [EMBEDDING, URFM, PROMPTS, STAGES], ids=str)
@pytest.mark.parametrize("seed", [3, 4])
def test_terms_and_gradients_equal_those_without(faces, weights, tmp_path, rest, seed):
    config = small_config(
        faces,
        tmp_path,
        cakd=entry(weights, tmp_path / "c", **rest),
        network="r10_narrow",
        batch_size=6,
        seed=seed,
    )
    run = build_run(config, CPU)
    run.loader.attach(opened(run))
    run.loader.set_epoch(seed)
    images, labels, landmarks, known = next(iter(run.loader))
    batch = images, labels, landmarks
    other = copy.deepcopy(run.model)  # the forward pass moves running statistics
    other._frozen = run.model._frozen
    live, live_gradients = terms_and_gradients(run.model, run, batch, None)
    kept, kept_gradients = terms_and_gradients(other, run, batch, known)
    assert live.keys() == kept.keys()
    for name, term in live.items():
        assert kept[name].item() == pytest.approx(term.item(), rel=1e-3, abs=1e-5), name
    largest = max(float(g.norm()) for g in live_gradients.values() if g is not None)
    for name, gradient in live_gradients.items():
        if gradient is not None:
            off = float((kept_gradients[name] - gradient).norm())
            assert off <= 1e-2 * float(gradient.norm()) + 1e-4 * largest, name


@pytest.mark.parametrize(
    ("rest", "forwards"), [(EMBEDDING, (0, 0)), (URFM, (0, 0)), (PROMPTS, (0, 1))], ids=str
)
def test_a_step_runs_no_teacher_that_does_not_move(
    faces, weights, tmp_path, monkeypatch, rest, forwards
):
    """Neither the plain one nor, without prompts, any; and so for the figures of a log line."""
    run = build_run(small_config(faces, tmp_path, cakd=entry(weights, tmp_path / "c", **rest)), CPU)
    run.loader.attach(opened(run))
    batch = next(iter(run.loader))
    counts = {"plain": 0, "prompted": 0}

    def counting(kind, function):
        def counted(*args, **kwargs):
            counts[kind] += 1
            return function(*args, **kwargs)

        return counted

    teacher = run.model.teacher
    monkeypatch.setattr(teacher, "body", counting("plain", teacher.body))
    if run.model.prompts is not None:
        route = run.model.prompts._route
        monkeypatch.setattr(route, "run", counting("prompted", route.run), raising=True)
    run.terms(*batch)
    run.model.diagnostics()
    assert (counts["plain"], counts["prompted"]) == forwards
    run.terms(*batch[:3])
    assert counts["plain"] == 1


def test_a_run_from_the_cache_is_near_one_without_and_resumes_to_the_bit(
    faces, weights, tmp_path, caplog
):
    settings = {"save_all_states": True, "frequent": 1}
    cached = entry(weights, tmp_path / "c", **URFM)
    with caplog.at_level(logging.INFO):
        straight = train(small_config(faces, tmp_path / "a", cakd=cached, **settings))
    (line,) = [r.getMessage() for r in caplog.records if "teacher.cache" in r.getMessage()]
    assert "embedding, tokens of 36 images, both flips: 0.91 MB on the disk" in line
    without = train(
        small_config(faces, tmp_path / "w", cakd=entry(weights, None, **URFM), **settings)
    )
    for ours, theirs in zip(straight.history[:5], without.history[:5], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-3)

    for workers in (0, 2):
        more = {**settings, "num_workers": workers}
        output = tmp_path / f"b{workers}"
        train(small_config(faces, output, cakd=cached, **more), stop_after_step=7)
        again = train(small_config(faces, output, cakd=cached, **more, resume=True))
        assert again.global_step == 18
        left, right = (
            torch.load(checkpoint_path(folder), weights_only=True)["state_dict_backbone"]
            for folder in (tmp_path / "a", output)
        )
        assert_same_state(left, right)


def test_a_first_run_draws_the_random_numbers_of_a_later_one(faces, weights, tmp_path):
    cached = entry(weights, tmp_path / "c")  # with prompts; computing comes before them
    results = [
        train(small_config(faces, tmp_path / name, cakd=cached, num_workers=2, num_epoch=1))
        for name in "ab"
    ]
    first, second = (torch.load(r.output / "model.pt", weights_only=True) for r in results)
    assert_same_state(first, second)


def test_it_can_be_handed_to_workers(faces, weights, tmp_path):
    run = build_run(small_config(faces, tmp_path, cakd=entry(weights, tmp_path / "c", **URFM)), CPU)
    cache = opened(run)
    sent = pickle.dumps(cache)
    assert len(sent) < 1000 and isinstance(cache, TeacherCache)
    some = np.arange(6), np.zeros(6, bool), 0
    for name, rows in pickle.loads(sent).read(*some).items():
        np.testing.assert_array_equal(rows, cache.read(*some)[name])


def test_a_step_without_use_for_it_says_so(faces, weights, tmp_path, caplog):
    config = small_config(
        faces, tmp_path, cakd=entry(weights, tmp_path / "c", urfm=None, prompts={"num_tokens": 1})
    )
    assert opened(build_run(config, CPU)) is None
    assert "cakd.teacher.cache has no effect" in caplog.text
    assert not (tmp_path / "c").exists()
