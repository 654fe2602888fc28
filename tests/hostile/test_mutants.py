"""The short form of eval/reliability/fuzz.py: some mutants for each parser of ours."""

import random

import pytest
from helpers.mutants import TARGETS, Target, mutant

NUMBERS = {"image": 40, "weights": 15, "onnx": 5, "settings": 20}
REFUSED = {"landmarks": 2, "settings": 4}  # of the corpus


@pytest.mark.parametrize("name", TARGETS)
def test_a_mutant_is_read_or_refused_in_one_documented_line(tmp_path, name):
    target = TARGETS[name]
    corpus = target.corpus(tmp_path)
    refused = 0
    for whole in corpus:
        try:
            target.read(whole, tmp_path)
        except target.errors:
            refused += 1
    # Most of what is changed was good: else all would be refused for what it was before.
    assert refused <= REFUSED.get(name, 0)
    refused = 0
    for number in range(NUMBERS.get(name, 40)):
        data = mutant(target, corpus, random.Random(f"{name} {number}"))
        try:
            target.read(data, tmp_path)
        except target.errors as error:
            refused += 1
            assert "\n" not in str(error), number
    assert refused


def test_a_change_that_fails_is_another_change():
    """Or eval/reliability/fuzz.py would come no further."""

    def fails(data, rng):
        raise NotImplementedError("zip file version 25.5")

    target = Target(lambda folder: [b"abc"], lambda data, folder: None, (fails,))
    assert all(mutant(target, [b"abc"], random.Random(seed)) != b"abc" for seed in range(3))
