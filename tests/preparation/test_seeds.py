"""Seeds that numpy takes, and those that it does not."""

import numpy as np
import pytest

from arcface_cakd.cli import main
from arcface_cakd.data import DataError
from arcface_cakd.preparation.seeds import generator
from arcface_cakd.preparation.template_drawing import draw_templates


@pytest.mark.parametrize(
    "arguments",
    [
        ("pairs", "out.bin", "--pairs", "20"),
        ("split", "a", "b", "--people", "4"),
        ("shuffle", "out"),
    ],
)
def test_a_seed_below_0_is_refused_in_one_line(make_set, tmp_path, monkeypatch, capsys, arguments):
    folder = make_set("in", [n // 2 for n in range(80)])
    monkeypatch.chdir(tmp_path)
    action, *others = arguments
    assert main(["data", action, str(folder), *others, "--seed", "-1"]) == 1
    assert capsys.readouterr().err.endswith("seed is -1: it must be 0 or more\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_templates_too():
    with pytest.raises(DataError, match="seed is -1: it must be 0 or more"):
        draw_templates(np.repeat(np.arange(9), 3), 5, -1)


def test_the_stream_is_numpys():
    assert (generator(7).integers(0, 99, 9) == np.random.default_rng(7).integers(0, 99, 9)).all()
