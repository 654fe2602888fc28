"""Small record sets whose every image is known."""

import numpy as np
import pytest
from helpers.record_sets import jpeg, write_records


@pytest.fixture(scope="session")
def pool():
    """Encoded images, each another."""
    return [jpeg(number) for number in range(160)]


@pytest.fixture
def make_set(tmp_path, pool):
    """Makes a set of keys 0 and up, of these labels, from the pool's image of that number on."""

    def make(name, labels, first=0, names=None, heading="folder", landmarks=False):
        folder = tmp_path / name
        folder.mkdir()
        write_records(folder, {key: (float(n), pool[first + key]) for key, n in enumerate(labels)})
        if names is not None:
            rows = "".join(f"{label}\t{person}\n" for label, person in names.items())
            (folder / "labels.tsv").write_text(f"label\t{heading}\n{rows}")
        if landmarks:
            points = np.random.default_rng(first).uniform(30, 80, (len(labels), 5, 2))
            np.save(folder / "train_landmarks.npy", points.astype(np.float32))
        return folder

    return make
