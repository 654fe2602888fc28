"""What the README says of real faces, by how much and how surely, is what the cells say."""

import re
import statistics
from pathlib import Path

import numpy as np
import pytest

from arcface_cakd.evaluation import holm

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "eval" / "study"
SEEDS = range(11, 16)
OURS = "embedding_64_urfm_100_1_falling_8_epochs"
EMBEDDING = "embedding_128_8_epochs"
FITNET, CAKD_LIU, REVIEW_40, REVIEW_120 = (
    f"embedding_64_{rival}_8_epochs"
    for rival in ("fitnet_140", "cakd_liu_0.57", "reviewkd_40", "reviewkd_120")
)
RIVALS = (FITNET, CAKD_LIU, REVIEW_40, REVIEW_120)


def study_of(*sets):
    from comparing import Study

    return Study(STUDY / "runs", ["real"], sets, SEEDS, draws=2)


@pytest.fixture(scope="module")
def both():
    return study_of("test", "reserve")


@pytest.fixture(scope="module")
def apart():
    return {name: study_of(name) for name in ("test", "reserve", "cfp_ff", "cfp_fp")}


@pytest.fixture(scope="module")
def readme():
    return " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


def best(study, *methods):
    return min(methods, key=lambda name: sum(study.values(name, "1-auc")))


def p_of(study, other):
    return study.difference(OURS, other, "1-auc").p


def less_than(study, other):
    """By how much the default's 1 - AUC is below another's, as the README writes it."""
    found = study.difference(OURS, other, "1-auc")
    return f"{-found.value:.4f} [{-found.high:.4f}, {-found.low:.4f}]"


def test_the_sentence_that_says_by_how_much(both, apart, readme):
    assert best(both, *RIVALS) == REVIEW_120
    for other, whose in (
        ("plain_8_epochs", "below the plain student's by"),
        (EMBEDDING, "below the embedding alone at its best weight by"),
        (REVIEW_120, "below the best rival, ReviewKD at 120 beside the embedding, by"),
    ):
        assert f"{whose} {less_than(both, other)}" in readme, other
    for name, where in (("cfp_ff", "CFP's frontal faces"), ("cfp_fp", "profile")):
        assert best(apart[name], *RIVALS) == REVIEW_40
        plain, alone, rival = (
            less_than(apart[name], other) for other in ("plain_8_epochs", EMBEDDING, REVIEW_40)
        )
        them = "it is below them by" if name == "cfp_ff" else "by"
        assert f"{where} {them} {plain}, {alone} and {rival}" in readme


def test_pairs_and_people(readme):
    """By number: the cells hold no names, and the builder has nobody in two sets."""
    from records import read_people

    pairs, people = {}, {}
    for name in ("test", "reserve", "cfp_ff", "cfp_fp"):
        found, listed, _ = read_people(STUDY / "runs", "real", name)
        pairs[name] = listed
        people[name] = len(np.unique(found.persons[:listed]))
    known = pairs["test"] + pairs["reserve"], people["test"] + people["reserve"]
    assert f"{known[1]} of LFW, in {known[0]:,} pairs of two sets, `test` and `reserve`" in readme
    assert people["cfp_ff"] == people["cfp_fp"]
    said = f"{people['cfp_ff']} people in {pairs['cfp_ff']:,} pairs of two frontal faces"
    assert f"{said} and {pairs['cfp_fp']:,} of a frontal one and a profile" in readme


def test_shares_of_the_way(both, readme):
    """Without their intervals, which are drawn."""
    (teacher,) = both.values("teacher", "1-auc")
    plain = sum(both.values("plain_8_epochs", "1-auc")) / 5
    shown = [EMBEDDING, FITNET, CAKD_LIU, REVIEW_40, REVIEW_120, OURS]
    rows = re.findall(r"\| \**(\d+) %\** \[\d+, \d+\] \|", readme)
    shares = [(plain - sum(both.values(name, "1-auc")) / 5) / (plain - teacher) for name in shown]
    assert rows == [f"{100 * share:.0f}" for share in shares]


def test_hypotheses(both, apart, readme):
    """By Holm over three: H2 was not judged anew, and counts."""
    ours = {name: p_of(study, EMBEDDING) for name, study in apart.items()}
    most = f"{max(ours.values()):.4f}"
    assert f"holds on each of the four sets by itself (p at most {most})" in readme
    assert best(apart["test"], *RIVALS) == REVIEW_120
    assert best(apart["reserve"], *RIVALS) == REVIEW_40
    at_best = p_of(apart["test"], REVIEW_120)
    fresh, weight = (p_of(apart["reserve"], other) for other in (REVIEW_40, REVIEW_120))
    assert min(at_best, fresh) > 0.05
    assert f"On `test`, against ReviewKD at 120, p is {at_best:.3f}; on `reserve`" in readme
    assert f"40, p is {fresh:.3f} ({weight:.3f} against 120)" in readme
    together = {"H1": p_of(both, EMBEDDING), "H2": 1.0, "H3": p_of(both, REVIEW_120)}
    adjusted = holm(together)["H3"]
    assert f"give p {together['H3']:.3f}, by Holm over three {adjusted:.3f};" in readme
    third = {"H1": ours["test"], "H2": 1.0, "H3": p_of(apart["test"], REVIEW_40)}
    assert f"(p {third['H3']:.3f}, by Holm over three {holm(third)['H3']:.3f})" in readme


def test_the_default_is_ahead_of_reviewkd_and_took_half_of_its_time(apart, readme):
    for study in apart.values():
        for other in (REVIEW_40, REVIEW_120):
            assert study.difference(OURS, other, "1-auc").value < 0
    from grid import Cell

    cells = apart["test"].cells
    costs = [
        statistics.median(cells[Cell("real", method, seed)]["cpu_seconds"] for seed in SEEDS)
        for method in (OURS, REVIEW_120)
    ]
    said = f"at half of its CPU time ({costs[0]:.0f} and {costs[1]:.0f} seconds a training"
    assert said in readme
    assert costs[0] / costs[1] == pytest.approx(0.5, abs=0.03)


def test_made_faces(readme):
    from comparing import Study

    sets = ["lfw", "cfp_fp", "agedb_30"]
    study = Study(STUDY / "runs", ["made_wide_cpu_confirmation"], sets, SEEDS, draws=2)
    urfm, embedding, default, squares = (
        "embedding_256_urfm_100_1_falling",
        "embedding_256",
        "embedding_64_urfm_100_1_falling",
        "embedding_l2_1.74",
    )
    assert best(study, "embedding_128", embedding) == embedding
    plain, alone, beside, ours, rival = (
        f"{sum(study.values(name, '1-auc')) / 5:.4f}"
        for name in ("plain", embedding, urfm, default, squares)
    )
    assert f"1 - AUC is {plain} for a plain student, {alone} for the embedding alone" in readme
    assert f"256, and {beside} with URFM beside that" in readme
    assert f"has {ours}, and the best rival, `embedding_l2`, {rival}:" in readme
    found = study.difference(embedding, urfm, "1-auc")
    said = f"by {found.value:.4f} [{found.low:.4f}, {found.high:.4f}] (p {found.p:.3f})"
    assert f"H1 holds there, {said}" in readme
    assert found.p < 0.05
    found = study.difference(default, squares, "1-auc")
    assert f"behind it by {found.value:.4f} [{found.low:.4f}, {found.high:.4f}]" in readme
    assert found.low > 0
