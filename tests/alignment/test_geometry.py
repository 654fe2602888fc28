import math

import numpy as np
import pytest
import torch

from arcface_cakd.alignment import geometry as g
from arcface_cakd.config import ConfigError

LANDMARKS = [
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
]
HALF_DIAGONAL = math.hypot(3, 3)


def places(height, width, extent=112):
    return [
        ((column + 0.5) * extent / width - 0.5, (row + 0.5) * extent / height - 0.5)
        for row in range(height)
        for column in range(width)
    ]


def profile(p):
    r = [math.dist(p, landmark) for landmark in LANDMARKS]
    return [value / math.hypot(*r) for value in r]


def saliency(p):
    def total(q):
        return sum(math.exp(-(math.dist(q, landmark) ** 2) / (2 * 12**2)) for landmark in LANDMARKS)

    return total(p) / max(total((x, y)) for x in range(112) for y in range(112))


def brute_force(a, b, kind, weight):
    """D(i, j), pair by pair, in python floats."""
    scale = HALF_DIAGONAL / max(
        math.dist(profile(p), profile(q)) for p in LANDMARKS for q in LANDMARKS
    )
    s = {p: saliency(p) for p in {*a, *b}} if kind == "saliency" else {}
    out = np.empty((len(a), len(b)))
    for i, p in enumerate(a):
        for j, q in enumerate(b):
            face = 0.0
            if kind == "relative":
                face = math.dist(profile(p), profile(q)) * scale
            elif kind == "saliency":
                face = abs(s[p] - s[q]) * HALF_DIAGONAL
            out[i, j] = math.dist(p, q) / 16 + weight * face
    return out


@pytest.mark.parametrize(("grid", "extent"), [((7, 7), 112), ((12, 12), 108), ((3, 5), 112)])
def test_places_are_the_middles_of_the_patches(grid, extent):
    assert g.patch_places(grid, extent).tolist() == pytest.approx(np.array(places(*grid, extent)))


def test_grids_of_different_size_share_the_middle_of_the_face():
    for side in (7, 9, 15):
        middle = g.patch_places((side, side))[side * side // 2]
        assert middle.tolist() == pytest.approx([55.5, 55.5])


@pytest.mark.parametrize("kind", [None, "relative", "saliency"])
@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_distance_equals_brute_force(kind, weight):
    a, b = places(3, 3), [*places(2, 2, 108), LANDMARKS[2]]
    ours = g.facial_distance(
        torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64), kind, weight
    )
    assert ours.dtype == torch.float64
    np.testing.assert_allclose(ours.numpy(), brute_force(a, b, kind, weight), atol=1e-5)


@pytest.mark.parametrize("kind", [None, "relative", "saliency"])
def test_a_place_is_at_distance_zero_of_itself(kind):
    at = g.center_places(49)
    distance = g.facial_distance(at, at, kind)
    assert (distance.diagonal() == 0).all()
    torch.testing.assert_close(distance, distance.T)


def test_anchors():
    assert g.anchor_places("nose").tolist() == [pytest.approx(LANDMARKS[2], abs=1e-4)]
    assert g.anchor_places("center").tolist() == [[55.5, 55.5]]
    assert g.anchor_places("landmarks").shape == (5, 2)


@pytest.mark.parametrize(
    ("count", "nearest"), [(50, "49 and 64"), (3, "1 and 4"), (48, "36 and 49")]
)
def test_centres_must_fill_a_square(count, nearest):
    with pytest.raises(ConfigError, match=nearest):
        g.center_places(count)


def test_relative_distance_is_not_euclidean_distance_in_disguise():
    at, nose = g.center_places(49), g.anchor_places("nose")
    plain = [
        math.dist(
            [math.dist(p, landmark) for landmark in LANDMARKS],
            [math.dist(LANDMARKS[2], landmark) for landmark in LANDMARKS],
        )
        for p in places(7, 7)
    ]
    euclid = [math.dist(p, LANDMARKS[2]) for p in places(7, 7)]
    assert np.corrcoef(plain, euclid)[0, 1] == pytest.approx(0.996, abs=1e-3)  # what it replaces
    assert g.correlation_with_euclidean(at, nose, "relative") == pytest.approx(0.330, abs=1e-3)
    assert g.correlation_with_euclidean(at, at, "relative") == pytest.approx(0.598, abs=1e-3)


def test_a_saliency_map_takes_the_place_of_the_template(tmp_path):
    values = np.random.default_rng(0).random((28, 28))
    np.save(tmp_path / "map.npy", values * 5)
    read = g.read_saliency_map(str(tmp_path / "map.npy"))
    # Middles of a 28x28 grid's cells are where the map's own values stand.
    at = g.patch_places((28, 28))
    ours = g.saliency_distance(at[:3], at, read)
    flat = values.flatten() / values.max()
    expected = np.abs(flat[:3, None] - flat[None]) * HALF_DIAGONAL
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"not numpy", "numpy.save"),
        (b"", "numpy.save"),
        (np.zeros((4, 4)), "not all of them 0"),
        (np.ones((4, 4, 3)), "must be"),
        (np.full((4, 4), np.nan), "finite"),
        (np.array([["a"]]), "numpy.save"),
        (np.array([[{}]], dtype=object), "numpy.save"),
    ],
)
def test_an_unusable_saliency_map_is_one_line(tmp_path, content, said):
    path = tmp_path / "map.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(ConfigError, match=said) as caught:
        g.read_saliency_map(str(path))
    assert "map.npy" in str(caught.value)
    assert "\n" not in str(caught.value)
