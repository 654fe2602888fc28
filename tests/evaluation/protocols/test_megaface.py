"""Identification among strangers on made embeddings and a made test pack, against loops."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.people_faces import EMBEDDER, crop, embedding, save
from helpers.result_figures import check_intervals

from arcface_cakd.data import DataError
from arcface_cakd.evaluation import EvaluationError
from arcface_cakd.evaluation.protocols.megaface import FARS, RANKS, DistractorTest, MegaFace

PEOPLE, IMAGES, STRANGERS = 5, 3, 30


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def slowly(probes, people, strangers):
    """Rank of each mate, and all genuine and impostor scores."""
    ranks, genuine = [], []
    for a, (probe, person) in enumerate(zip(probes, people, strict=True)):
        for b, (mate, other) in enumerate(zip(probes, people, strict=True)):
            if person == other and a != b:
                score = float(np.dot(probe, mate))
                ranks.append(1 + sum(float(np.dot(probe, s)) >= score for s in strangers))
                genuine += [score] if a < b else []
    return ranks, np.array(genuine), np.array([np.dot(p, s) for p in probes for s in strangers])


@pytest.mark.parametrize(("seed", "part"), [(0, 50), (1, 333)])
def test_the_figures_are_those_of_loops(seed, part, monkeypatch):
    monkeypatch.setattr("arcface_cakd.evaluation.protocols.megaface.FARS", (1e-3, 1e-2))
    random = np.random.default_rng(seed)
    people = random.integers(0, 8, 20)
    centres = random.normal(size=(8, 6))
    probes = unit(centres[people] + 0.8 * random.normal(size=(20, 6)))
    strangers = unit(random.normal(size=(600, 6)))
    test = DistractorTest(probes, people, 600)
    for start in range(0, 600, part):
        test.add(strangers[start : start + part])
    result = test.result(draws=40)
    ranks, genuine, impostor = slowly(probes, people, strangers)
    assert (result.probes, result.people, result.mates) == (20, len(set(people)), len(ranks))
    for k in RANKS:
        assert result.rank[k] == pytest.approx(np.mean(np.array(ranks) <= k), abs=1e-12)
    for far in (1e-3, 1e-2):
        best = max(
            np.mean(genuine >= threshold)
            for threshold in np.append(np.concatenate([genuine, impostor]), np.inf)
            if np.mean(impostor >= threshold) <= far
        )
        assert result.tar[far] == pytest.approx(best, abs=1e-12)
    assert 0 < result.rank[1] < 1
    low, high = result.intervals["rank.1"].low, result.intervals["rank.1"].high
    assert low < result.rank[1] < high


def test_a_person_drawn_again_counts_as_often():
    """Two people: one always found, one never. The rate is the share of the first one's mates."""
    probes = np.array([[1.0, 0], [1, 0], [0, 1], [0.8, 0.6], [0.6, 0.8]])
    test = DistractorTest(probes, np.array([0, 0, 1, 1, 1]), 1)
    test.add(np.array([[0.0, 1.0]]))
    result = test.result(draws=200)
    # Nobody is nearer to the first one; of the other's six, those that tie or lose are told.
    assert result.rank[1] == pytest.approx(
        np.mean(np.array(slowly(probes, [0, 0, 1, 1, 1], [[0.0, 1.0]])[0]) <= 1)
    )
    assert result.intervals["rank.1"].high == 1.0  # the first one drawn twice


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """A made test pack; each third stranger lies a folder deeper, as MegaFace's do."""
    folder = tmp_path_factory.mktemp("megaface")
    for person in range(PEOPLE):
        for k in range(IMAGES):
            save(folder / f"facescrub_images/P {person}/P {person}_{k}.png", crop(person, k, 90))
    for k in range(STRANGERS):
        save(folder / f"megaface_images/{k % 3}/{k}/{k}_0.png", crop(100 + k, 0, 90))
    return folder


def expected(persons, strangers):
    probes = unit(np.array([embedding(crop(p, k, 90)) for p, k in persons]))
    crowd = unit(np.array([embedding(crop(100 + k, 0, 90)) for k in strangers]))
    return slowly(probes, [p for p, _ in persons], crowd)[0]


def test_the_pack_is_read_with_its_lists_and_noises(pack, tmp_path, monkeypatch):
    monkeypatch.setattr("arcface_cakd.evaluation.protocols.megaface._CHUNK", 11)
    everyone = [(p, k) for p in range(PEOPLE) for k in range(IMAGES)]
    protocol = MegaFace([pack])
    (result,) = protocol.judge(EMBEDDER, draws=10).values()
    ranks = expected(everyone, range(STRANGERS))
    assert (result.probes, result.distractors, result.mates) == (15, 30, 30)
    for k in RANKS:
        assert result.rank[k] == pytest.approx(np.mean(np.array(ranks) <= k), abs=1e-12)
    assert result.rank[1] < 1  # else it would tell nothing
    assert all(rate is None for rate in result.tar.values())
    folder = tmp_path / "pack"
    shutil.copytree(pack, folder)
    (folder / "facescrub_lst").write_text(
        "\n".join(f"P {p}/P {p}_{k}.png" for p, k in everyone[2:]) + "\n"
    )
    (folder / "facescrub_noises.txt").write_text("#noise\nP 4_1.png\n")
    (folder / "megaface_noises.txt").write_text("# 2 noises\n1\t0/3/3_0.png\n1/7/7_0.png\n")
    (fewer,) = MegaFace([folder]).judge(EMBEDDER, draws=0).values()
    kept = [pair for pair in everyone[2:] if pair != (4, 1)]
    ranks = expected(kept, [k for k in range(STRANGERS) if k not in (3, 7)])
    assert (fewer.probes, fewer.distractors) == (12, 28)
    assert fewer.rank[1] == pytest.approx(np.mean(np.array(ranks) <= 1), abs=1e-12)
    lines = protocol.table({"pack": result}).splitlines()
    assert lines[1].split()[:5] == ["pack", "5", "15", "30", f"{100 * result.rank[1]:.2f}"]
    figures = json.loads(json.dumps(result.to_dict()))
    check_intervals(figures)
    assert figures["rank"]["10"] == result.rank[10]
    assert figures["tar"] == {f"{far:g}": None for far in FARS}


@pytest.fixture
def small(tmp_path):
    """Two people with two images each, and three strangers."""
    folder = tmp_path / "small"
    for person in range(2):
        for k in range(2):
            save(folder / f"facescrub_images/P{person}/{person}_{k}.png", crop(person, k, 90))
    for k in range(3):
        save(folder / f"megaface_images/{k}.png", crop(100 + k, 0, 90))
    return folder


def test_an_image_that_is_listed_twice_is_no_mate_of_itself(small, caplog):
    listed = ["P0/0_0.png", "P0/0_1.png", "P1/1_0.png", "./P0//0_0.png"]
    (small / "facescrub_lst").write_text("\n".join(listed) + "\n")
    protocol = MegaFace([small])
    assert (len(protocol.probes), protocol.people.tolist()) == (3, [0, 0, 1])
    assert caplog.messages == [
        f"{small / 'facescrub_lst'}: 1 lines name an image once more: left out"
    ]
    for line in ("/P0/0_0.png", "../small/facescrub_images/P0/0_0.png"):
        (small / "facescrub_lst").write_text(f"P0/0_0.png\n{line}\n")
        with pytest.raises(
            DataError, match=r"facescrub_lst: .* is no path below facescrub_images/"
        ):
            MegaFace([small])


def test_what_is_left_out_is_said(small, caplog):
    (small / "megaface_images" / "notes.txt").write_text("no image")
    save(small / "megaface_images/1.png", crop(101, 0)[:64, :64])
    noises = small / "megaface_noises.txt"
    noises.write_text("#\n0.png\nfar/9.png\n")
    protocol = MegaFace([small])
    assert caplog.messages == [
        f"{small / 'megaface_images'}: left out: 1 that are no images (notes.txt)",
        f"{noises}: 1 of its 2 names found, 1 of 3 images left out",
    ]
    protocol.judge(EMBEDDER, draws=0)
    first = small / "megaface_images" / "1.png"
    assert caplog.messages[2:] == [
        f"small, strangers: 1 of 2 images are not 112 x 112 and were resized, the first is {first}"
    ]
    noises.write_text("megaface_images/0.png\n")
    with pytest.raises(DataError, match="none of its 1 names is one of 3 images in"):
        MegaFace([small])
    noises.write_text("# nothing\n")
    assert len(MegaFace([small]).strangers) == 3


def test_the_folder_one_is_in_has_its_name(small, monkeypatch):
    monkeypatch.chdir(small)
    protocol = MegaFace([Path()])
    assert list(protocol.judge(EMBEDDER, draws=0)) == list(protocol.data_digests()) == ["small"]


def test_what_is_wrong_with_a_pack_is_one_line(pack, tmp_path):
    with pytest.raises(DataError, match="no facescrub_images/ in it"):
        MegaFace([tmp_path])
    save(tmp_path / "facescrub_images/A/1.png", crop(0, 0))
    save(tmp_path / "megaface_images/1.png", crop(1, 0))
    with pytest.raises(EvaluationError, match="nobody has two images"):
        MegaFace([tmp_path])
    save(tmp_path / "facescrub_images/A/2.png", crop(0, 1))
    save(tmp_path / "facescrub_images/B.png", crop(2, 0))
    with pytest.raises(DataError, match=r"B\.png: lies in no person's folder"):
        MegaFace([tmp_path])
    (tmp_path / "facescrub_noises.txt").write_text("B.png\n")
    for place in ("actors/A", "actresses/A"):  # people of one name, as FaceScrub divides them
        for number in range(2):
            save(tmp_path / f"facescrub_images/{place}/{number}.png", crop(3, number))
    assert np.bincount(MegaFace([tmp_path]).people).tolist() == [2, 2, 2]
    (tmp_path / "megaface_lst").write_text("1.png\n2.png\n")
    with pytest.raises(DataError, match=r"2\.png: no such image"):
        MegaFace([tmp_path])
    (tmp_path / "megaface_lst").write_text("1.png\n")
    (tmp_path / "megaface_noises.txt").write_text("1.png\n")
    with pytest.raises(DataError, match="no image is left of 1"):
        MegaFace([tmp_path])
    with pytest.raises(EvaluationError, match="someone must have two images"):
        DistractorTest(np.eye(3), np.arange(3), 1)
