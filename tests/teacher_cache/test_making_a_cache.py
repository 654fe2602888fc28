"""A teacher's cache is made once, of one thing, and goes on where it was stopped."""

import errno
import fcntl
import importlib.util
import json
import shutil
import threading
import time

import numpy as np
import pytest
import torch
from helpers.engine_runs import make_faces, save_teacher, small_cakd, small_config
from helpers.full_disk import full_disk
from helpers.processes import run_ranks

from arcface_cakd.config import ConfigError
from arcface_cakd.engine.builders import build_run
from arcface_cakd.registry import BACKBONES
from arcface_cakd.teacher_cache import (
    CacheError,
    TeacherCache,
    computing,
    open_cache,
    opening,
    store,
)
from arcface_cakd.teacher_cache import identity as identity_module

URFM = {"prompts": None}
EMBEDDING = {"prompts": None, "urfm": None}
ROWS = np.repeat(np.arange(36), 2), np.tile([False, True], 36), 0


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return make_faces(tmp_path_factory.mktemp("cache") / "faces")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "model.pt"
    save_teacher(path, seed=1, name="test_tiny")
    return path


def open_for(
    faces,
    weights,
    cache,
    entry=URFM,
    batch_size=5,
    stage=None,
    teacher_bf16=False,
    network="test_tiny",
    **settings,
) -> TeacherCache:
    teacher = {"network": network, "weights": str(weights), "cache": str(cache)}
    teacher |= {"stage": stage, "bf16": teacher_bf16}
    config = small_config(
        faces, cache.parent / "out", cakd=small_cakd(teacher=teacher, **entry), **settings
    )
    run = build_run(config, torch.device("cpu"))
    return open_cache(run.model, run.loader.views, batch_size=batch_size, num_workers=0)


@pytest.fixture(scope="module")
def whole(faces, weights, tmp_path_factory):
    """A cache that was made at once, and its folder."""
    folder = tmp_path_factory.mktemp("whole") / "cache"
    return open_for(faces, weights, folder).read(*ROWS), folder


@pytest.fixture
def blocks_of_8(monkeypatch):
    monkeypatch.setattr(computing, "BLOCK", 8)


@pytest.fixture
def written(monkeypatch):
    """Which images were written, by name of the array."""
    seen = {}
    write = computing.write_rows

    def noting(folder, part, view, position, rows):
        write(folder, part, view, position, rows)
        seen.setdefault(part, []).extend(range(position, position + len(rows)))

    monkeypatch.setattr(computing, "write_rows", noting)
    return seen


def assert_same_rows(cache: TeacherCache, expected: dict[str, np.ndarray]) -> None:
    rows = cache.read(*ROWS)
    assert rows.keys() == expected.keys()
    for name, array in rows.items():
        scale = np.abs(expected[name].astype(np.float32)).max()
        np.testing.assert_allclose(array, expected[name], rtol=2**-9, atol=1e-4 * scale)


@pytest.mark.parametrize("rank", [0, 3])
def test_a_stopped_run_is_gone_on_with(faces, weights, tmp_path, whole, blocks_of_8, written, rank):
    """Also what a rank had done of a run that had more of them."""
    note = computing.write_rows

    def stopping(folder, part, view, position, rows):
        if position >= 16 and part == "tokens":
            note(folder, part, view, position, rows[:2])  # and the rest is not
            raise KeyboardInterrupt
        note(folder, part, view, position, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(computing, "write_rows", stopping)
        with pytest.raises(KeyboardInterrupt):
            open_for(faces, weights, tmp_path / "c")
    marks = tmp_path / "c" / "done-0.json"
    assert json.loads(marks.read_text())["blocks"] == [0, 1]
    marks.rename(marks.with_name(f"done-{rank}.json"))
    written.clear()
    cache = open_for(faces, weights, tmp_path / "c")
    assert written == {"embedding": list(range(16, 36)), "tokens": list(range(16, 36))}
    assert_same_rows(cache, whole[0])
    names = {path.name for path in (tmp_path / "c").iterdir()}
    arrays = {"embedding.npy", "embedding.crc32.npy", "tokens.npy", "tokens.crc32.npy"}
    assert names == {"index.json", "lock", *arrays}
    written.clear()
    open_for(faces, weights, tmp_path / "c")
    assert not written


def test_what_was_done_for_other_arrays_does_not_count(
    faces, weights, tmp_path, whole, blocks_of_8, written
):
    """The marks of a run that computed embeddings alone say nothing of tokens."""
    note = computing.write_rows

    def stopping(folder, part, view, position, rows):
        if position >= 16:
            raise KeyboardInterrupt
        note(folder, part, view, position, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(computing, "write_rows", stopping)
        with pytest.raises(KeyboardInterrupt):
            open_for(faces, weights, tmp_path / "c", EMBEDDING)
    written.clear()
    cache = open_for(faces, weights, tmp_path / "c", URFM)
    assert written == {"embedding": list(range(36)), "tokens": list(range(36))}
    assert_same_rows(cache, whole[0])


def test_a_run_that_needs_more_adds_it(faces, weights, tmp_path, whole, written):
    folder = tmp_path / "c"
    open_for(faces, weights, folder, EMBEDDING)
    before = (folder / "embedding.npy").stat().st_mtime_ns
    written.clear()
    assert_same_rows(open_for(faces, weights, folder, URFM), whole[0])
    assert set(written) == {"tokens"}
    assert (folder / "embedding.npy").stat().st_mtime_ns == before
    assert open_for(faces, weights, folder, EMBEDDING).read(*ROWS).keys() == {"embedding"}


def ranks_open(faces, weights, folder, waiting):
    """What this rank reads and has computed; it says in the file ``waiting`` when it waits."""
    computing.BLOCK = 8
    opening._WAIT = 0.02
    sleep = opening.time.sleep
    opening.time.sleep = lambda seconds: (waiting.touch(), sleep(seconds))
    seen = []
    write = computing.write_rows

    def noting(folder, part, view, position, rows):
        write(folder, part, view, position, rows)
        if part == "tokens":
            seen.extend(range(position, position + len(rows)))

    computing.write_rows = noting
    return open_for(faces, weights, folder, batch_size=4).read(*ROWS), seen


def test_ranks_compute_a_share_each_when_another_run_has_gone(faces, weights, tmp_path, whole):
    folder, waiting = tmp_path / "c", tmp_path / "waiting"
    folder.mkdir()
    held = open(folder / "lock", "w")  # noqa: SIM115, closed below
    fcntl.flock(held, fcntl.LOCK_EX)

    def let_go():
        while not waiting.exists():
            time.sleep(0.02)
        time.sleep(0.2)
        held.close()

    threading.Thread(target=let_go, daemon=True).start()
    results = run_ranks(ranks_open, 2, tmp_path, faces, weights, folder, waiting)
    (rows, first), (_, second) = results
    assert first == [*range(8), *range(16, 24), *range(32, 36)]
    assert second == [*range(8, 16), *range(24, 32)]
    for name, array in rows.items():
        np.testing.assert_allclose(array, whole[0][name], rtol=2**-9, atol=1e-2)


@pytest.mark.parametrize(
    "what",
    [
        *("weights", "stage", "images", "source", "precision", "teacher's precision"),
        *("version", "seed"),
    ],
)
def test_a_stale_one_is_refused_and_the_advice_works(
    faces, weights, tmp_path, whole, monkeypatch, what
):
    folder = shutil.copytree(whole[1], tmp_path / "c")
    given, settings = (faces, weights), {}
    if what == "weights":
        save_teacher(tmp_path / "other.pt", seed=2, name="test_tiny")
        given, named = (faces, tmp_path / "other.pt"), "teacher's weights"
    elif what == "stage":
        settings, named = {"stage": 0}, "teacher"
    elif what == "images":
        other = make_faces(tmp_path / "faces", images=5)
        given, named = (other, weights), "training set"
    elif what == "source":
        monkeypatch.setattr(identity_module, "source_digest", lambda *given: "f" * 64)
        named = "backbone's source"
    elif what == "precision":
        settings, named = {"bf16": True}, "precision"
    elif what == "teacher's precision":
        settings, named = {"teacher_bf16": True}, "precision"
    elif what == "version":
        monkeypatch.setattr(identity_module, "FORMAT_VERSION", 2)
        named = "format version"
    else:  # of order and flips, both of which are kept
        assert_same_rows(open_for(faces, weights, folder, seed=99), whole[0])
        return
    with pytest.raises(CacheError) as refused:
        open_for(*given, folder, **settings)
    message = str(refused.value)
    assert f"{folder} is of another {named} (" in message and "\n" not in message
    assert message.endswith("delete the folder, or name another")
    open_for(*given, tmp_path / "another", **settings)
    if what == "teacher's precision":  # that of the whole run is the same to the teacher
        open_for(*given, tmp_path / "another", bf16=True)
    shutil.rmtree(folder)
    open_for(*given, folder, **settings)


def test_settings_that_are_left_alone_make_no_cache_stale(
    faces, weights, tmp_path, whole, monkeypatch
):
    """Neither one that came later, nor what caches of 0.1.0 say of those that were not set."""
    folder = shutil.copytree(whole[1], tmp_path / "c")
    index = json.loads((folder / "index.json").read_text())
    assert index["identity"]["teacher"] == "network test_tiny"
    own = opening.identity

    def later(teacher, settings, views):
        return own(teacher, {**settings, "came_later": value}, views)

    monkeypatch.setattr(opening, "identity", later)
    value = None
    assert_same_rows(open_for(faces, weights, folder), whole[0])
    for former, fits in (("pixels None, stage None", True), ("pixels None, stage 0", False)):
        index["identity"]["teacher"] = f"network test_tiny, {former}"
        (folder / "index.json").write_text(json.dumps(index))
        if fits:
            assert_same_rows(open_for(faces, weights, folder), whole[0])
        else:
            with pytest.raises(CacheError, match="another teacher"):
                open_for(faces, weights, folder)
    value = 1
    with pytest.raises(CacheError, match="another teacher"):
        open_for(faces, weights, whole[1])


def test_a_teacher_that_float16_cannot_hold_is_refused(faces, weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    for name in state:
        if name == "features.weight":
            state[name] = state[name] * 1e6
    torch.save(state, tmp_path / "loud.pt")
    with pytest.raises(CacheError, match=r"train\.rec, key \d+: the teacher's embedding is not"):
        open_for(faces, tmp_path / "loud.pt", tmp_path / "c", EMBEDDING)


def test_a_disk_that_is_too_small_is_said_before_anything_is_computed(
    faces, weights, tmp_path, monkeypatch, whole, written
):
    usage = shutil.disk_usage(tmp_path)._replace(free=50_000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(CacheError, match=r"needs 0\.06 MB and 0\.05 MB are free: make room"):
            open_for(faces, weights, tmp_path / "c")
    assert not written and not list((tmp_path / "c").glob("*.npy"))
    assert_same_rows(open_for(faces, weights, tmp_path / "c"), whole[0])


def test_a_disk_that_fills_up_ends_in_one_line(
    faces, weights, tmp_path, monkeypatch, whole, blocks_of_8
):
    note = computing.write_rows

    def full(folder, part, view, position, rows):
        if position >= 8:
            raise OSError(28, "No space left on device")
        note(folder, part, view, position, rows)

    with monkeypatch.context() as patch:
        patch.setattr(computing, "write_rows", full)
        with pytest.raises(CacheError, match=r"No space left on device.*goes on from here"):
            open_for(faces, weights, tmp_path / "c")
    assert_same_rows(open_for(faces, weights, tmp_path / "c"), whole[0])


def test_a_folder_of_something_else_is_left_alone(faces, weights, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "tokens.npy").write_bytes(b"precious")
    with pytest.raises(CacheError, match=r"mine holds tokens\.npy and no index of a cache"):
        open_for(faces, weights, folder)
    assert [path.name for path in folder.iterdir()] == ["tokens.npy"]
    (folder / "index.json").write_text("[]")
    with pytest.raises(CacheError, match=r"no index of a teacher's cache: name another folder in"):
        open_for(faces, weights, folder)


def test_nobody_is_told_to_delete_files_of_his_own(faces, weights, tmp_path, whole):
    folder = shutil.copytree(whole[1], tmp_path / "c")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(CacheError, match=r"name another folder, as this one holds notes\.txt too$"):
        open_for(faces, weights, folder, bf16=True)
    (folder / "tokens.npy").unlink()
    with pytest.raises(CacheError, match=r"tokens\.npy: missing or cut: name another folder, as"):
        open_for(faces, weights, folder)


def test_a_factory_outside_of_the_package_counts_as_source(faces, weights, tmp_path, monkeypatch):
    """It may choose what no weight tells, such as the number of heads."""
    path = tmp_path / "my_tiny.py"
    line = "def my_tiny(dropout=0.0, fp16=False, num_features=512):\n"
    line += "    return TinyFace(num_features, dropout, fp16)\n"
    path.write_text("from helpers.engine_runs import TinyFace\n" + line)
    found = importlib.util.spec_from_file_location("my_tiny", path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    monkeypatch.setitem(BACKBONES._components, "my_tiny", module.my_tiny)
    for _ in range(2):
        open_for(faces, weights, tmp_path / "c", EMBEDDING, network="my_tiny")
    path.write_text(path.read_text() + "HEADS = 8\n")
    with pytest.raises(CacheError, match="c is of another backbone's source"):
        open_for(faces, weights, tmp_path / "c", EMBEDDING, network="my_tiny")


def test_a_cut_file_is_refused(faces, weights, tmp_path, whole):
    folder = shutil.copytree(whole[1], tmp_path / "c")
    content = (folder / "tokens.npy").read_bytes()
    (folder / "tokens.npy").write_bytes(content[:-100])
    with pytest.raises(CacheError, match=r"tokens\.npy: missing or cut: delete the folder"):
        open_for(faces, weights, folder)
    shutil.rmtree(folder)
    assert_same_rows(open_for(faces, weights, folder), whole[0])


@pytest.mark.parametrize("complete", [True, False])
def test_an_array_that_cannot_be_read_is_not_said_to_be_missing(
    faces, weights, tmp_path, whole, monkeypatch, complete
):
    folder = shutil.copytree(whole[1], tmp_path / "c")
    if not complete:
        index = json.loads((folder / "index.json").read_text())
        del index["parts"]["tokens"]
        (folder / "index.json").write_text(json.dumps(index))
        marks = {"arrays": ["tokens"], "block": computing.BLOCK, "blocks": [0]}
        (folder / "done-0.json").write_text(json.dumps(marks))
    load = np.load

    def refusing(path, **options):
        if path.name == "tokens.npy":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return load(path, **options)

    monkeypatch.setattr(np, "load", refusing)
    with pytest.raises(CacheError, match=r"tokens\.npy cannot be read \(Permission denied\): name"):
        open_for(faces, weights, folder)
    assert (folder / "tokens.npy").read_bytes() == (whole[1] / "tokens.npy").read_bytes()


def test_what_cannot_be_written_is_the_cache(faces, weights, tmp_path, whole):
    lacks = r"{} lacks what this run needs and cannot be written \({}\): {}"
    too_large = lacks.format("new", "File too large", "make room")
    with full_disk(3000), pytest.raises(CacheError, match=too_large):  # the index fits
        open_for(faces, weights, tmp_path / "new")
    assert_same_rows(open_for(faces, weights, tmp_path / "new"), whole[0])

    (tmp_path / "file").touch()
    with pytest.raises(
        CacheError, match=r"file/index\.json cannot be read \(Not a directory\): name"
    ):
        open_for(faces, weights, tmp_path / "file")

    (tmp_path / "closed" / "lock").mkdir(parents=True)
    with pytest.raises(CacheError, match=lacks.format("closed", "Is a directory", "make it")):
        open_for(faces, weights, tmp_path / "closed")


@pytest.mark.parametrize(("module", "name"), [(store, "sync"), (computing, "write_text")])
def test_a_quota_is_named_wherever_it_is_met(faces, weights, tmp_path, monkeypatch, module, name):
    def full(*given):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(module, name, full)
    with pytest.raises(CacheError, match=r"c lacks .* \(Disk quota exceeded\): make room"):
        open_for(faces, weights, tmp_path / "c")


def test_a_cache_that_another_run_begins_meanwhile_is_no_foreign_folder(
    faces, weights, tmp_path, monkeypatch, whole
):
    looks = []
    read = opening.read_index
    monkeypatch.setattr(
        opening, "read_index", lambda folder: read(folder) if looks else looks.append(folder)
    )
    folder = shutil.copytree(whole[1], tmp_path / "c")
    assert_same_rows(open_for(faces, weights, folder), whole[0])
    assert looks == [folder]


@pytest.mark.parametrize("content", ["[]", "{}", '{"arrays": ["embedding"], "block": 512}'])
def test_damaged_marks_count_for_nothing(faces, weights, tmp_path, content):
    (tmp_path / "done-0.json").write_text(content)
    assert computing.Progress(tmp_path, ("embedding",)).done() == set()


def test_a_second_run_waits_for_the_first(faces, weights, tmp_path, whole, monkeypatch, written):
    """While the first holds the lock the second computes nothing, and then reads what is there."""
    monkeypatch.setattr(opening, "_WAIT", 0.02)
    folder = tmp_path / "c"
    folder.mkdir()
    held = open(folder / "lock", "w")  # noqa: SIM115, closed below
    fcntl.flock(held, fcntl.LOCK_EX)
    found = []
    second = threading.Thread(target=lambda: found.append(open_for(faces, weights, folder)))
    second.start()
    time.sleep(0.5)
    assert second.is_alive() and not written and not list(folder.glob("*.npy"))
    for path in whole[1].glob("*.*"):
        shutil.copy(path, folder / f".{path.name}")
        (folder / f".{path.name}").rename(folder / path.name)
    held.close()
    second.join(timeout=30)
    assert_same_rows(found[0], whole[0])
    assert not written


def test_views_without_a_cache_are_refused():
    teacher = {"network": "swin_mini", "weights": "random", "cached_views": 2}
    with pytest.raises(ConfigError, match=r"cakd\.teacher\.cached_views counts views in a cache"):
        small_cakd(teacher=teacher)
