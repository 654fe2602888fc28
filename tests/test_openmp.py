"""Threads that sleep early: said to OpenMP before torch reads it, unless somebody chose."""

import os
import subprocess
import sys

import pytest

from arcface_cakd.openmp import CHOSEN_BY, spin_briefly


@pytest.fixture
def nobody_chose(monkeypatch):
    for name in CHOSEN_BY:
        monkeypatch.setenv(name, "")  # so that what is set here is taken back
        monkeypatch.delenv(name)


def test_nobody_chose(nobody_chose):
    spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
    assert "OMP_WAIT_POLICY" not in os.environ


@pytest.mark.parametrize("name", CHOSEN_BY)
def test_whoever_has_chosen_is_left_alone(name, nobody_chose, monkeypatch):
    monkeypatch.setenv(name, "7")
    before = dict(os.environ)
    spin_briefly()
    assert dict(os.environ) == before


@pytest.mark.parametrize(("chosen", "taken"), [(None, "1000"), ("77", "77")])
def test_openmp_takes_it(chosen, taken, nobody_chose, monkeypatch):
    """As it says itself when a command has imported torch."""
    monkeypatch.setenv("OMP_DISPLAY_ENV", "verbose")
    if chosen:
        monkeypatch.setenv("GOMP_SPINCOUNT", chosen)
    command = [sys.executable, "-m", "arcface_cakd", "list", "backbones"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    if "GOMP_SPINCOUNT" not in said:
        pytest.skip("this torch is not built with GNU's OpenMP")
    assert f"GOMP_SPINCOUNT = '{taken}'" in said
