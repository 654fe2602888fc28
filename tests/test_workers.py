"""A function over jobs in threads: in order, and no more than a few ahead."""

import os
import threading

import pytest

from arcface_cakd.workers import map_in_threads


def test_results_come_in_order_and_a_few_ahead():
    taken = []

    def jobs():
        for number in range(100):
            taken.append(number)
            yield number

    results = map_in_threads(lambda number: (number, threading.get_ident()), jobs(), ahead=2)
    found = []
    for result in results:
        found.append(result)
        assert len(taken) <= len(found) + 2 * (os.cpu_count() or 1)
    assert [number for number, _ in found] == list(range(100))
    assert threading.get_ident() not in {thread for _, thread in found}


def test_what_a_job_raises_is_raised_in_its_turn():
    def fails(number):
        if number == 5:
            raise KeyError(number)
        return number

    found = []
    with pytest.raises(KeyError):
        found.extend(map_in_threads(fails, range(20)))
    assert found in ([], [0, 1, 2, 3, 4])
    results = map_in_threads(fails, range(20))
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        next(results)
    assert threading.active_count() < 10
