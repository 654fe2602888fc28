"""A function over jobs in several processes."""

import operator
import signal
import time

import pytest

from arcface_cakd.workers import Workers


@pytest.mark.parametrize("count", [1, 2])
def test_results_are_in_order_and_jobs_are_asked_for_as_they_go(count):
    asked = []

    def jobs():
        for number in range(100):
            asked.append(number)
            yield 0.03 if number == 0 else 0.0  # the first is done last

    with Workers(count) as map_in_order:
        results = map_in_order(time.sleep, jobs())
        next(results)
        assert len(asked) <= 8 * count + 1
        assert len(list(results)) == 99
        assert list(map_in_order(operator.neg, range(30))) == [-number for number in range(30)]


def test_each_process_is_prepared_first():
    prepared = []
    with Workers(1, prepared.append, ("here",)) as map_in_order:
        assert prepared == ["here"] and list(map_in_order(abs, [-1])) == [1]
    with Workers(2, signal.signal, (signal.SIGALRM, signal.SIG_IGN)) as map_in_order:
        (found,) = map_in_order(signal.getsignal, [signal.SIGALRM])
        assert found == signal.SIG_IGN
        assert list(map_in_order(signal.getsignal, [signal.SIGINT])) == [signal.SIG_IGN]
