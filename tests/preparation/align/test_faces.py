"""Which of several faces is taken."""

import numpy as np
import pytest

from arcface_cakd.data import DataError
from arcface_cakd.preparation.align.faces import Face, chosen

POINTS = np.zeros((5, 2), np.float32)
#            at the edge, large       in the middle            beside it, small, sure
FACES = [
    Face(POINTS, (0, 0, 200, 220), 0.7),
    Face(POINTS, (350, 250, 90, 100), 0.6),
    Face(POINTS, (460, 260, 30, 30), 0.9),
]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_one_face_is_taken_whatever_their_order(order):
    faces = [FACES[number] for number in order]
    for choice, number in (("largest", 0), ("central", 1), ("score", 2)):
        assert chosen(faces, (600, 800), choice) == [FACES[number]]
    assert chosen(faces, (600, 800), "all") == faces


def test_central_is_the_face_around_the_centre_first():
    # The centre (400, 300) lies in the wide face, though the small one's middle is nearer to it.
    wide, small = Face(POINTS, (390, 290, 300, 300), 0.5), Face(POINTS, (405, 305, 10, 10), 0.9)
    assert chosen([small, wide], (600, 800), "central") == [wide]


def test_what_cannot_be_chosen_is_refused():
    with pytest.raises(DataError, match="'biggest' of a face: it must be one of largest, central"):
        chosen(FACES, (600, 800), "biggest")
    with pytest.raises(DataError, match="chosen by score: what found them gives none"):
        chosen([*FACES, Face(POINTS, (0, 0, 1, 1))], (600, 800), "score")
