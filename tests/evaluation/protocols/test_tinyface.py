"""TinyFace on a made set in its layout, against loops."""

import json

import numpy as np
import pytest
from helpers.people_faces import EMBEDDER, crop, embedding, save
from helpers.result_figures import check_intervals

from arcface_cakd.data import DataError
from arcface_cakd.evaluation import EvaluationError
from arcface_cakd.evaluation.protocols.tinyface import RANKS, TinyFace, rank_rates

PEOPLE, STRANGERS = 8, 25


@pytest.fixture(scope="module")
def testing_set(tmp_path_factory):
    """People with two probes each, in the gallery once or twice, and strangers."""
    folder = tmp_path_factory.mktemp("tinyface") / "Testing_Set"
    for person in range(PEOPLE):
        for k in range(2):
            save(folder / f"Probe/{person + 3}_{k + 1}.jpg", crop(person, k, 110))
        for k in range(1 + person % 2):
            save(folder / f"Gallery_Match/{person + 3}_{k + 9}.jpg", crop(person, 10 + k, 110))
    for k in range(STRANGERS):
        save(folder / f"Gallery_Distractor/{k}.jpg", crop(100 + k, 0, 110))
    return folder


def test_the_rates_are_those_of_loops(testing_set, monkeypatch):
    monkeypatch.setattr("arcface_cakd.evaluation.protocols.tinyface._CHUNK", 7)

    def unit(*faces):
        rows = embedding(crop(*faces, 110))
        return rows / np.linalg.norm(rows)

    gallery = [(p, unit(p, 10 + k)) for p in range(PEOPLE) for k in range(1 + p % 2)]
    gallery += [(None, unit(100 + k, 0)) for k in range(STRANGERS)]
    ranks = []
    for person in range(PEOPLE):
        for k in range(2):
            probe = unit(person, k)
            scored = sorted(((float(probe @ g), p) for p, g in gallery), key=lambda x: -x[0])
            ranks.append(1 + [p for _, p in scored].index(person))
    protocol = TinyFace([testing_set.parent])  # the folder above does too
    result = protocol.judge(EMBEDDER, draws=20)["tinyface"]
    assert (result.probes, result.people, result.gallery) == (16, 8, len(gallery))
    for k in RANKS:
        assert result.rank[k] == pytest.approx(np.mean(np.array(ranks) <= k), abs=1e-12)
    assert 0 < result.rank[1] < 1
    assert protocol.table({"tinyface": result}).splitlines()[1].split() == [
        "tinyface", "16", str(len(gallery)), *(f"{100 * result.rank[k]:.2f}" for k in RANKS)
    ]  # fmt: skip
    figures = json.loads(json.dumps(result.to_dict()))
    assert figures["rank"]["5"] == result.rank[5]
    check_intervals(figures)
    assert figures["intervals"]["rank.1"]["drawn"] == "people"


def test_people_are_drawn_with_all_their_probes():
    """One of two people is always found: the draws give 0, his share, or 1."""
    rank, people = np.array([1, 1, 1, 9]), np.array([4, 4, 4, 7])
    result = rank_rates(rank, people, 10, draws=300)
    assert result.rank == {1: 0.75, 5: 0.75, 20: 1.0}
    assert (result.intervals[1].low, result.intervals[1].high) == (0.0, 1.0)
    assert rank_rates(rank, people, 10, draws=0).intervals == dict.fromkeys(RANKS)


def test_files_that_are_no_images_are_named(tmp_path, caplog):
    save(tmp_path / "Probe/3_1.jpg", crop(0, 0))
    save(tmp_path / "Gallery_Match/3_2.jpg", crop(0, 1))
    save(tmp_path / "Gallery_Distractor/1.jpg", crop(1, 1))
    (tmp_path / "Gallery_Distractor/2.jpg.part").write_bytes(b"half")
    TinyFace([tmp_path])
    (said,) = caplog.messages
    assert said.endswith("Gallery_Distractor: left out: 1 that are no images (2.jpg.part)")


def test_what_is_wrong_with_a_set_is_one_line(tmp_path):
    with pytest.raises(DataError, match="no Probe/ in it, as TinyFace"):
        TinyFace([tmp_path])
    save(tmp_path / "Probe/3_1.jpg", crop(0, 0))
    save(tmp_path / "Gallery_Match/4_1.jpg", crop(0, 1))
    save(tmp_path / "Gallery_Distractor/1.jpg", crop(1, 1))
    with pytest.raises(EvaluationError, match="person 3 has a probe and nothing in Gallery_Match"):
        TinyFace([tmp_path])
    save(tmp_path / "Gallery_Match/someone.jpg", crop(0, 1))
    with pytest.raises(DataError, match=r"someone\.jpg: its name does not say who is on it"):
        TinyFace([tmp_path])
