"""What an embedder says of the embeddings that it gives."""

import numpy as np

from arcface_cakd.evaluation import Embedder


def of_colour(images):
    return images.mean(dim=(2, 3)).round()  # of grey faces 0


def test_embeddings_of_length_0_are_counted(caplog):
    faces = np.full((5, 112, 112, 3), 128, dtype=np.uint8)
    faces[1], faces[2] = 255, (255, 0, 0)
    embedder = Embedder(of_colour)
    embedder(faces[1:3], "colours")
    assert caplog.messages == []
    found = embedder(faces, "greys")
    embedder.part(faces, slice(3, 5), "later")
    assert np.count_nonzero(~found.any(axis=1)) == 3
    assert caplog.messages == [
        "greys: 3 of 5 embeddings are zero",
        "later: 2 of 2 embeddings are zero",
    ]
