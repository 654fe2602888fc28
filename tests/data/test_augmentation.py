"""Each augmentation against numbers that are computed another way, and what is drawn for whom."""

import math

import numpy as np
import pytest
import torch
from helpers.integer_draws import draw
from helpers.record_sets import pixels

from arcface_cakd.data import Augmentation, get_dataloader
from arcface_cakd.data.augmentation import cropped, recoloured, resampled
from arcface_cakd.data.draws import epoch_flips, view_draws

NEVER = {"crop": 0.0, "low_resolution": 0.0, "photometric": 0.0}


def face(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(0, 256, (14, 14, 3)), np.ones((8, 8, 1)))
    return (coarse + rng.integers(-30, 30, (112, 112, 3))).clip(0, 255).astype(np.uint8)


def numbers(seed: int, count: int) -> list[float]:
    return np.random.default_rng(seed).random(count).tolist()


@pytest.mark.parametrize("seed", range(6))
def test_a_crop_keeps_a_rectangle_where_it_is(seed):
    image, (area, ratio, top, left) = face(seed), numbers(seed, 4)
    out = cropped(image, area, ratio, top, left)
    size = 112 * 112 * (0.2 + 0.8 * area)
    aspect = math.exp(math.log(3 / 4) + ratio * (math.log(4 / 3) - math.log(3 / 4)))
    h, w = (min(112, round(math.sqrt(s))) for s in (size / aspect, size * aspect))
    y, x = math.floor(top * (113 - h)), math.floor(left * (113 - w))
    for row in range(112):
        for column in range(112):
            inside = y <= row < y + h and x <= column < x + w
            expected = image[row, column] if inside else (0, 0, 0)
            assert tuple(out[row, column]) == tuple(expected)


def test_crops_are_as_large_and_as_long_as_they_may_be():
    white = np.full((112, 112, 3), 255, dtype=np.uint8)
    shares, ratios, corners = [], [], set()
    for seed in range(400):
        out = cropped(white, *numbers(seed, 4))[..., 0] > 0
        h, w = out.any(1).sum(), out.any(0).sum()
        assert out.sum() == h * w
        shares.append(h * w / 112**2)
        if max(h, w) < 112:
            ratios.append(w / h)
        corners |= {(bool(out[0].any()), bool(out[-1].any()))}
    # The mean would be 0.6 if no side were cut where it would pass the border.
    assert 0.19 < min(shares) < 0.22 and max(shares) > 0.9
    assert np.mean(shares) == pytest.approx(0.6, abs=0.04)
    assert 0.73 < min(ratios) < 0.8 and 1.25 < max(ratios) < 1.37
    assert len(corners) == 4
    extreme = np.nextafter(1.0, 0.0)
    assert cropped(white, extreme, 0.5, extreme, extreme).min() == 255


def filters():
    """Pillow's, as functions of the distance, with the distance at which they end."""

    def bilinear(x):
        return max(0.0, 1 - abs(x))

    def box(x):
        return 1.0 if -0.5 < x <= 0.5 else 0.0

    def bicubic(x, a=-0.5):
        x = abs(x)
        if x < 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    def lanczos(x):
        return float(np.sinc(x) * np.sinc(x / 3)) if abs(x) < 3 else 0.0

    return {1: (bilinear, 1.0), 2: (box, 0.5), 3: (bicubic, 2.0), 4: (lanczos, 3.0)}


def weights(old: int, new: int, number: int) -> np.ndarray:
    """(new, old): what each old pixel is to each new one."""
    matrix = np.zeros((new, old))
    scale = old / new
    for i in range(new):
        center = (i + 0.5) * scale
        if number == 0:
            matrix[i, int(center)] = 1.0
            continue
        kernel, support = filters()[number]
        wide = max(scale, 1.0)
        low = max(0, int(center - support * wide + 0.5))
        high = min(old, int(center + support * wide + 0.5))
        for j in range(low, high):
            matrix[i, j] = kernel((j + 0.5 - center) / wide)
    return matrix / matrix.sum(1, keepdims=True)


def resized(image: np.ndarray, size: int, number: int) -> np.ndarray:
    matrix = weights(len(image), size, number)
    for axes in ("xj,yjc->yxc", "yi,ixc->yxc"):  # along the rows first, rounded in between
        image = np.floor(np.einsum(axes, matrix, image.astype(np.float64)) + 0.5).clip(0, 255)
    return image


@pytest.mark.parametrize("down", range(5))
@pytest.mark.parametrize("up", range(5))
def test_low_resolution_shrinks_and_enlarges(down, up):
    image = face(10 * down + up)
    # The nearest pixel of two that are equally near is whichever rounding makes it: 64 has none.
    size = 64 if down == 0 else 30 + 15 * up + down
    side = ((size + 0.5) / 112 - 0.2) / 0.8
    out = resampled(image, side, (down + 0.5) / 5, (up + 0.5) / 5)
    expected = resized(resized(image, size, down), 112, up)
    if up == 0:
        apart = [(2 * i + 1) * size % 224 != 0 for i in range(112)]
        assert sum(apart) > 90
        out, image, expected = (each[apart][:, apart] for each in (out, image, expected))
    # Pillow's own numbers are integers of 22 bits: where one falls on a half, it may round away,
    # and what is off by one in the small image by as much, or a little more, in the large one.
    off = np.abs(out.astype(np.float64) - expected)
    assert off.max() <= 2 and off.mean() < 0.1
    assert down == up == 0 or np.abs(out.astype(int) - image).mean() > 1


@pytest.mark.parametrize("order", range(6))
def test_colours_change_in_the_order_drawn(order):
    image = face(order)
    brightness, contrast, saturation = numbers(order, 3)
    out = recoloured(image, brightness, contrast, saturation, (order + 0.5) / 6)
    names = [("b", "c", "s"), ("b", "s", "c"), ("c", "b", "s"), ("c", "s", "b"), ("s", "b", "c")]
    names.append(("s", "c", "b"))
    now = image.astype(np.float64)
    for name in names[order]:
        luma = 0.299 * now[..., 0] + 0.587 * now[..., 1] + 0.114 * now[..., 2]
        if name == "b":
            now = now * (0.5 + brightness)
        elif name == "c":
            now = luma.mean() + (0.5 + contrast) * (now - luma.mean())
        else:
            now = luma[..., None] + (0.5 + saturation) * (now - luma[..., None])
        now = now.clip(0, 255)
    assert np.abs(out - now).max() <= 0.5 + 1e-3
    same = recoloured(image, 0.5, 0.5, 0.5, order / 6)
    np.testing.assert_array_equal(same, image)


def test_each_happens_as_often_as_it_is_said_and_by_itself():
    image = face(0)
    drawn = view_draws(np.arange(2000), 3, 1, Augmentation.draws)
    for name, first, function in (
        ("crop", 0, lambda d: cropped(image, *d[1:5])),
        ("low_resolution", 5, lambda d: resampled(image, *d[6:9])),
        ("photometric", 9, lambda d: recoloured(image, *d[10:14])),
    ):
        augment = Augmentation(**{**NEVER, name: 0.2})
        happened = drawn[:, first] < 0.2
        assert happened.mean() == pytest.approx(0.2, abs=0.04)
        for row in [*drawn[happened][:5], *drawn[~happened][:5]]:
            out = augment(image, row)
            expected = function(row) if row[first] < 0.2 else image
            np.testing.assert_array_equal(out, expected)
    assert Augmentation().settings == dict.fromkeys(NEVER, 0.2)
    every = Augmentation(crop=1.0, low_resolution=1.0, photometric=1.0)
    row = drawn[7]
    expected = recoloured(resampled(cropped(image, *row[1:5]), *row[6:9]), *row[10:14])
    np.testing.assert_array_equal(every(image, row), expected)


def test_what_is_drawn_stays_what_it_was():
    """Golden values, by Python integers: a run resumes with the same views after an upgrade."""
    for seed, view in ((0, 0), (2048, 3), (-1, 1)):
        drawn = view_draws(np.arange(1, 20), seed, view, 4)
        expected = [
            [(draw(key, seed, view, 2 + i) >> 11) / 2**53 for i in range(4)] for key in range(1, 20)
        ]
        assert drawn.tolist() == expected
        assert view_draws(np.array([7]), seed, view, 2).tolist() == [expected[6][:2]]
    many = view_draws(np.arange(20_000), 1, 0, 3)
    assert np.abs(np.corrcoef(many.T) - np.eye(3)).max() < 0.035
    assert many.mean() == pytest.approx(0.5, abs=0.01) and 0 <= many.min() < many.max() < 1


def epochs_of(folder, epochs, **settings):
    loader = get_dataloader(
        folder, 4, seed=5, augmentation=Augmentation(crop=0.5, low_resolution=0.5), **settings
    )
    found = []
    for epoch in epochs:
        loader.set_epoch(epoch)
        found.append(list(loader))
    return found


def test_batches_are_augmented_by_seed_epoch_and_key(insightface_set):
    """Every image of two epochs against its own draws, flipped after augmentation."""
    folder, images = insightface_set
    augment = Augmentation(crop=0.5, low_resolution=0.5)
    keys = np.arange(1, 27)
    seen = 0
    for epoch, batches in enumerate(epochs_of(folder, (0, 1), num_workers=0)):
        flips = epoch_flips(keys, 5, epoch)
        drawn = view_draws(keys, 5, epoch, Augmentation.draws)
        expected = {}
        for key, flip, row in zip(keys.tolist(), flips, drawn, strict=True):
            view = augment(pixels(images[key][1]), row)
            expected[(view[:, ::-1] if flip else view).tobytes()] = images[key][0]
        for batch, labels in batches:
            planes = ((batch.permute(0, 2, 3, 1).double() + 1) * 127.5).round().byte().numpy()
            for image, label in zip(planes, labels.tolist(), strict=True):
                assert expected[image.tobytes()] == label
                seen += 1
    assert seen == 48


def test_neither_workers_nor_ranks_change_them(insightface_set):
    folder, _ = insightface_set
    whole = epochs_of(folder, (0, 1), num_workers=0)
    for left, right in zip(whole, epochs_of(folder, (0, 1), num_workers=2), strict=True):
        for (images, labels), (others, their_labels) in zip(left, right, strict=True):
            assert torch.equal(images, others) and torch.equal(labels, their_labels)

    def images_of(batches):
        return {image.numpy().tobytes() for images, _ in batches for image in images}

    ranks = [epochs_of(folder, (1,), num_workers=0, rank=r, world_size=2)[0] for r in (0, 1)]
    assert images_of(ranks[0]) | images_of(ranks[1]) == images_of(whole[1])
    assert not images_of(ranks[0]) & images_of(ranks[1])


def test_a_number_of_views_repeats_them(insightface_set):
    """Epoch e sees view e modulo 2: the same pixels, each flipped or not as its epoch has it."""
    folder, _ = insightface_set

    def views(epoch):
        (batches,) = epochs_of(folder, (epoch,), num_workers=0, num_views=2)
        images = torch.cat([images for images, _ in batches])
        return {min(i.numpy().tobytes(), i.flip(-1).numpy().tobytes()) for i in images}

    first, second, third = (views(epoch) for epoch in range(3))
    # An epoch leaves out 2 of 26 images.
    assert len(first & third) >= 22 and len(first & second) < 15


def test_landmarks_stay_where_the_face_stays(insightface_set):
    folder, _ = insightface_set
    np.save(folder / "train_landmarks.npy", np.full((26, 5, 2), 40.0, dtype=np.float32))
    settings = {"seed": 5, "num_workers": 0, "landmarks": True}
    loaders = [
        get_dataloader(folder, 4, **settings, augmentation=augmentation)
        for augmentation in (None, Augmentation(**{**NEVER, "crop": 1.0}))
    ]
    for (plain, *_, faces), (augmented, *_, same) in zip(*loaders, strict=True):
        assert torch.equal(faces, same)
        kept = (augmented > -1).any(1, keepdim=True).expand_as(plain)
        assert torch.equal(augmented[kept], plain[kept]) and 0.1 < kept.double().mean() < 0.95
