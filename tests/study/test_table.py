"""Tables from JSONs that are written here: figures, differences and refusals."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest

from arcface_cakd.evaluation import auc_difference

PEOPLE, PAIRS, LISTED = 40, 400, 350
SOURCES = {"torch": "2", "training": "a", "network r10_mini": "b"}
STRENGTH = {  # how far the scores of one person's pairs lie above the others'
    "colour_histogram": 0.05,
    "plain": 0.2,
    "embedding_64": 0.4,
    "sp_1000": 0.4,
    "rkd_6.7": 0.55,
    "teacher": 0.9,
}


@pytest.fixture(scope="module")
def study():
    import grid
    import records
    import table

    return SimpleNamespace(grid=grid, records=records, table=table)


def persons():
    random = np.random.default_rng(0)
    own = np.arange(PAIRS // 2) % PEOPLE
    others = np.array([random.choice(PEOPLE, 2, replace=False) for _ in range(PAIRS // 2)])
    return np.concatenate([np.stack([own, own], 1), others])[random.permutation(PAIRS)]


def cosines(method, seed):
    random = np.random.default_rng([seed, *map(ord, method)])
    people = persons()
    return np.clip(
        STRENGTH[method] * (people[:, 0] == people[:, 1]) + random.normal(0, 0.2, PAIRS), -1, 1
    )


def write(study, runs, method, seed, *, data="real", scores=None, **changes):
    people = study.records.People(persons()[:, 0] == persons()[:, 1], persons())
    pairs = study.records.PairSet(
        images=np.zeros((0,)),
        places=np.zeros((PAIRS, 2)),
        people=people,
        listed=LISTED,
        sha256="f" * 16,
    )
    study.records.write_people(runs, data, "dev", pairs)
    record = {
        "failure": None,
        "sources": dict(SOURCES),
        "sets": {
            "dev": study.records.scored(pairs, cosines(method, seed if scores is None else scores))
        },
    }
    if seed:
        record |= {"settings": {"lr": 0.1, "seed": seed, "cakd": method}, "cpu_seconds": 100 + seed}
    record |= changes
    study.records.write_record(runs, study.grid.Cell(data, method, seed), record)


@pytest.fixture
def runs(study, tmp_path):
    for method in STRENGTH:
        seeds = (0,) if method in ("teacher", "colour_histogram") else (1, 2, 3)
        for seed in seeds:
            write(study, tmp_path, method, seed)
    return tmp_path


def shown(study, runs, capsys, *words):
    code = study.table.main(["--data", "real", "--runs", str(runs), "--draws", "200", *words])
    out, err = capsys.readouterr()
    assert (code, err) == (0, ""), err
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in out.splitlines()
        if line.startswith("|")
    ]
    return out, {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}


def refused(study, runs, capsys, *words):
    code = study.table.main(["--data", "real", "--runs", str(runs), "--draws", "50", *words])
    assert code == 1
    return capsys.readouterr().err


def one_minus_auc(scores):
    same = persons()[:, 0] == persons()[:, 1]
    wins = [(p > n) + (p == n) / 2 for p, n in itertools.product(scores[same], scores[~same])]
    return 1 - np.mean(wins)


def test_figures_and_order(study, runs, capsys):
    _, rows = shown(study, runs, capsys)
    assert (next(iter(rows)), list(rows)[-1]) == ("colour_histogram", "teacher")
    assert set(rows) == set(STRENGTH)
    values = {m: [one_minus_auc(cosines(m, s)) for s in (1, 2, 3)] for m in ("plain", "rkd_6.7")}
    for method, each in values.items():
        mean, spread = map(float, rows[method]["1-auc"].split(" ± "))
        assert mean == pytest.approx(np.mean(each), abs=2e-4)
        assert spread == pytest.approx(np.std(each, ddof=1), abs=2e-4)
        assert rows[method]["seeds"] == "1 2 3"
        assert rows[method]["CPU s"] == "102"
    teacher = one_minus_auc(cosines("teacher", 0))
    plain = np.mean(values["plain"])
    expected = 100 * (np.mean(values["rkd_6.7"]) - plain) / (teacher - plain)
    assert float(rows["rkd_6.7"]["gap closed"].split(" %")[0]) == pytest.approx(expected, abs=0.6)
    assert rows["plain"]["gap closed"] == "0 % [0, 0]"
    assert rows["teacher"]["gap closed"] == "100 % [100, 100]"


def test_the_way_starts_at_the_plain_student_of_as_many_epochs(study, runs, capsys, monkeypatch):
    for method, strength in {"plain_8_epochs": 0.3, "embedding_64_8_epochs": 0.6}.items():
        monkeypatch.setitem(STRENGTH, method, strength)
        for seed in (1, 2, 3):
            settings = {"lr": 0.1, "seed": seed, "cakd": method, "num_epoch": 8}
            write(study, runs, method, seed, settings=settings)
    longer, short = "embedding_64_8_epochs", "embedding_64"
    out, rows = shown(study, runs, capsys, "--methods", longer, short)
    assert set(rows) == {*STRENGTH} - {"sp_1000", "rkd_6.7"}
    means = {
        method: np.mean([one_minus_auc(cosines(method, seed)) for seed in (1, 2, 3)])
        for method in (longer, short, "plain", "plain_8_epochs")
    }
    teacher = one_minus_auc(cosines("teacher", 0))
    for method, plain in {longer: "plain_8_epochs", short: "plain"}.items():
        expected = 100 * (means[method] - means[plain]) / (teacher - means[plain])
        assert float(rows[method]["gap closed"].split(" %")[0]) == pytest.approx(expected, abs=0.6)
    assert rows["plain_8_epochs"]["gap closed"] == "0 % [0, 0]"
    assert "No gap closed" not in out
    for seed in (1, 2, 3):
        (runs / "real" / "plain_8_epochs" / f"{seed}.json").unlink()
    out, rows = shown(study, runs, capsys, "--methods", longer, short)
    assert rows[longer]["gap closed"] == ""
    assert rows[short]["gap closed"]
    assert "No gap closed where it starts at plain_8_epochs, which was not run." in out


def test_differences_to_the_baseline(study, runs, capsys):
    _, rows = shown(study, runs, capsys)
    baseline = np.mean([one_minus_auc(cosines("embedding_64", s)) for s in (1, 2, 3)])
    for method in ("plain", "rkd_6.7", "teacher"):
        seeds = (0,) if method == "teacher" else (1, 2, 3)
        mean = np.mean([one_minus_auc(cosines(method, s)) for s in seeds])
        value, low, high = _numbers(rows[method]["less embedding_64"])
        assert value == pytest.approx(mean - baseline, abs=2e-4)
        assert low <= value <= high
    assert _numbers(rows["rkd_6.7"]["less embedding_64"])[2] < 0
    assert _numbers(rows["plain"]["less embedding_64"])[1] > 0
    assert float(rows["rkd_6.7"]["p"].strip("<")) < 0.05 < float(rows["sp_1000"]["p"])
    assert rows["embedding_64"]["less embedding_64"] == ""


def test_intervals_of_auc_are_closed_or_drawn(study, runs, capsys):
    """Of the same difference; the closed ones are the package's, to the last digit shown."""
    people = study.records.People(persons()[:, 0] == persons()[:, 1], persons())
    ours, theirs = (
        [np.stack([cosines(method, seed) for seed in (1, 2, 3)])]
        for method in ("rkd_6.7", "embedding_64")
    )
    expected = auc_difference(ours, theirs, [people])
    out, rows = shown(study, runs, capsys)
    assert "differences of 1-auc in closed form, gap closed by 200 draws" in out
    closed = _numbers(rows["rkd_6.7"]["less embedding_64"])
    assert closed == pytest.approx((expected.value, expected.low, expected.high), abs=2e-4)
    out, rows = shown(study, runs, capsys, "--drawn")
    assert "; 200 draws of people and seeds." in out
    drawn = _numbers(rows["rkd_6.7"]["less embedding_64"])
    assert drawn[0] == closed[0]
    # The scores are of single pairs alone, which drawing people counts up to three times.
    assert 1.2 < (drawn[2] - drawn[1]) / (closed[2] - closed[1]) < 2


def _numbers(text):
    value, low, high = text.replace("[", "").replace("]", "").replace(",", "").split()
    return float(value), float(low), float(high)


def test_accuracy_is_of_the_listed_pairs(study, runs, capsys):
    """The figure as recorded, and as it is drawn again, are of the same pairs."""
    _, rows = shown(study, runs, capsys, "--figure", "accuracy")
    value, low, high = _numbers(rows["plain"]["less embedding_64"])
    means = [float(rows[m]["accuracy"].split(" ")[0]) for m in ("plain", "embedding_64")]
    assert value == pytest.approx(means[0] - means[1], abs=2e-4)
    assert low < value < high < 0
    same = (persons()[:, 0] == persons()[:, 1])[:LISTED]
    scores = cosines("teacher", 0)[:LISTED]
    best = max(np.mean((scores >= t) == same) for t in scores)
    assert float(rows["teacher"]["accuracy"]) == pytest.approx(best, abs=0.02)


def test_seeds_that_both_have(study, runs, capsys):
    (runs / "real" / "rkd_6.7" / "2.json").unlink()
    _, rows = shown(study, runs, capsys)
    ours, theirs = (
        [one_minus_auc(cosines(method, seed)) for seed in (1, 3)]
        for method in ("rkd_6.7", "embedding_64")
    )
    expected = np.mean(ours) - np.mean(theirs)
    assert _numbers(rows["rkd_6.7"]["less embedding_64"])[0] == pytest.approx(expected, abs=2e-4)
    _, rows = shown(study, runs, capsys, "--seeds", "2")
    assert rows["plain"]["seeds"] == "2"
    assert "rkd_6.7" not in rows


def test_colours_plain_and_teacher_stand_in_every_table(study, runs, capsys):
    _, rows = shown(study, runs, capsys, "--methods", "rkd_6.7")
    assert set(rows) == {"colour_histogram", "plain", "rkd_6.7", "teacher"}


def test_several_data_say_together(study, runs, capsys):
    """Each seed's figure is the mean over them; one that some of them lack does not count."""
    for method, seeds in {"teacher": (0,), "sp_1000": (1, 2, 3), "rkd_6.7": (1, 3)}.items():
        for seed in seeds:
            write(study, runs, method, seed, data="real_fold_0", scores=seed + 50)
    write(study, runs, "plain", 1, data="real_fold_0", failure="it diverged", sets={})
    both = ("--data", "real", "real_fold_0", "--baseline", "sp_1000")
    out, rows = shown(study, runs, capsys, *both)
    assert out.startswith("**real + real_fold_0**, dev;")
    assert set(rows) == {"teacher", "sp_1000", "rkd_6.7"}
    assert "Failed: real_fold_0/plain/1: it diverged" in out
    left_out = "Left out, as not all data have it: real/colour_histogram/0, real/embedding_64/1"
    assert left_out in out
    assert "real/rkd_6.7/2" in out
    means = [
        np.mean([one_minus_auc(cosines("rkd_6.7", seed + more)) for more in (0, 50)])
        for seed in (1, 3)
    ]
    assert rows["rkd_6.7"]["seeds"] == "1 3"
    mean, spread = map(float, rows["rkd_6.7"]["1-auc"].split(" ± "))
    assert mean == pytest.approx(np.mean(means), abs=2e-4)
    assert spread == pytest.approx(np.std(means, ddof=1), abs=2e-4)
    people = study.records.People(persons()[:, 0] == persons()[:, 1], persons())
    ours, theirs = (
        [np.stack([cosines(method, seed + more) for seed in (1, 3)]) for more in (0, 50)]
        for method in ("rkd_6.7", "sp_1000")
    )
    expected = auc_difference(ours, theirs, [people, people])
    value, low, high = _numbers(rows["rkd_6.7"]["less sp_1000"])
    assert (value, low, high) == pytest.approx(
        (expected.value, expected.low, expected.high), abs=2e-4
    )


def test_the_same_people_are_not_counted_twice(study, runs, capsys):
    for words, whose in {
        ("--data", "real", "real"): "real and real",
        ("--data", "real", "real_swin"): "real and real_swin",
        ("--set", "cfp_ff", "cfp_fp"): "cfp_ff and cfp_fp",
        ("--set", "dev", "dev"): "dev and dev",
    }.items():
        said = refused(study, runs, capsys, *words)
        assert said.startswith(f"error: {whose} are ")
        assert said.endswith("the same people, who would count twice: make a table of each\n")


def test_data_without_sets_to_choose_by(study, runs, capsys):
    said = refused(study, runs, capsys, "--data", "real_fold_0")
    assert said == "error: real_fold_0 has no set to choose by: give --set held_out\n"
    assert "did you mean 'real'" in refused(study, runs, capsys, "--data", "rea")


def test_hypotheses(study, runs, capsys):
    tested = {"H1": "rkd_6.7 embedding_64", "H3": "sp_1000 plain", "H2": "sp_1000 embedding_64"}
    words = [w for name, two in tested.items() for w in ("--hypothesis", name, *two.split())]
    out, _ = shown(study, runs, capsys, *words)
    lines = {line[4:6]: line for line in out.splitlines() if line.startswith("- **H")}
    p = {name: float(line.split("; p ")[1].split(",")[0]) for name, line in lines.items()}
    adjusted = {n: float(line.split("by Holm ")[1].split(";")[0]) for n, line in lines.items()}
    first, second, third = sorted(p, key=p.get)
    assert third == "H2"
    assert adjusted[first] == pytest.approx(3 * p[first], abs=3e-4)
    assert adjusted[second] == pytest.approx(max(2 * p[second], 3 * p[first]), abs=3e-4)
    assert adjusted[third] == pytest.approx(p[third], abs=2e-4)
    seen = float(lines["H1"].split("true difference of ")[1].split()[0])
    _, low, high = _numbers(lines["H1"].split("1-auc: ")[1].split(";")[0])
    # 2.39 + 0.84 standard errors, at alpha 0.05 / 3; the interval is 3.92 of them wide.
    assert seen == pytest.approx((2.394 + 0.842) * (high - low) / 3.92, rel=0.2)


def test_failures_are_named(study, runs, capsys):
    write(study, runs, "rkd_6.7", 4, failure="loss is not finite", sets={})
    out, _ = shown(study, runs, capsys)
    assert "Failed: real/rkd_6.7/4: loss is not finite" in out


class TestRefusals:
    def test_other_sources(self, study, runs, capsys):
        write(study, runs, "plain", 2, sources={**SOURCES, "training": "c"})
        message = refused(study, runs, capsys)
        assert "different sources of 'training' (a, c)" in message

    def test_a_sentinel_ties_them(self, study, runs, capsys):
        write(study, runs, "plain", 2, sources={**SOURCES, "training": "c"})
        after = {**SOURCES, "training": "d"}
        links = [
            {"before": SOURCES, "after": after, "equal": True},
            {"before": {**SOURCES, "training": "c"}, "after": after, "equal": False},
        ]
        (runs / "sentinels.json").write_text(json.dumps(links))
        assert "'training' (a, c)" in refused(study, runs, capsys)
        links[1]["equal"] = True
        (runs / "sentinels.json").write_text(json.dumps(links))
        shown(study, runs, capsys)

    def test_a_sentinel_says_nothing_of_what_it_does_not_use(self, study, runs, capsys):
        for seed, digest in ((1, "x"), (2, "y")):
            write(study, runs, "rkd_6.7", seed, sources={**SOURCES, "distillation": digest})
        link = {"before": SOURCES, "after": SOURCES, "equal": True}
        (runs / "sentinels.json").write_text(json.dumps([link]))
        assert "'distillation' (x, y)" in refused(study, runs, capsys)

    def test_other_settings(self, study, runs, capsys):
        write(study, runs, "plain", 2, settings={"lr": 0.2, "seed": 2})
        assert "trained with different lr (0.1, 0.2)" in refused(study, runs, capsys)

    def test_a_setting_that_came_later_had_todays_default(self, study, runs, capsys):
        write(study, runs, "plain", 2, settings={"lr": 0.1, "seed": 2, "freeze_centers": False})
        shown(study, runs, capsys)
        write(study, runs, "plain", 2, settings={"lr": 0.1, "seed": 2, "freeze_centers": True})
        assert "different freeze_centers (False, True)" in refused(study, runs, capsys)

    def test_other_pairs(self, study, runs, capsys):
        kept = study.records.read_record(runs, study.grid.Cell("real", "plain", 2))
        kept["sets"]["dev"]["bin"] = "0" * 16
        write(study, runs, "plain", 2, sets=kept["sets"])
        assert "real/plain/2 was judged by another dev.bin" in refused(study, runs, capsys)

    def test_nothing_to_show(self, study, runs, capsys):
        assert "no cell of real" in refused(study, runs, capsys, "--set", "test")
        assert "'embedding_10' has no figures" in refused(
            study, runs, capsys, "--baseline", "embedding_10"
        )


def test_scores_are_kept_within_a_step(study):
    random = np.random.default_rng(0)
    scores = np.concatenate([random.uniform(-1, 1, 1000), [-1, 0, 1, 1 + 1e-9]])
    text = study.records.packed_scores(scores)
    assert len(text) < 3 * len(scores)
    assert np.abs(study.records.unpacked_scores(text) - scores).max() <= 1 / 65535 + 1e-8


@pytest.mark.parametrize("seed", range(3))
def test_more_pairs_of_two_people(study, seed):
    random = np.random.default_rng(seed)
    whose = random.integers(0, 6, 15)
    places = np.array([random.choice(15, 2, replace=False) for _ in range(20)])
    found = study.records.more_negatives(places, whose, 30)
    listed = {frozenset(map(int, pair)) for pair in places}
    free = {
        frozenset((i, j))
        for i, j in itertools.combinations(range(15), 2)
        if whose[i] != whose[j] and frozenset((i, j)) not in listed
    }
    drawn = [frozenset(map(int, pair)) for pair in found]
    assert len(drawn) == len(set(drawn)) == 30
    assert set(drawn) < free
    everything = study.records.more_negatives(places, whose, 10**6)
    assert {frozenset(map(int, pair)) for pair in everything} == free
    np.testing.assert_array_equal(everything[:30], found)
    assert study.records.more_negatives(places, whose, -3).shape == (0, 2)


def test_cells_of_another_processor_are_named(study, runs, capsys):
    out, _ = shown(study, runs, capsys)
    assert "another processor" not in out
    write(study, runs, "sp_1000", 2, processor="AuthenticAMD 25 1 AVX2")
    out, _ = shown(study, runs, capsys)
    assert out.count("another processor") == 1
    assert (
        "(not recorded), where one seed gives other figures: AuthenticAMD 25 1 AVX2: sp_1000/2"
        in out
    )
    out, _ = shown(study, runs, capsys, "--methods", "embedding_64")
    assert "another processor" not in out
