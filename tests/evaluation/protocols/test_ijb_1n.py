"""IJB 1:N on a made set and on made embeddings, against loops in float64."""

import json
import shutil

import numpy as np
import pytest
from helpers.people_faces import EMBEDDER
from helpers.result_figures import check_intervals

from arcface_cakd.data import DataError
from arcface_cakd.data.templates import read_template_images
from arcface_cakd.evaluation import EvaluationError
from arcface_cakd.evaluation.identification import Searches, search
from arcface_cakd.evaluation.protocols.ijb import embed_templates
from arcface_cakd.evaluation.protocols.ijb_1n import FPIRS, RANKS, TemplateSearch, identification


def made(seed, probes=300, gallery=40, people=70, round_to=None):
    """Probes of which some have no mate; with ``round_to`` scores tie."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(people, 6))
    who, whose = random.integers(0, people, probes), np.arange(gallery) % (gallery - 3)
    one = centres[who] + random.normal(size=(probes, 6))
    other = centres[whose] + 0.3 * random.normal(size=(gallery, 6))
    if round_to:
        one, other = np.round(one * round_to), np.round(other * round_to)
        return one, who, other, whose
    unit = [e / np.linalg.norm(e, axis=1, keepdims=True) for e in (one, other)]
    return unit[0], who, unit[1], whose


def searched_slowly(probes, who, gallery, whose):
    rows = []
    for probe, person in zip(probes, who, strict=True):
        scores = [float(np.dot(probe, entry)) for entry in gallery]
        mates = [s for s, p in zip(scores, whose, strict=True) if p == person]
        others = [s for s, p in zip(scores, whose, strict=True) if p != person]
        rank = 1 + sum(s >= max(mates) for s in others) if mates else 0
        rows.append((max(mates, default=-np.inf), max(others), rank))
    return [np.array(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize(("seed", "round_to"), [(0, None), (1, None), (2, 1)])
def test_searches_and_rates_are_those_of_loops(seed, round_to, monkeypatch):
    monkeypatch.setattr("arcface_cakd.evaluation.identification._PROBES", 77)
    case = made(seed, round_to=round_to)
    found = search(*case)
    mate, stranger, rank = searched_slowly(*case)
    assert found.mate == pytest.approx(mate, abs=1e-12)
    assert found.stranger == pytest.approx(stranger, abs=1e-12)
    assert found.rank.tolist() == rank.tolist()
    mated = rank > 0
    assert 0 < mated.sum() < len(rank)
    for k in RANKS:
        assert found.rank_rate(k) == pytest.approx(np.mean(rank[mated] <= k), abs=1e-12)
    for fpir in (0.1, 0.3):
        best = 0.0
        for threshold in np.concatenate([mate[mated], stranger]):
            if np.mean(stranger[~mated] >= threshold) <= fpir:
                best = max(best, np.mean((mate[mated] >= threshold) & (rank[mated] == 1)))
        assert found.tpir_at(fpir) == pytest.approx(best, abs=1e-12)


def test_probes_drawn_again_count_as_repeated_ones():
    case = made(4)
    found = search(*case)
    weights = np.random.default_rng(5).integers(0, 4, len(case[1]))
    repeated = Searches(*(np.repeat(x, weights) for x in (found.mate, found.stranger, found.rank)))
    for k in RANKS:
        assert found.rank_rate(k, weights) == pytest.approx(repeated.rank_rate(k), abs=1e-12)
    for fpir in (0.1, 0.2):
        assert found.tpir_at(fpir, weights) == pytest.approx(repeated.tpir_at(fpir), abs=1e-12)


def test_the_mean_is_over_galleries_and_people_are_drawn_for_both():
    probes, who, gallery, whose = made(6, probes=900)
    half = whose % 2 == 0
    searches = {
        name: search(probes, who, gallery[part], whose[part])
        for name, part in (("one", half), ("two", ~half))
    }
    results = identification(searches, {"one": 20, "two": 20}, who, "mean", draws=60)
    assert list(results) == ["one", "two", "mean"]
    mean = results["mean"]
    for k in RANKS:
        both = [searches[name].rank_rate(k) for name in ("one", "two")]
        assert mean.rank[k] == pytest.approx(np.mean(both), abs=1e-12)
    assert mean.tpir[0.001] is None and mean.intervals["tpir.0.001"] is None
    both = [searches[name].tpir_at(0.1) for name in ("one", "two")]
    assert mean.tpir[0.1] == pytest.approx(np.mean(both), abs=1e-12)
    for figure, rate in (("rank.1", mean.rank[1]), ("tpir.0.1", mean.tpir[0.1])):
        assert mean.intervals[figure].low < rate < mean.intervals[figure].high
    assert identification(searches, {}, who, "mean", 0)["one"].intervals["rank.1"] is None


def test_the_protocol_looks_for_each_probe_in_both_galleries(templates):
    protocol = TemplateSearch([templates.folder])
    results = protocol.judge(EMBEDDER, draws=20)
    assert list(results) == ["ijbc G1", "ijbc G2", "ijbc mean"]
    numbers, units = embed_templates(read_template_images(templates.folder), EMBEDDER)
    unit = dict(zip(numbers.tolist(), units, strict=True))
    for name, listed in zip(results, templates.galleries.values(), strict=False):
        _, _, rank = searched_slowly(
            [unit[t] for t in templates.probes],
            [templates.people[t] for t in templates.probes],
            [unit[t] for t in listed],
            [templates.people[t] for t in listed],
        )
        found = results[name]
        assert (found.gallery, found.mated, found.non_mated) == (6, 18, 18)
        for k in RANKS:
            assert found.rank[k] == pytest.approx(np.mean(rank[rank > 0] <= k), abs=1e-9)
    assert results["ijbc G1"].rank[1] < 1  # else it would tell nothing
    assert (results["ijbc mean"].mated, results["ijbc mean"].non_mated) == (36, 36)
    lines = protocol.table(results).splitlines()
    assert lines[1].split()[:5] == ["ijbc", "G1", "6", "18", "18"]
    assert lines[5].split()[4] == f"{100 * results['ijbc mean'].rank[1]:.2f}"
    figures = json.loads(json.dumps(results["ijbc G1"].to_dict()))
    check_intervals(figures)
    assert figures["rank"]["1"] == results["ijbc G1"].rank[1]
    assert set(figures["tpir"]) == {f"{fpir:g}" for fpir in FPIRS}


@pytest.mark.parametrize(
    ("table", "edit", "said"),
    [
        ("1N_probe_mixed", None, "identification needs the tables"),
        ("1N_gallery_G1", lambda x: [x[0], "99999,1,a,b"], "template 99999 has no image"),
        ("1N_gallery_G1", lambda x: [*x, x[1].replace(",", ",9", 1)], "is of several people"),
        ("1N_gallery_G1", lambda x: [*x, "3"], "is no numbers"),
        ("1N_gallery_G2", lambda x: [x[0]], "there are no rows"),
        (
            "1N_probe_mixed",
            "1N_gallery_G2",
            r"template \d+ is in 1N_gallery_G2 and a probe, 1 such templates in all",
        ),
        (
            "1N_probe_mixed",
            lambda x: [x[0], *(",".join([r.split(",")[0], "777"]) for r in x[1:])],
            "nobody of ijbc_1N_probe_mixed.csv is in 1N_gallery_G1",
        ),
    ],
)
def test_what_is_wrong_with_the_tables_is_one_line(templates, tmp_path, table, edit, said):
    folder = tmp_path / "spoilt"
    shutil.copytree(templates.folder, folder)
    path = folder / "meta" / f"ijbc_{table}.csv"
    lines = path.read_text().splitlines()
    if isinstance(edit, str):  # one of its templates is in both
        other = (folder / "meta" / f"ijbc_{edit}.csv").read_text().splitlines()
        path.write_text("\n".join([*lines, other[1]]) + "\n")
    else:
        path.unlink() if edit is None else path.write_text("\n".join(edit(lines)) + "\n")
    with pytest.raises((DataError, EvaluationError), match=said):
        TemplateSearch([folder])
