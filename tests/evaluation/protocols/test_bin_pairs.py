"""Who is on the pairs of a .bin set. Its figures: tests/evaluation/test_verification.py."""

from pathlib import Path

import numpy as np
import pytest

from arcface_cakd.data import DataError
from arcface_cakd.evaluation import EvaluationError, Pairs, People
from arcface_cakd.evaluation.protocols.bins import find_sets, judged, people_of

ISSAME = np.arange(40) % 2 == 0
LINES = [f"p{k}\tp{k if same else k + 1}" for k, same in enumerate(ISSAME)]


def embeddings():
    random = np.random.default_rng(5)
    first = random.normal(size=(40, 8))
    second = np.where(ISSAME[:, None], first, 0) + random.normal(size=(40, 8))
    return np.stack([first, second], axis=1).reshape(-1, 8)


def test_people_are_those_of_the_file_beside(tmp_path):
    assert isinstance(people_of(tmp_path / "own.bin", ISSAME), Pairs)
    (tmp_path / "own_people.tsv").write_text("\n".join(LINES) + "\n")
    who = people_of(tmp_path / "own.bin", ISSAME)
    assert isinstance(who, People)
    assert ((who.persons[:, 0] == who.persons[:, 1]) == ISSAME).all()
    assert len(np.unique(who.persons)) == len({n for line in LINES for n in line.split("\t")})
    assert judged(embeddings(), ISSAME, 50, who).accuracy_interval.drawn == "people"
    assert judged(embeddings(), ISSAME, 50).accuracy_interval.drawn == "pairs"


def test_the_folder_one_is_in_is_one_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.bin").write_bytes(b"")
    for data in (".", "own", "own.bin", tmp_path):
        assert find_sets([Path(data)]).keys() == {"own"}
    with pytest.raises(EvaluationError, match="no such file or folder"):
        find_sets([Path("other")])


def test_names_may_hold_any_break_but_newlines(tmp_path):
    """As ``data pairs`` writes them."""
    lines = [line.replace("p", "a\u2028b\x85c\x0c") for line in LINES]
    (tmp_path / "own_people.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "plain_people.tsv").write_text("\n".join(LINES), encoding="utf-8")
    found, plain = (people_of(tmp_path / f"{name}.bin", ISSAME) for name in ("own", "plain"))
    assert np.array_equal(found.persons, plain.persons)


def test_a_file_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "own_people.tsv").write_bytes("\n".join(LINES).encode() + b"\xe9")
    with pytest.raises(DataError, match=r"own_people\.tsv: is no text in UTF-8"):
        people_of(tmp_path / "own.bin", ISSAME)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (LINES[1:], "a line for each of 40 pairs"),
        ([*LINES[:-1], "p39"], "a line for each of 40 pairs"),
        (["p0\tp1", *LINES[1:]], "own_people.tsv is of another set .*: make the two anew, or"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, lines, said):
    (tmp_path / "own_people.tsv").write_text("\n".join(lines))
    with pytest.raises(EvaluationError, match=said):
        people_of(tmp_path / "own.bin", ISSAME)
