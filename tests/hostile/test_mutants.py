"""The short form of eval/reliability/fuzz.py: some mutants for each parser of ours."""

import random

import pytest
from helpers.mutants import TARGETS, mutant

NUMBERS = {"image": 40, "weights": 15, "onnx": 5, "settings": 20}


@pytest.mark.parametrize("name", TARGETS)
def test_a_mutant_is_read_or_refused_in_one_documented_line(tmp_path, name):
    target = TARGETS[name]
    corpus = target.corpus(tmp_path)
    for whole in corpus:
        if name not in ("settings", "landmarks"):  # among which some are none
            target.read(whole, tmp_path)
    refused = 0
    for number in range(NUMBERS.get(name, 40)):
        data = mutant(target, corpus, random.Random(f"{name} {number}"))
        try:
            target.read(data, tmp_path)
        except target.errors as error:
            refused += 1
            assert "\n" not in str(error), number
    assert refused
