"""What the README says of real faces, by how much and how surely, is what the cells say."""

from pathlib import Path

import pytest

from arcface_cakd.evaluation import holm

ROOT = Path(__file__).parents[2]
SEEDS = range(11, 16)
OURS = "embedding_64_urfm_100_1_falling_8_epochs"


@pytest.fixture(scope="module")
def study():
    from comparing import Study

    return Study(ROOT / "eval" / "study" / "runs", "real", ["test"], SEEDS, draws=2)


@pytest.fixture(scope="module")
def readme():
    return " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


@pytest.mark.parametrize(
    "other",
    [
        "plain_8_epochs",
        "embedding_128_8_epochs",
        "embedding_64_fitnet_140_8_epochs",
        "embedding_64_cakd_liu_0.57_8_epochs",
        "embedding_64_reviewkd_40_8_epochs",
        "embedding_64_reviewkd_120_8_epochs",
    ],
)
def test_differences_and_their_intervals(other, study, readme):
    found = study.difference(OURS, other, "1-auc")
    less = f"{-found.value:.4f} [{-found.high:.4f}, {-found.low:.4f}]"
    assert less in readme, less


def test_shares_of_the_way(study, readme):
    """Without their intervals, which are drawn."""
    means = {name: sum(study.values(name, "1-auc")) / 5 for name in (OURS, "plain_8_epochs")}
    (teacher,) = study.values("teacher", "1-auc")
    share = (means["plain_8_epochs"] - means[OURS]) / (means["plain_8_epochs"] - teacher)
    assert f"| **{100 * share:.0f} %**" in readme


def test_hypotheses(study, readme):
    """By Holm over three: H2 was not judged anew, and counts. H3 is against each table's best."""

    def p_of(*others):
        best = min(others, key=lambda name: sum(study.values(name, "1-auc")))
        return study.difference(OURS, best, "1-auc").p

    one = p_of("embedding_128_8_epochs")
    others = [f"embedding_64_{rival}_8_epochs" for rival in ("fitnet_140", "cakd_liu_0.57")]
    third, fourth = (
        p_of(*others, f"embedding_64_reviewkd_{weight}_8_epochs") for weight in (40, 120)
    )
    assert one < 0.001
    assert "holds (p < 0.001)" in readme
    adjusted = holm({"H1": one, "H2": 1.0, "H3": third})["H3"]
    assert f"p {third:.3f}, by Holm over three {adjusted:.3f})" in readme
    assert fourth > 0.05
    assert f"is not shown (p {fourth:.3f})" in readme
