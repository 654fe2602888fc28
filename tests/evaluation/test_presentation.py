import numpy as np
import pytest

from arcface_cakd.evaluation import (
    EvaluationError,
    check_picture,
    plot_roc,
    verification_metrics,
    verification_table,
)


def result(noise, pairs=400, seed=0):
    random = np.random.default_rng(seed)
    issame = np.arange(pairs) % 2 == 0
    first = random.normal(size=(pairs, 8))
    second = np.where(issame[:, None], first, random.normal(size=(pairs, 8)))
    second = second + noise * random.normal(size=second.shape)
    return verification_metrics(np.stack([first, second], axis=1).reshape(-1, 8), issame)


def test_the_table_is_aligned_and_holds_the_figures():
    results = {"lfw": result(0.5), "agedb_30": result(1.5, pairs=3000)}
    lines = verification_table(results).splitlines()
    header, lfw, agedb = lines[:3]
    assert len(header) == len(lfw) == len(agedb)
    assert header.split("  ")[0] == "set"
    assert lfw.split()[:2] == ["lfw", "400"]
    assert f"{100 * results['lfw'].accuracy:.2f} +- {100 * results['lfw'].accuracy_std:.2f}" in lfw
    assert f"{100 * results['agedb_30'].auc:.3f}" in agedb
    assert f"{100 * results['agedb_30'].eer:.2f}" in agedb
    assert "TAR@FAR=0.01 %" in header
    assert "TAR@FAR=0.001" not in header  # neither set carries it
    assert lfw.split()[-1] == "-"
    assert agedb.split()[-1] == f"{100 * results['agedb_30'].tar[0.01]:.2f}"
    assert lines[3:] == [
        "lfw: no TAR below FAR=0.05, which is 10 false accepts among 200 negative pairs",
        "agedb_30: no TAR below FAR=0.0067, which is 10 false accepts among 1500 negative pairs",
    ]


def test_too_few_pairs_for_any_far_are_told(tmp_path):
    few = {"twelve": result(0.5, pairs=12), "lfw": result(0.5)}
    lines = verification_table(few).splitlines()
    assert lines[3] == (
        "twelve: no TAR at any FAR, for 6 negative pairs are too few: a FAR is given from 10 false "
        "accepts on"
    )
    assert lines[1].split()[-2:] == ["-", "-"] or lines[1].split()[-1] == "-"
    plot_roc(few, tmp_path / "few.png")
    for far in (0.0, 1.5, -1e-3, float("nan")):
        with pytest.raises(EvaluationError, match="a FAR is above 0 and at most 1"):
            verification_metrics(np.ones((40, 2)), np.arange(20) % 2 == 0, fars=[0.1, far])


def test_the_picture_shows_the_curves(tmp_path):
    from PIL import Image

    good, poor = result(0.3), result(2.0)
    plot_roc({"good": good}, tmp_path / "one.png")
    plot_roc({"good": good, "poor": poor}, tmp_path / "sub" / "two.png", title="lfw")
    one = np.asarray(Image.open(tmp_path / "one.png").convert("RGB"))
    two = np.asarray(Image.open(tmp_path / "sub" / "two.png").convert("RGB"))
    blue, orange = (31, 119, 180), (255, 127, 14)  # matplotlib's first two colours
    assert (one == blue).all(axis=2).sum() > 100
    assert (one == orange).all(axis=2).sum() == 0
    assert (two == orange).all(axis=2).sum() > 100
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["one.png", "two.png"]


NAMES = ["$a$", "_hidden", "\udcff\n", "\\$x^2$", "plain"]


def test_any_name_stands_in_the_picture_as_it_is(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    texts = []

    def savefig(self, *arguments, **options):
        axes = self.axes[0]
        texts.extend([axes.get_title(), *(t.get_text() for t in axes.get_legend().get_texts())])
        return written(self, *arguments, **options)

    written = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", savefig)
    good = result(0.3)
    plot_roc(dict.fromkeys(NAMES, good), tmp_path / "r.svg", title="run$/\udcffmodel$.pt")
    auc = f" (AUC {100 * good.auc:.2f} %)"
    shown = [r"\$a\$", " _hidden", r"\udcff\n", r"\\$x^2\$", "plain"]
    assert texts == [r"run\$/\udcffmodel\$.pt", *(name + auc for name in shown)]


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf", "eps", "PS"])
def test_only_curves_are_replaced(tmp_path, suffix):
    path = tmp_path / f"roc.{suffix}"
    check_picture(path)
    path.touch()  # as mktemp does
    check_picture(path)
    plot_roc({"good": result(0.3)}, path)
    check_picture(path)
    path.write_bytes(b"a thesis")
    with pytest.raises(EvaluationError, match=f"roc.{suffix}: is there, .* or name another file"):
        check_picture(path)
    assert path.read_bytes() == b"a thesis"


def test_a_format_that_can_say_nothing_is_written_once(tmp_path):
    check_picture(tmp_path / "roc.jpg")
    plot_roc({"good": result(0.3)}, tmp_path / "roc.jpg")
    with pytest.raises(EvaluationError, match=r"as \.png, \.pdf, \.svg, \.ps, \.eps can"):
        check_picture(tmp_path / "roc.jpg")


def test_a_picture_of_unknown_format_leaves_nothing(tmp_path):
    with pytest.raises(EvaluationError, match="must end in"):
        plot_roc({"good": result(0.3)}, tmp_path / "roc.nonsense")
    assert list(tmp_path.iterdir()) == []
