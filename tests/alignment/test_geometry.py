import math

import numpy as np
import pytest
import torch
from helpers.face_distances import HALF_DIAGONAL, LANDMARKS, brute_force, places

from arcface_cakd.alignment import geometry as g
from arcface_cakd.config import ConfigError


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
    np.testing.assert_allclose(ours.numpy(), brute_force(a, b, kind, weight), atol=1e-12)


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
    with pytest.raises(ConfigError, match=f'{nearest}.*placing="landmarks"'):
        g.center_places(count)


@pytest.mark.parametrize("count", [5, 6, 8, 23, 49, 100, 150])
def test_centres_stand_on_and_around_the_landmarks(count):
    at = g.center_places(count, "landmarks")
    assert at.dtype == torch.float64
    assert torch.equal(at, g.center_places(count, "landmarks"))
    expected = []
    # Left and right alike: an odd centre goes to the nose, pairs to the eyes, then to the mouth.
    eyes, mouth, nose = [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0)][count % 5]
    extra = (eyes, eyes, nose, mouth, mouth)
    for (x, y), more in zip(LANDMARKS, extra, strict=True):
        left = count // 5 + more - 1
        sizes = []
        while left > 0:
            sizes.append(min(6 + 6 * len(sizes), left))
            left -= sizes[-1]
        expected.append((x, y))
        for ring, size in enumerate(sizes):
            radius = 15 * (ring + 1) / len(sizes)
            for k in range(size):
                turn = 2 * math.pi * k / size  # from the top, clockwise on the picture
                expected.append((x + radius * math.sin(turn), y - radius * math.cos(turn)))
    np.testing.assert_allclose(at.numpy(), expected, atol=1e-12)
    assert at.min() >= -0.5 and at.max() <= 111.5
    assert len({tuple(p) for p in at.round(decimals=3).tolist()}) == count


def test_fewer_centres_than_landmarks_are_an_error():
    with pytest.raises(ConfigError, match="num_centers is 4: set at least 5"):
        g.center_places(4, "landmarks")


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


def test_a_map_may_cover_less_than_the_crop():
    values = torch.rand(12, 12, dtype=torch.float64)
    at = g.patch_places((12, 12), 108)
    ours = g.facial_distance(at, at, "saliency", 2.0, values, 108)
    flat = values.flatten()
    expected = (flat[:, None] - flat[None]).abs() * 2 * HALF_DIAGONAL
    torch.testing.assert_close(ours - g.euclidean_distance(at, at), expected)
    of_map = g.correlation_with_euclidean(at, at, "saliency", values)
    assert of_map != g.correlation_with_euclidean(at, at, "saliency")


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


@pytest.mark.parametrize(
    ("grids", "extents"),
    [
        (((7, 7), (7, 7)), (112, 112)),
        (((2, 3), (4, 1)), (112, 96)),
        (((7, 7), (12, 12)), (112, 108)),
    ],
)
def test_patches_share_cells_by_area(grids, extents):
    """Against small squares: how much of what two patches cover is the same."""
    ours = g.patch_shares(grids[0], extents[0], grids[1], extents[1])
    fine = (np.arange(112 * 6) + 0.5) / 6

    def covered(grid, extent):
        rows, columns = (np.floor(fine * n / extent).astype(int) for n in grid)
        patch = rows[:, None] * grid[1] + columns[None]
        patch[(rows >= grid[0])[:, None] | (columns >= grid[1])[None]] = -1
        return patch

    patches = [covered(grid, extent) for grid, extent in zip(grids, extents, strict=True)]
    for share, grid in zip(ours, grids, strict=True):
        assert share.dtype == torch.float64 and (share >= 0).all()
        np.testing.assert_allclose(share.sum(1), np.ones(grid[0] * grid[1]), atol=1e-12)
    # The total variation of two patches, looked at alone: 1 - what they have in common.
    for a in range(grids[0][0] * grids[0][1])[:6]:
        for b in range(grids[1][0] * grids[1][1])[:6]:
            fields = [(p == i) / (p == i).sum() for p, i in zip(patches, (a, b), strict=True)]
            expected = np.abs(fields[0] - fields[1]).sum() / 2
            found = (ours[0][a] - ours[1][b]).abs().sum().item() / 2
            assert found == pytest.approx(expected, abs=0.03)
