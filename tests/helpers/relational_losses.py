"""Comparison of a loss with what published code computed (golden/relational_losses.json)."""

import pytest
from golden.make_relational_losses import cases, inputs, record

__all__ = ["agrees", "cases", "ident", "inputs", "same"]


def ident(case):
    """A name for a case among the parameters of a test."""
    return f"{case['repository'].split('/')[1]}-{case.get('seed', 'batches')}"


def same(found, case, factor=1.0, tolerance=1e-9):
    """Assert that value and gradient, times a factor, are those of the case."""
    for key in ("value", "gradient_norm", "gradient"):
        values = found[key] if isinstance(found[key], list) else [found[key]]
        expected = case[key] if isinstance(case[key], list) else [case[key]]
        assert [factor * v for v in values] == pytest.approx(expected, rel=tolerance, abs=1e-12)


def agrees(case, loss, factor=1.0, tolerance=1e-9):
    """Assert that ``factor * loss(student, teacher)`` is the case, with its gradient."""
    student, teacher, _ = inputs(case["seed"], case["teacher_width"])
    same(record(lambda: loss(student, teacher), student), case, factor, tolerance)
