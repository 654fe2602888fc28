"""A run from a teacher's cache equals one without, within the rounding of float16."""

import copy
import json
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
from arcface_cakd.config import ConfigError
from arcface_cakd.distiller import Distiller
from arcface_cakd.distiller.description import without_effect
from arcface_cakd.engine import checkpoint_path, train
from arcface_cakd.engine.builders import build_run
from arcface_cakd.teacher_cache import CacheError, TeacherCache, as_features, open_cache

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
    path = tmp_path_factory.mktemp("teacher") / "swin_mini.pt"
    save_teacher(path, seed=1)
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "test_tiny.pt"
    save_teacher(path, seed=1, name="test_tiny")
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder that the tests share, each adding what it needs."""
    return tmp_path_factory.mktemp("shared") / "cache"


def entry(weights, cache, **rest):
    teacher = {"network": weights.stem, "weights": str(weights)}
    return small_cakd(teacher={**teacher, "cache": cache and str(cache)}, **rest)


def opened(run):
    return open_cache(run.model, run.loader.views, batch_size=5, num_workers=0)


def test_rows_are_what_the_teacher_says_of_each_image(faces, weights, tmp_path, cache):
    """Against the images as they were made, one at a time, through a teacher of its own."""
    config = small_config(faces, tmp_path, cakd=entry(weights, cache, **STAGES))
    kept = opened(build_run(config, CPU))
    teacher = get_model("swin_mini", num_features=16).eval()
    teacher.load_state_dict(torch.load(weights, weights_only=True))
    positions = np.array([35, 0, 17, 17, 8])
    flips = np.array([True, False, True, False, True])
    rows = kept.read(positions, flips, 0)
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
    torch.manual_seed(0)  # anchoring draws which centres it leaves out
    margin = run.partial_fc(model(images, landmarks, features), labels)
    terms = model.all_terms(margin, labels, run.partial_fc)
    sum(terms.values()).backward()
    return terms, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("rest", "seed"), [(EMBEDDING, 3), (URFM, 3), (URFM, 4), (PROMPTS, 5), (STAGES, 6)], ids=str
)
def test_terms_and_gradients_equal_those_without(faces, weights, tmp_path, cache, rest, seed):
    config = small_config(
        faces,
        tmp_path,
        cakd=entry(weights, cache, **rest),
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
    faces, weights, tmp_path, cache, monkeypatch, rest, forwards
):
    """Neither the plain one nor, without prompts, any; and so for the figures of a log line."""
    run = build_run(small_config(faces, tmp_path, cakd=entry(weights, cache, **rest)), CPU)
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
        monkeypatch.setattr(route, "finish", counting("prompted", route.finish))
    run.terms(*batch)
    run.model.diagnostics()
    assert (counts["plain"], counts["prompted"]) == forwards
    run.terms(*batch[:3])
    # Without the cache the unprompted teacher runs too, with prompts from where they enter.
    without = {"plain": 1, "prompted": 0}
    if run.model.prompts is not None:
        without = {"plain": 0, "prompted": forwards[1] + 2}
    assert counts == without


@pytest.fixture
def dropped(monkeypatch):
    """Those whose teacher was dropped, and is kept alive for a look."""
    distillers, drop = [], Distiller.drop_teacher
    monkeypatch.setattr(
        Distiller, "drop_teacher", lambda self: distillers.append(self) or drop(self)
    )
    return distillers


def test_a_run_from_the_cache_is_near_one_without_and_resumes_to_the_bit(
    faces, tiny, tmp_path, caplog, dropped
):
    settings = {"save_all_states": True, "frequent": 1, "num_epoch": 1}
    cached = entry(tiny, tmp_path / "c", **URFM)
    with caplog.at_level(logging.INFO):
        straight = train(small_config(faces, tmp_path / "a", cakd=cached, **settings))
    (distiller,) = dropped
    assert all(p.is_meta for p in distiller.teacher.parameters())
    (line,) = [r.getMessage() for r in caplog.records if "teacher.cache" in r.getMessage()]
    assert "embedding, tokens of 36 images, both flips: takes 0.06 MB of the " in line
    without = train(small_config(faces, tmp_path / "w", cakd=entry(tiny, None, **URFM), **settings))
    for ours, theirs in zip(straight.history[:5], without.history[:5], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-3)

    for workers in (0, 2):
        more = {**settings, "num_workers": workers}
        output = tmp_path / f"b{workers}"
        train(small_config(faces, output, cakd=cached, **more), stop_after_step=4)
        again = train(small_config(faces, output, cakd=cached, **more, resume=True))
        assert again.global_step == 9
        left, right = (
            torch.load(checkpoint_path(folder), weights_only=True)["state_dict_backbone"]
            for folder in (tmp_path / "a", output)
        )
        assert_same_state(left, right)


def test_a_first_run_draws_the_random_numbers_of_a_later_one(faces, tiny, tmp_path):
    """Dropout draws in every step, and what computes the cache, with workers, came before."""
    settings = {"network": "test_tiny_dropout", "num_workers": 2, "num_epoch": 1}
    cached = entry(tiny, tmp_path / "c", **EMBEDDING)
    results = [train(small_config(faces, tmp_path / x, cakd=cached, **settings)) for x in "ab"]
    first, second = (torch.load(r.output / "model.pt", weights_only=True) for r in results)
    assert_same_state(first, second)


@pytest.mark.parametrize("views", [None, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_brings_what_the_teacher_says_of_its_images(faces, tiny, tmp_path, views, workers):
    """As they are seen in that epoch: augmented, flipped and in their order."""
    cakd = entry(tiny, tmp_path / "c", **EMBEDDING)
    cakd.teacher["cached_views"] = views
    augment = views and {"crop": 0.5, "low_resolution": 0.5, "photometric": 0.5}
    config = small_config(faces, tmp_path, cakd=cakd, augment=augment, num_workers=workers)
    run = build_run(config, CPU)
    run.loader.attach(opened(run))
    assert np.load(tmp_path / "c" / "embedding.npy").shape == (views or 1, 36, 2, 16)
    for epoch in range(3):
        run.loader.set_epoch(epoch)
        images, labels, landmarks, known = next(iter(run.loader))
        assert landmarks is None and labels.shape == (4,)
        with torch.no_grad():
            said = run.model.teacher(images)
        torch.testing.assert_close(known["embedding"].float(), said, rtol=1e-3, atol=1e-3)


def test_views_that_no_cache_can_hold_are_refused(faces, tiny, tmp_path):
    cakd = entry(tiny, tmp_path / "c", **EMBEDDING)
    config = small_config(faces, tmp_path, cakd=cakd, augment={})
    with pytest.raises(ConfigError, match=r"set cakd\.teacher\.cached_views to how many"):
        build_run(config, CPU)
    cakd.teacher["cached_views"] = 3
    build_run(config, CPU)
    with pytest.raises(ConfigError, match=r"cached_views counts views that augmentation makes"):
        build_run(small_config(faces, tmp_path, cakd=cakd), CPU)


@pytest.mark.parametrize("damage", ["zeros", "bit", "checksum"])
def test_a_damaged_row_is_refused_when_it_is_read(faces, tiny, tmp_path, damage):
    config = small_config(faces, tmp_path, cakd=entry(tiny, tmp_path / "c", **EMBEDDING))
    run = build_run(config, CPU)
    kept = opened(run)
    path = tmp_path / "c" / ("embedding.crc32.npy" if damage == "checksum" else "embedding.npy")
    array = np.load(path, mmap_mode="r+")
    row = array[0, 17, 1:].view(np.uint8)
    row[..., 1:2] ^= 16
    if damage == "zeros":
        row[:] = 0
    array.flush()
    kept.read(np.arange(36), np.arange(36) != 17, 0)
    with pytest.raises(CacheError, match=r"embedding\.npy: damaged, as the row of image 17 does"):
        kept.read(np.array([3, 17]), np.array([False, True]), 0)
    run.loader.attach(opened(run))
    with pytest.raises(CacheError, match=r"its checksum: delete the folder, or name another$"):
        for epoch in range(9):  # some of which see it flipped
            run.loader.set_epoch(epoch)
            for _ in run.loader:
                pass


def warnings_in(caplog):
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]


def test_a_cache_of_before_there_were_checksums_is_taken_and_that_is_said(
    faces, tiny, tmp_path, caplog
):
    folder = tmp_path / "c"
    run = build_run(small_config(faces, tmp_path, cakd=entry(tiny, folder, **EMBEDDING)), CPU)
    some = np.arange(6), np.zeros(6, bool), 0
    rows = opened(run).read(*some)["embedding"]
    assert not warnings_in(caplog)
    (folder / "embedding.crc32.npy").unlink()
    index = json.loads((folder / "index.json").read_text())
    del index["parts"]["embedding.crc32"]
    (folder / "index.json").write_text(json.dumps(index))
    np.testing.assert_array_equal(opened(run).read(*some)["embedding"], rows)
    (line,) = warnings_in(caplog)
    assert line.startswith(
        f"cakd.teacher.cache {folder}: a former version wrote embedding, without"
    )
    run = build_run(small_config(faces, tmp_path, cakd=entry(tiny, folder, **URFM)), CPU)
    assert opened(run).unchecked == ("embedding",)
    assert (folder / "tokens.crc32.npy").exists() and not (folder / "embedding.crc32.npy").exists()


def test_it_can_be_handed_to_workers(faces, weights, tmp_path, cache):
    run = build_run(small_config(faces, tmp_path, cakd=entry(weights, cache, **URFM)), CPU)
    kept = opened(run)
    sent = pickle.dumps(kept)
    assert len(sent) < 1000 and isinstance(kept, TeacherCache)
    some = np.arange(6), np.zeros(6, bool), 0
    for name, rows in pickle.loads(sent).read(*some).items():
        np.testing.assert_array_equal(rows, kept.read(*some)[name])


def test_a_step_without_use_for_it_says_so(faces, weights, tmp_path):
    prompted = {
        "urfm": None,
        "prompts": {"num_tokens": 1},
        "preservation": None,
        "output_target": "prompted",
    }
    cakd = entry(weights, tmp_path / "c", **prompted)
    run = build_run(small_config(faces, tmp_path, cakd=cakd), CPU)
    assert opened(run) is None and not (tmp_path / "c").exists()
    (line,) = without_effect(run.model)
    assert line.startswith("cakd.teacher.cache has no effect")
    cakd = entry(weights, tmp_path / "c", **{**prompted, "output_target": "unprompted"})
    run = build_run(small_config(faces, tmp_path, cakd=cakd), CPU)
    assert run.model.known_parts == ("embedding",)
    assert not any("cache" in line for line in without_effect(run.model))
