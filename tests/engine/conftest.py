import pytest
from helpers.engine_runs import make_faces


@pytest.fixture(scope="session")
def faces(tmp_path_factory):
    """A folder with train.rec of 6 identities x 6 images, and lfw.bin."""
    return make_faces(tmp_path_factory.mktemp("engine") / "faces")
