"""The short form of eval/reliability/fuzz.py: some mutants for each parser of ours."""

import contextlib
import random
from collections import Counter

import pytest
from helpers.mutants import TARGETS, Target, mutant
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NUMBERS = {"image": 40, "weights": 15, "onnx": 5, "settings": 20}
REFUSED = {"landmarks": 2, "settings": 4}  # of the corpus


@pytest.mark.parametrize("name", TARGETS)
def test_a_mutant_is_read_or_refused_in_one_documented_line(tmp_path, name):
    target = TARGETS[name]
    corpus = target.corpus(tmp_path)
    counts = Counter()
    for whole in corpus:
        with contextlib.suppress(*target.errors):
            target.read(whole, tmp_path)
            counts["read"] += 1
    # Most of what is changed was good: else all would be refused for what it was before.
    assert counts["read"] >= len(corpus) - REFUSED.get(name, 0)

    # Hypothesis chooses the seeds, the same in each run of one version, and names one that fails.
    # It cannot draw for the changes themselves: how much they draw hangs on what they meet.
    @given(rng=st.randoms(use_true_random=True))
    @settings(
        max_examples=NUMBERS.get(name, 40),
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    def read_or_refused(rng):
        try:
            target.read(mutant(target, corpus, rng), tmp_path)
        except target.errors as error:
            counts["refused"] += 1
            assert "\n" not in str(error)

    read_or_refused()
    assert counts["refused"]


def test_a_change_that_fails_is_another_change():
    """Or eval/reliability/fuzz.py would come no further."""

    def fails(data, rng):
        raise NotImplementedError("zip file version 25.5")

    target = Target(lambda folder: [b"abc"], lambda data, folder: None, (fails,))
    assert all(mutant(target, [b"abc"], random.Random(seed)) != b"abc" for seed in range(3))
