"""What the README says of real faces, by how much and how surely, is what the cells say."""

import json
import re
from pathlib import Path

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

    return Study(STUDY / "runs", "real", sets, SEEDS, draws=2)


@pytest.fixture(scope="module")
def both():
    return study_of("test", "reserve")


@pytest.fixture(scope="module")
def apart():
    return {name: study_of(name) for name in ("test", "reserve")}


@pytest.fixture(scope="module")
def readme():
    return " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


def best(study, *methods):
    return min(methods, key=lambda name: sum(study.values(name, "1-auc")))


def p_of(study, other):
    return study.difference(OURS, other, "1-auc").p


def test_the_sentence_that_says_by_how_much(both, readme):
    for other, whose in (
        ("plain_8_epochs", "below the plain student's by"),
        (EMBEDDING, "below the embedding alone at its best weight by"),
        (best(both, *RIVALS), "below the best rival, ReviewKD beside the embedding, by"),
    ):
        found = both.difference(OURS, other, "1-auc")
        less = f"{-found.value:.4f} [{-found.high:.4f}, {-found.low:.4f}]"
        assert f"{whose} {less}" in readme, other


def test_pairs_and_people(readme):
    people, pairs = set(), 0
    for name in ("test", "reserve"):
        from records import read_people

        persons, listed, _ = read_people(STUDY / "runs", "real", name)
        pairs += listed
        people |= {(name, person) for person in persons.persons[:listed].ravel()}
    assert f"{pairs:,} pairs of {len(people)} people" in readme


def test_shares_of_the_way(both, readme):
    """Without their intervals, which are drawn."""
    means = {name: sum(both.values(name, "1-auc")) / 5 for name in (OURS, "plain_8_epochs")}
    (teacher,) = both.values("teacher", "1-auc")
    share = (means["plain_8_epochs"] - means[OURS]) / (means["plain_8_epochs"] - teacher)
    assert f"| **{100 * share:.0f} %**" in readme


def test_hypotheses(both, apart, readme):
    """By Holm over three: H2 was not judged anew, and counts."""
    assert all(p_of(study, EMBEDDING) < 0.001 for study in apart.values())
    assert "holds, on either set by itself (p < 0.001)" in readme
    at_best = p_of(apart["test"], REVIEW_120)
    assert f"p {at_best:.3f} on `test` against ReviewKD at 120" in readme
    assert best(apart["reserve"], *RIVALS) == REVIEW_40
    fresh, weight = (p_of(apart["reserve"], other) for other in (REVIEW_40, REVIEW_120))
    assert f"p {fresh:.3f} on `reserve` against the better of both there, at 40" in readme
    assert f"({weight:.3f} against 120)" in readme
    assert min(at_best, fresh) > 0.05
    together = {
        "H1": p_of(both, EMBEDDING),
        "H2": 1.0,
        "H3": p_of(both, best(both, *RIVALS)),
    }
    assert f"have p {together['H3']:.3f}, by Holm over three {holm(together)['H3']:.3f}" in readme
    third = {**together, "H1": 0.0, "H3": p_of(apart["test"], REVIEW_40)}
    assert f"(p {third['H3']:.3f}, by Holm over three {holm(third)['H3']:.3f})" in readme


def test_what_a_step_costs(readme):
    found = json.loads((STUDY / "step_costs.json").read_text(encoding="utf-8"))["ratios"]
    ours, theirs = (
        found[f"{method.removesuffix('_8_epochs')} / plain"]["median"]
        for method in (OURS, REVIEW_120)
    )
    (said,) = re.findall(r"at (\d\.\d\d) of a ReviewKD step's cost", readme)
    assert said == f"{ours / theirs:.2f}"
