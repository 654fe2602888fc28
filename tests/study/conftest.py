"""The study's scripts, and a grid of seconds: made patterns, tiny networks, nothing learned."""

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.engine_runs import made_face, make_faces, png, save_teacher

from arcface_cakd.data import write_bin

SCRIPTS = Path(__file__).parents[2] / "eval" / "study"
sys.path.insert(0, str(SCRIPTS))

PEOPLE, PAIRS = 30, 220


def write_pairs(folder, name, first):
    """A set of people numbered from ``first``: each with three images, so that images repeat."""
    random = np.random.default_rng(first)
    images = [[png(made_face(first + p, n)) for n in range(3)] for p in range(PEOPLE)]
    encoded, issame, people = [], [], []
    for pair in range(PAIRS):
        one, other = random.choice(PEOPLE, 2, replace=False)
        if pair % 2 == 0:
            one = other = pair // 2 % PEOPLE
        left, right = random.choice(3, 2, replace=False)
        encoded += [images[one][left], images[other][right]]
        issame.append(pair % 2 == 0)
        people.append(f"person {one}\tperson {other}\n")
    write_bin(folder / f"{name}.bin", encoded, issame)
    (folder / f"{name}_people.tsv").write_text("".join(people))


@pytest.fixture(scope="session")
def faces(tmp_path_factory):
    """A faces' folder with the data "tiny": sets dev and test, and a teacher."""
    root = tmp_path_factory.mktemp("study")
    make_faces(root / "tiny", pairs=20)
    write_pairs(root / "tiny", "dev", 1000)
    write_pairs(root / "tiny", "test", 2000)
    save_teacher(root / "tiny" / "teacher.pt", seed=5, name="test_tiny")
    return root


@pytest.fixture
def tiny(monkeypatch, faces, tmp_path):
    """The command line of run.py on that grid; runs, work and log lie in ``tmp_path``."""
    import grid
    import run

    data = grid.Data(
        folder="tiny",
        teacher={"network": "test_tiny", "weights": "tiny/teacher.pt"},
        choose=("dev",),
        report=("test",),
        student={
            "network": "test_tiny",
            "embedding_size": 16,
            "batch_size": 12,
            "num_epoch": 1,
            "num_workers": 0,
            "frequent": 2,
        },
        negatives=2,
    )
    monkeypatch.setitem(grid.SIZES["cpu"], "tiny", data)
    (tmp_path / "LOG.md").write_text("# Log\n\n## Openings\n")
    monkeypatch.setattr(run, "LOG", tmp_path / "LOG.md")
    shared = tmp_path / "faces"
    shared.mkdir()
    (shared / "tiny").symlink_to(faces / "tiny")

    def command(*words):
        places = ["--faces", str(shared), "--runs", str(tmp_path / "runs")]
        return run.main(["--data", "tiny", *words, *places])

    command.runs, command.work, command.faces = tmp_path / "runs", shared / "work", shared
    return command
