import pytest
import torch
from engine.engine_helpers import make_faces


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def faces(tmp_path_factory):
    """A folder with train.rec of 6 identities x 6 images, and lfw.bin."""
    return make_faces(tmp_path_factory.mktemp("engine") / "faces")
