import io
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from arcface_cakd.backbones import get_model, load_weights
from arcface_cakd.data import as_batch, read_bin
from arcface_cakd.data.loader import open_images
from arcface_cakd.evaluation import verification_metrics


def record(tiny, method, seed):
    return json.loads((tiny.runs / "tiny" / method / f"{seed}.json").read_text())


def pair_cosines(model, path):
    """Of each pair, by torch, image by image."""
    images = read_bin(path).images
    with torch.no_grad():
        batch = as_batch(images)
        embeddings = model.eval()(batch) + model(batch.flip(3))
    return torch.cosine_similarity(embeddings[0::2], embeddings[1::2]).numpy(), embeddings


def negatives(scores, issame):
    """Those of the pairs that are listed, and of all that are drawn besides."""
    return [*scores[: len(issame)][~issame], *scores[len(issame) :]]


def test_a_cell_keeps_what_its_student_says(tiny):
    from records import unpacked_scores

    assert tiny("--methods", "plain", "embedding_64", "--seeds", "3", "4") == 0
    for method in ("plain", "embedding_64"):
        kept = record(tiny, method, 3)
        model = get_model("test_tiny", num_features=16)
        load_weights(model, tiny.work / "tiny" / method / "3" / "model.pt")
        cosines, embeddings = pair_cosines(model, tiny.faces / "tiny" / "dev.bin")
        scores = unpacked_scores(kept["sets"]["dev"]["scores"])
        np.testing.assert_allclose(scores[: len(cosines)], cosines, atol=3e-5)
        issame = read_bin(tiny.faces / "tiny" / "dev.bin").issame
        assert len(scores) == 3 * issame.sum()  # two of two people for each of one
        positives, negatives = scores[: len(issame)][issame], np.delete(scores, issame.nonzero()[0])
        wins = np.mean([p > n for p in positives for n in negatives])
        figures = kept["sets"]["dev"]["figures"]
        assert 1 - figures["1-auc"] == pytest.approx(wins, abs=1e-4)
        expected = verification_metrics(embeddings.numpy(), issame)
        assert figures["accuracy"] == pytest.approx(expected.accuracy, abs=0.01)
        assert set(kept["sets"]) == {"dev"}
        assert kept["failure"] is None
        assert kept["settings"]["seed"] == 3
        words = f"--data tiny --methods {method} --seeds 3"
        assert kept["command"] == f"python eval/study/run.py {words}"
        assert kept["cpu_seconds"] > 0
        assert str(tiny.faces) not in json.dumps(kept["settings"])
        assert torch.backends.cpu.get_cpu_capability() in kept["processor"]
    assert record(tiny, "plain", 3)["settings"]["cakd"] is None
    history = record(tiny, "embedding_64", 3)["history"]
    assert [line["step"] for line in history] == [2, 3]
    assert set(history[-1]["terms"]) == {"embedding_cosine"}
    assert set(history[-1]["gradient_norms"]) == {"margin", "embedding_cosine"}
    dev = {name: record(tiny, name, 3)["sets"]["dev"] for name in ("plain", "embedding_64")}
    assert dev["plain"]["scores"] != dev["embedding_64"]["scores"]
    assert record(tiny, "plain", 4)["sets"]["dev"]["scores"] != dev["plain"]["scores"]


def test_references_are_looked_at_as_they_are(tiny):
    from records import unpacked_scores

    assert tiny("--methods", "references", "--seeds", "1", "2") == 0
    assert [p.name for p in (tiny.runs / "tiny" / "teacher").iterdir()] == ["0.json"]
    model = get_model("test_tiny", num_features=16)
    load_weights(model, tiny.faces / "tiny" / "teacher.pt")
    cosines, _ = pair_cosines(model, tiny.faces / "tiny" / "dev.bin")
    scores = unpacked_scores(record(tiny, "teacher", 0)["sets"]["dev"]["scores"])
    np.testing.assert_allclose(scores[: len(cosines)], cosines, atol=3e-5)
    colours = unpacked_scores(record(tiny, "colour_histogram", 0)["sets"]["dev"]["scores"])
    images = read_bin(tiny.faces / "tiny" / "dev.bin").images[:2].astype(int)
    faces = images[:, 16:112, 20:92].reshape(2, -1, 3) // 32
    one, other = (
        np.histogramdd(face, bins=[range(9)] * 3)[0].ravel() / face.shape[0] for face in faces
    )
    assert colours[0] == pytest.approx(np.sqrt(one * other).sum(), abs=3e-5)


def test_finished_cells_are_skipped_and_others_run(tiny, capsys):
    tiny("--methods", "plain")
    path = tiny.runs / "tiny" / "plain" / "1.json"
    before = path.stat().st_mtime_ns
    capsys.readouterr()
    tiny("--methods", "plain", "--seeds", "1", "2", "--list")
    assert capsys.readouterr().out == "tiny/plain/1: done\ntiny/plain/2: to be run\n"
    tiny("--methods", "plain", "--seeds", "1", "2")
    assert path.stat().st_mtime_ns == before
    assert record(tiny, "plain", 2)["seed"] == 2


def test_a_killed_cell_leaves_nothing_and_is_run_again(tiny, monkeypatch):
    import cells

    tiny("--methods", "plain")
    straight = record(tiny, "plain", 1)
    (tiny.runs / "tiny" / "plain" / "1.json").unlink()
    with monkeypatch.context() as killed:
        killed.setattr(cells, "judged", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tiny("--methods", "plain")
    assert not (tiny.runs / "tiny" / "plain" / "1.json").exists()
    tiny("--methods", "plain")
    assert record(tiny, "plain", 1)["sets"] == straight["sets"]


HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_a_cell_that_another_process_has_is_left_alone(tiny, capsys):
    lock = tiny.work / "tiny" / "plain" / "1" / "lock"
    lock.parent.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        tiny("--methods", "plain")
        assert "another runner has it" in capsys.readouterr().out
        assert not (tiny.runs / "tiny" / "plain" / "1.json").exists()
        other.kill()
    time.sleep(0.1)
    tiny("--methods", "plain")  # the lock went with the process
    assert (tiny.runs / "tiny" / "plain" / "1.json").exists()


def test_a_run_that_diverges_is_a_result(tiny, monkeypatch):
    import grid

    wild = {**grid.SIZES["cpu"]["tiny"].student, "lr": 1e30, "clip_grad_norm": None}
    monkeypatch.setitem(vars(grid.SIZES["cpu"]["tiny"]), "student", wild)
    assert tiny("--methods", "plain") == 0
    kept = record(tiny, "plain", 1)
    assert "not finite" in kept["failure"]
    assert kept["sets"] == {}


def test_data_that_are_not_there_are_no_result(tiny, monkeypatch, capsys):
    import grid

    data = grid.SIZES["cpu"]["tiny"]
    teacher = {**data.teacher, "weights": "tiny/gone.pt"}
    monkeypatch.setitem(vars(data), "teacher", teacher)
    assert tiny("--methods", "embedding_64") == 1
    assert "gone.pt" in capsys.readouterr().err
    assert not (tiny.runs / "tiny" / "embedding_64").exists()


def test_opening_a_set_is_logged_once(tiny):
    tiny("--methods", "plain", "--seeds", "1")
    log = tiny.runs.parent / "LOG.md"
    tiny("--methods", "plain", "--open", "test", "--list")
    assert "test" not in log.read_text()
    for _ in range(2):
        assert tiny("--methods", "plain", "references", "--seeds", "1", "2", "--open", "test") == 0
    lines = log.read_text().splitlines()
    assert len(lines) == 4
    which = "tiny/plain seeds 1 2; tiny/teacher seeds 0; tiny/colour_histogram seeds 0"
    assert lines[-1].endswith(f"`test`: {which}")
    for seed in (1, 2):
        assert set(record(tiny, "plain", seed)["sets"]) == {"dev", "test"}


def test_what_cannot_be_opened(tiny, capsys):
    assert tiny("--methods", "plain", "--open", "dev") == 1
    assert "no set 'dev' for reporting" in capsys.readouterr().err
    tiny("--methods", "plain")
    other = get_model("test_tiny", num_features=16)
    torch.save(other.state_dict(), tiny.work / "tiny" / "plain" / "1" / "model.pt")
    assert tiny("--methods", "plain", "--open", "test") == 1
    assert "is not the model that tiny/plain/1's figures are of" in capsys.readouterr().err
    assert set(record(tiny, "plain", 1)["sets"]) == {"dev"}


def test_frozen_data_stay_as_they_are(tiny, capsys):
    """A cell of pairs that are other ones than those that are kept is refused."""
    tiny("--methods", "plain")
    path = tiny.runs / "tiny" / "pairs" / "dev.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "bin": "0" * 16}))
    assert tiny("--methods", "plain", "--seeds", "2") == 1
    assert "the data are frozen" in capsys.readouterr().err


def test_sentinel(tiny, monkeypatch, capsys):
    import sources

    tiny("--methods", "plain")
    kept = record(tiny, "plain", 1)
    monkeypatch.setattr(sources, "_of_patterns", lambda *_, **__: "changed")
    assert tiny("--sentinel", "tiny/plain/1") == 0
    assert "tiny/plain/1: equal to what is kept" in capsys.readouterr().out
    (entry,) = json.loads((tiny.runs / "sentinels.json").read_text())
    assert entry["equal"] is True
    assert entry["before"] == kept["sources"]
    assert entry["after"] == {**kept["sources"], "training": "changed"}

    kept["sets"]["dev"]["scores"] = kept["sets"]["dev"]["scores"][4:] + "AAAA"
    (tiny.runs / "tiny" / "plain" / "1.json").write_text(json.dumps(kept))
    assert tiny("--sentinel", "tiny/plain/1") == 1
    assert "NOT equal" in capsys.readouterr().out
    assert [s["equal"] for s in json.loads((tiny.runs / "sentinels.json").read_text())] == [
        True,
        False,
    ]
    assert tiny("--sentinel", "tiny/plain/7") == 1
    assert "has no figures to compare with" in capsys.readouterr().err


def test_a_teacher_is_trained_to_its_end_first(tiny, monkeypatch, capsys):
    import grid

    data = grid.SIZES["cpu"]["tiny"]
    monkeypatch.setitem(vars(data), "teacher_settings", {**data.student, "seed": 9})
    teacher = {**data.teacher, "weights": "trained/model.pt"}
    monkeypatch.setitem(vars(data), "teacher", teacher)
    (tiny.faces / "trained").mkdir()
    torch.save({}, tiny.faces / "trained" / "model.pt")  # of a run that was stopped
    assert tiny("--methods", "embedding_64") == 1
    assert "has no trained teacher" in capsys.readouterr().err
    assert tiny("--methods", "plain") == 0
    assert tiny("--teacher", "--methods", "teacher", "embedding_64") == 0
    assert record(tiny, "embedding_64", 1)["failure"] is None
    written = (tiny.faces / "trained" / "model.pt").stat().st_mtime_ns
    assert tiny("--teacher", "--methods", "teacher") == 0
    assert (tiny.faces / "trained" / "model.pt").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "plane"], "no method 'plane'; did you mean 'plain'?"),
        (["--sentinel", "tiny/plain"], "'tiny/plain' is no cell"),
        (["--sentinel", "tinny/plain/1"], "no data 'tinny' of size 'cpu'; did you mean 'tiny'?"),
        (["--teacher", "--methods"], "'test_tiny' comes with its weights and is not trained"),
    ],
)
def test_mistakes(tiny, capsys, words, message):
    assert tiny(*words) == 1
    assert message in capsys.readouterr().err


def test_a_rival_compares_with_the_teachers_class_means(tiny):
    assert tiny("--methods", "margin_distillation_0.82", "--seeds", "1") == 0
    kept = record(tiny, "margin_distillation_0.82", 1)
    assert kept["failure"] is None
    assert kept["settings"]["cakd"]["teacher"]["centers"] == "teacher's class means"
    assert (tiny.work / "class_means" / "tiny_test_tiny" / "checkpoint_gpu_0.pt").is_file()


def test_students_start_from_the_teachers_class_means(tiny):
    """Against one image after the other, and class centres that are as long as random ones."""
    assert tiny("--methods", "embedding_64_class_means", "--seeds", "1") == 0
    kept = record(tiny, "embedding_64_class_means", 1)
    assert (kept["failure"], kept["settings"]["init_centers"]) == (None, "teacher's class means")
    teacher = get_model("test_tiny", num_features=16)
    load_weights(teacher, tiny.faces / "tiny" / "teacher.pt")
    images = open_images(tiny.faces / "tiny")
    labels = [images.encoded(place)[1] for place in range(len(images))]
    path = tiny.work / "class_means" / "tiny_test_tiny" / "checkpoint_gpu_0.pt"
    centres = torch.load(path, weights_only=True)["state_dict_softmax_fc"]["weight"].numpy()
    assert len(centres) == max(labels) + 1
    for label in sorted(set(labels))[:3]:
        total = np.zeros(16)
        for place in np.flatnonzero(np.equal(labels, label)):
            pixels = np.asarray(Image.open(io.BytesIO(images.encoded(place)[0])).convert("RGB"))
            batch = as_batch(pixels[None])
            with torch.no_grad():
                embedding = (teacher.eval()(batch) + teacher(batch.flip(3)))[0].double().numpy()
            total += embedding / np.linalg.norm(embedding)
        np.testing.assert_allclose(
            centres[label], 0.01 * 4 * total / np.linalg.norm(total), atol=1e-6
        )
