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


def study_of(*sets, data=("real",), seeds=SEEDS):
    from comparing import Study

    return Study(STUDY / "runs", data, sets, seeds, draws=2)


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


def test_hypotheses(apart, readme):
    ours = {name: p_of(study, EMBEDDING) for name, study in apart.items()}
    most = f"{max(ours.values()):.4f}"
    assert f"holds on each of the four sets by itself (p at most {most})" in readme
    better = {"test": REVIEW_120, "reserve": REVIEW_40, "cfp_ff": REVIEW_40, "cfp_fp": REVIEW_40}
    for name, rival in better.items():
        assert best(apart[name], *RIVALS) == rival
    found = {name: p_of(apart[name], rival) for name, rival in better.items()}
    test, reserve, frontal, profile = (f"{p:.3f}" for p in found.values())
    sixth = {f"H1 {name}": ours[name] for name in ("cfp_ff", "cfp_fp")}
    sixth |= {name: found[name] for name in ("cfp_ff", "cfp_fp")}
    adjusted = holm(sixth)
    assert min(found["test"], found["reserve"], adjusted["cfp_ff"], adjusted["cfp_fp"]) > 0.05
    said = f"p is {test} on `test`, {reserve} on `reserve`, {frontal} and {profile} on CFP's, which"
    assert f"{said} Holm makes {adjusted['cfp_ff']:.3f} and {adjusted['cfp_fp']:.3f})" in readme


def test_h3_in_the_folds(readme):
    from grid import FOLDS
    from records import read_people

    study = study_of("held_out", data=FOLDS, seeds=(31, 32, 33))
    assert study.seeds(OURS, REVIEW_120) == [31, 32, 33]
    people = [read_people(STUDY / "runs", fold, "held_out")[0].persons for fold in FOLDS]
    count = sum(len(np.unique(found)) for found in people)
    assert f"judged on the fourth, {count:,} people in all, three seeds)" in readme
    ours, theirs = (statistics.mean(study.values(m, "1-auc")) for m in (OURS, REVIEW_120))
    found = study.difference(OURS, REVIEW_120, "1-auc")
    p = "p < 0.001" if found.p < 0.001 else f"p {found.p:.3f}"
    less = f"{less_than(study, REVIEW_120)}, {p}"
    assert f"1 - AUC is {ours:.4f} for {theirs:.4f} of ReviewKD at 120, less by {less}." in readme
    assert found.high < 0
    assert "ReviewKD beside the embedding, **holds** in the three tables that asked last" in readme
    first = study_of("held_out", data=FOLDS, seeds=(31,))
    forty, hundred, ours = (
        f"{first.values(m, '1-auc')[0]:.4f}" for m in (REVIEW_40, REVIEW_120, OURS)
    )
    said = f"has {forty} there, where by that seed 120 has {hundred} and the default {ours}."
    assert said in " ".join((STUDY / "README.md").read_text(encoding="utf-8").split())


def test_each_with_the_epochs_that_suit_it(readme):
    from grid import Cell

    longer = OURS.replace("_8_", "_16_")
    study = study_of("test", "reserve", seeds=(11, 12, 13))
    ours, theirs, plain = (
        statistics.mean(study.values(method, "1-auc")[:3])
        for method in (longer, REVIEW_120, "plain_8_epochs")
    )
    assert len(study.values(longer, "1-auc")) == 3
    found = study.difference(longer, REVIEW_120, "1-auc")
    less = f"{-found.value:.4f} [{-found.high:.4f}, {-found.low:.4f}], p {found.p:.3f}"
    said = (
        f"LFW's people above the default with 16 has {ours:.4f} for {theirs:.4f}, less by {less};"
    )
    assert said in readme
    (teacher,) = study.values("teacher", "1-auc")
    assert f"it is {100 * (plain - ours) / (plain - teacher):.0f} % [" in readme
    cost = statistics.median(
        study.cells[Cell("real", longer, s)]["cpu_seconds"] for s in range(11, 14)
    )
    assert f"nine tenths of it ({cost:.0f})" in readme
    # By dev, and by one seed.
    text = " ".join((STUDY / "README.md").read_text(encoding="utf-8").split())
    on_dev = study_of("dev", seeds=(1,))

    def figures(method, *epochs):
        return (f"{on_dev.values(f'{method}_{n}_epochs', '1-auc')[0]:.4f}" for n in epochs)

    ours = OURS.removesuffix("_8_epochs")
    assert "({}, {}; with 32 {}), plain".format(*figures(ours, 8, 16, 32)) in text
    for method, said in (
        ("plain", "plain ({}, {})"),
        ("embedding_128", "the embedding ({}, {})"),
        ("embedding_64_reviewkd_120", "ReviewKD at 120 ({}, {}) and"),
        ("embedding_64_reviewkd_40", "at 40 ({}, {}) lose"),
        ("embedding_64_cakd_liu_0.57", "as CAKD-Liu does ({}, {};"),
        ("embedding_64_fitnet_140", "FitNet at 140 gains a little ({}, {};"),
    ):
        assert said.format(*figures(method, 8, 16)) in text


def test_each_with_the_epochs_that_suit_it_on_cfp(readme):
    text = " ".join((STUDY / "README.md").read_text(encoding="utf-8").split())
    longer, p, lesser = OURS.replace("_8_", "_16_"), {}, []
    for name, where in (("cfp_ff", "on CFP's frontal faces"), ("cfp_fp", "and on its profiles")):
        study = study_of(name, seeds=(11, 12, 13))
        assert study.seeds(longer, REVIEW_120, EMBEDDING) == [11, 12, 13]
        assert best(study, REVIEW_40, REVIEW_120) == REVIEW_120
        ours, theirs = (statistics.mean(study.values(m, "1-auc")) for m in (longer, REVIEW_120))
        if name == "cfp_ff":
            (teacher,) = study.values("teacher", "1-auc")
            plain = statistics.mean(study.values("plain_8_epochs", "1-auc"))
            before = statistics.mean(study.values(OURS, "1-auc"))
            now, then = (100 * (plain - x) / (plain - teacher) for x in (ours, before))
            assert f"and {now:.0f} % [" in readme
            assert f"on CFP's frontal faces, where it was {then:.0f} % with 8 by the same" in readme
        found = study.difference(longer, REVIEW_120, "1-auc")
        sure = "p < 0.001" if found.p < 0.001 else f"p {found.p:.3f}"
        less = f"{-found.value:.4f} [{-found.high:.4f}, {-found.low:.4f}], {sure}"
        assert f"{where} {ours:.4f} for {theirs:.4f}, less by {less}" in readme
        p |= {f"H1 {name}": study.difference(longer, EMBEDDING, "1-auc").p, f"H3 {name}": found.p}
        forty = study.difference(longer, REVIEW_40, "1-auc")
        lesser.append(f"{as_cell(forty)}, p {forty.p:.3f}")
    assert f"the ninth has {lesser[0]}, and {lesser[1]}." in text
    adjusted = holm(p)
    assert adjusted["H1 cfp_fp"] < 0.001
    h1, h3, profile = (adjusted[name] for name in ("H1 cfp_ff", "H3 cfp_ff", "H3 cfp_fp"))
    assert f"({h1:.3f} and {h3:.3f}, below 0.001 and {profile:.3f}, H1 and H3 on" in text
    # Asked eleven times, by the least p of the folds and here.
    assert f"of {p['H3 cfp_fp']:.4f} on `cfp_fp` {11 * p['H3 cfp_fp']:.3f}." in text


def as_cell(found):
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def test_the_frozen_tables():
    """Each row of the study's own README; the first two are drawn, and told in the log."""
    from comparing import Study
    from grid import FOLDS

    text = (STUDY / "README.md").read_text(encoding="utf-8")

    def shown(number, name, h1, h3, rival):
        row = re.escape(f" {h1} | {h3} | {rival} |\n")
        return re.search(rf"\n\| {number} \| `{name}`[^|]*\|[^|]*\|{row}", text)

    for number, name, data, seeds, embedding, rival in (
        (3, "test", ["real"], SEEDS, EMBEDDING, REVIEW_40),
        (4, "test", ["real"], SEEDS, None, REVIEW_120),
        (5, "reserve", ["real"], SEEDS, EMBEDDING, REVIEW_40),
        (6, "cfp_ff", ["real"], SEEDS, EMBEDDING, REVIEW_40),
        (6, "cfp_fp", ["real"], SEEDS, EMBEDDING, REVIEW_40),
        (7, "held_out", FOLDS, (31, 32, 33), None, REVIEW_120),
    ):
        study = study_of(name, data=data, seeds=seeds)
        h1, h3 = (
            as_cell(study.difference(OURS, other, "1-auc")) if other else "-"
            for other in (embedding, rival)
        )
        weight = re.search(r"reviewkd_(\d+)", rival)[1]
        assert shown(number, name, h1, h3, f"ReviewKD at {weight}"), (number, name)
    study, longer = study_of("test", "reserve", seeds=(11, 12, 13)), OURS.replace("_8_", "_16_")
    h1, h3 = (as_cell(study.difference(longer, m, "1-auc")) for m in (EMBEDDING, REVIEW_120))
    assert shown(8, "test", h1, h3, "ReviewKD at 120")
    for name in ("cfp_ff", "cfp_fp"):
        study = study_of(name, seeds=(11, 12, 13))
        h1, h3 = (as_cell(study.difference(longer, m, "1-auc")) for m in (EMBEDDING, REVIEW_120))
        assert shown(9, name, h1, h3, "ReviewKD at 120")
    sets = ["lfw", "cfp_fp", "agedb_30"]
    study = Study(STUDY / "runs", ["made_wide_cpu_confirmation"], sets, SEEDS, draws=2)
    h1, h3 = (
        as_cell(study.difference(*methods, "1-auc"))
        for methods in (
            ("embedding_256_urfm_100_1_falling", "embedding_256"),
            ("embedding_64_urfm_100_1_falling", "embedding_l2_1.74"),
        )
    )
    assert shown("made faces", "lfw", h1, h3, "embedding_l2")


def test_what_two_sets_say_together(both, apart):
    """By Holm over three: H2 was not judged anew, and counts."""
    text = " ".join((STUDY / "README.md").read_text(encoding="utf-8").split())
    found = both.difference(OURS, REVIEW_120, "1-auc")
    adjusted = holm({"H1": p_of(both, EMBEDDING), "H2": 1.0, "H3": found.p})["H3"]
    said = f"{as_cell(found)} against ReviewKD at 120, p"
    assert f"{said} {found.p:.3f}, by Holm over three {adjusted:.3f} (drawn" in text
    third = {"H1": p_of(apart["test"], EMBEDDING), "H2": 1.0, "H3": p_of(apart["test"], REVIEW_40)}
    assert f"by the present one {third['H3']:.3f} and {holm(third)['H3']:.3f}." in text
    three = study_of("test", "reserve", "cfp_ff")
    found = three.difference(OURS, REVIEW_120, "1-auc")
    said = (
        f"with `cfp_ff`, beside the sixth, {found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    )
    assert f"{said}, p {found.p:.3f}, uncorrected." in text


def test_the_default_is_ahead_of_reviewkd_and_took_half_of_its_time(apart, readme):
    for study in apart.values():
        for other in (REVIEW_40, REVIEW_120):
            assert study.difference(OURS, other, "1-auc").value < 0
    said = (
        "8 epochs for all the default is ahead of it at either weight on each of the four sets too"
    )
    assert said in readme
    from grid import Cell

    cells = apart["test"].cells
    costs = [
        statistics.median(cells[Cell("real", method, seed)]["cpu_seconds"] for seed in SEEDS)
        for method in (OURS, REVIEW_120)
    ]
    said = f"half of ReviewKD's CPU time ({costs[0]:.0f} and {costs[1]:.0f} seconds a training)"
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
