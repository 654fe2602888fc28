"""Threads that sleep early: said to OpenMP before torch reads it, unless somebody chose."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from arcface_cakd.cli import main
from arcface_cakd.openmp import CHOSEN_BY, FEW_SPINS, spin_briefly

# torch's wheels for Linux bring it beside their own libraries.
GNU_OPENMP = any((Path(torch.__file__).parent.parent / "torch.libs").glob("libgomp*")) or any(
    (Path(torch.__file__).parent / "lib").glob("libgomp*")
)


@pytest.fixture
def nobody_chose(monkeypatch):
    for name in CHOSEN_BY:
        monkeypatch.setenv(name, "")  # so that what is set here is taken back
        monkeypatch.delenv(name)


def test_nobody_chose(nobody_chose):
    spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == FEW_SPINS
    assert "OMP_WAIT_POLICY" not in os.environ


@pytest.mark.parametrize("name", CHOSEN_BY)
def test_whoever_has_chosen_is_left_alone(name, nobody_chose, monkeypatch):
    monkeypatch.setenv(name, "7")
    before = dict(os.environ)
    spin_briefly()
    assert dict(os.environ) == before


def test_a_bench_measures_torch_as_it_is(nobody_chose, capsys):
    assert main(["bench", "latency", "nowhere.pt"]) == 1
    assert "GOMP_SPINCOUNT" not in os.environ
    assert main(["evaluate", "nowhere.pt", "--data", "nowhere"]) == 1
    assert os.environ["GOMP_SPINCOUNT"] == FEW_SPINS
    capsys.readouterr()


@pytest.mark.skipif(not GNU_OPENMP, reason="this torch is not built with GNU's OpenMP")
@pytest.mark.parametrize(("chosen", "taken"), [(None, FEW_SPINS), ("77", "77")])
def test_openmp_takes_it(chosen, taken, nobody_chose, monkeypatch):
    """As it says itself when a command has imported torch."""
    monkeypatch.setenv("OMP_DISPLAY_ENV", "verbose")
    if chosen:
        monkeypatch.setenv("GOMP_SPINCOUNT", chosen)
    command = [sys.executable, "-m", "arcface_cakd", "list", "backbones"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert f"GOMP_SPINCOUNT = '{taken}'" in said
