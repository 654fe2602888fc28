"""A small checkpoint as this version writes it, for tests that later ones still read it.

    PYTHONPATH=.:tests python tests/golden/make_checkpoint.py tests/golden/checkpoint_0.pt

``checkpoint_0.pt``: of commit ed6dd29, before checkpoints said which format they have; torch 2.14.
``checkpoint_1.pt``: of commit a214dc2, format 1; torch 2.14.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from helpers.engine_runs import make_faces, small_config

from arcface_cakd.engine import checkpoint_path, train

SETTINGS = dict(embedding_size=4, save_all_states=True, num_epoch=1)
STEP = 6


def main(target: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        faces = make_faces(Path(folder) / "faces")
        config = small_config(faces, Path(folder) / "run", **SETTINGS)
        train(config, stop_after_step=STEP)
        shutil.copy(checkpoint_path(config.output), target)


if __name__ == "__main__":
    main(sys.argv[1])
