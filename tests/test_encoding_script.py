import json
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
from helpers.face_distances import LANDMARKS, brute_force, places, row_of

from arcface_cakd.alignment import PIFSettings

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "eval" / "encoding.py"))


def check(entry, kind, anchors, heads, pif=None, landmarks=LANDMARKS):
    """Every figure of one grid, pair by pair, for centres on the 7x7 grid."""
    centers, patches = places(7, 7), places(*entry["grid"], entry["extent"])
    for name, others in (("patches", patches), ("anchor", anchors)):
        plain = brute_force(centers, others, None, 0)
        for face in ("relative", "saliency"):
            term = brute_force(centers, others, face, 1.0, None, landmarks) - plain
            expected = np.corrcoef(plain.ravel(), term.ravel())[0, 1]
            ours = entry["correlation_with_euclidean"][face][name]
            assert ours == pytest.approx(expected, abs=1e-9)
    plain = brute_force(centers, patches, None, 0)
    total = brute_force(centers, patches, kind, 1.0, None, landmarks)
    to_anchors = brute_force(centers, anchors, kind, 1.0, None, landmarks)
    assert entry["largest_distance"] == pytest.approx(
        {"euclidean": plain.max(), "face": (total - plain).max(), "sum": total.max()}
    )
    for name, distance in (("pair", total), ("anchor", to_anchors)):
        said = entry["rows"][name]
        constants = PIFSettings(said["alpha"], said["beta"], said["gamma"])
        assert pif in (None, constants)
        count = [0] * (math.floor(said["beta"]) + 1)
        for d in distance.ravel():
            count[row_of(d, constants)] += 1
        assert said["pairs_in_row"] == count
        assert said["largest_share"] == pytest.approx(max(count) / distance.size)
        assert said["empty_rows"] == count.count(0)
        if name == "pair":
            of_template = brute_force(centers, patches, kind, 1.0)  # by which the fields start
            rows, first = (
                np.array([[row_of(d, constants) for d in line] for line in distance])
                for distance in (total, of_template)
            )
    mean = {r: of_template[first == r].mean() for r in set(first.ravel().tolist())}
    assert len(entry["radius_of_heads_in_pixels"]) == heads
    for head, radius in enumerate(entry["radius_of_heads_in_pixels"]):
        nearness = np.vectorize(lambda r: max(mean.values()) - mean[r] if r in mean else 0)(rows)
        logits = nearness * 2 * 0.125 ** (head / (heads - 1))
        weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        expected = np.sqrt((weights * (16 * plain) ** 2).sum(axis=1)).mean()
        assert radius == pytest.approx(expected, rel=1e-5)


def test_the_figures_equal_brute_force(tmp_path, capsys):
    given = ["face_distance=saliency", "anchor=landmarks", "num_heads=3", "dim=6"]
    arguments = [str(tmp_path), "--set", *given, "pif.alpha=1", "pif.beta=7.5", "pif.gamma=9"]
    SCRIPT["main"](arguments)
    found = json.loads((tmp_path / "encoding.json").read_text())
    assert (tmp_path / "encoding.png").read_bytes().startswith(b"\x89PNG")
    assert found["command"].endswith("pif.beta=7.5 pif.gamma=9")
    assert [(e["grid"], e["extent"]) for e in found["grids"]] == [
        ([7, 7], 112),
        ([12, 12], 108),
        ([14, 14], 112),
    ]
    check(found["grids"][1], "saliency", LANDMARKS, 3, PIFSettings(1.0, 7.5, 9.0))
    correlation = found["grids"][1]["correlation_with_euclidean"]
    rd, sd = (correlation[kind]["patches"] for kind in ("relative", "saliency"))
    printed = capsys.readouterr().out.splitlines()[2]
    assert printed.split()[:3] == ["12x12", f"{rd:.3f}", f"{sd:.3f}"]


def test_the_figures_in_the_repository_equal_brute_force():
    found = json.loads((ROOT / "eval" / "results" / "encoding.json").read_text())
    assert found["set"] == []  # the defaults
    check(found["grids"][0], "relative", [LANDMARKS[2]], 8)


def test_the_encoding_of_an_image_is_by_its_landmarks(tmp_path):
    noise = np.random.default_rng(0).normal(0, 6, (3, 5, 2))
    faces = (np.array(LANDMARKS) + noise).astype(np.float32)
    np.save(tmp_path / "train_landmarks.npy", faces)
    given = ["--landmarks", str(tmp_path), "--image", "2", "--set", "anchor=landmarks"]
    SCRIPT["main"]([str(tmp_path), *given, "num_heads=2", "dim=4"])
    found = json.loads((tmp_path / "encoding.json").read_text())
    own = [tuple(point) for point in faces[2].tolist()]
    check(found["grids"][0], "relative", own, 2, landmarks=own)
    settings = SCRIPT["read_settings"](["landmarks=image", "placing=landmarks"])
    encoding = SCRIPT["Encoding"]((7, 7), 112, settings, SCRIPT["read_landmarks"](tmp_path, 2))
    plain = brute_force([tuple(p) for p in encoding.centers.tolist()], places(7, 7), None, 0)
    np.testing.assert_allclose(encoding.euclidean, plain, atol=1e-9)
    starts = encoding.centers[[0, 10, 20, 29, 39]]  # 10 and 10, 9, 10 and 10
    np.testing.assert_allclose(starts, faces[2], atol=1e-9)


def test_landmarks_that_are_not_there_are_one_line(tmp_path, capsys):
    np.save(tmp_path / "train_landmarks.npy", np.array([LANDMARKS], dtype=np.float32))
    out = tmp_path / "out"
    for given, said in (
        (["--landmarks", str(tmp_path), "--image", "1"], "has images 0 to 0"),
        (["--landmarks", str(out)], "no such file"),
        (["--landmarks", str(tmp_path), "--set", "anchor=center", "face_distance=None"], "changes"),
    ):
        with pytest.raises(SystemExit):
            SCRIPT["main"]([str(out), *given])
        assert said in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()


def test_a_map_of_the_users_own_and_the_papers_position(tmp_path):
    values = np.random.default_rng(0).random((7, 7))
    np.save(tmp_path / "map.npy", values)
    texts = ["face_distance=saliency", f"saliency_map={tmp_path / 'map.npy'}", "position=query"]
    settings = SCRIPT["read_settings"](texts)
    entry = SCRIPT["Encoding"]((7, 7), 112, settings).figures()
    plain = brute_force(places(7, 7), places(7, 7), None, 0)
    term = np.abs(values.ravel()[:, None] - values.ravel()[None]) / values.max()
    correlation = entry["correlation_with_euclidean"]["saliency"]["patches"]
    assert correlation == pytest.approx(np.corrcoef(plain.ravel(), term.ravel())[0, 1], abs=1e-9)
    assert entry["rows"]["pair"] is None
    everywhere = np.sqrt(((16 * plain) ** 2).mean(axis=1)).mean()  # no patch is preferred
    assert entry["radius_of_heads_in_pixels"] == pytest.approx([everywhere] * 8, rel=1e-6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("num_centers=50", "49 and 64"),
        ("centers=49", "no setting 'centers'"),
        ("num_centers", "write key=value"),
        ("saliency_map=teacher", "estimated in training"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, given, said):
    with pytest.raises(SystemExit) as caught:
        SCRIPT["main"]([str(tmp_path / "out"), "--set", given, "face_distance=saliency"])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
